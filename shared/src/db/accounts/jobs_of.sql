-- jobs_of: how many jobs an account has that are kept.
SELECT count(*) FROM punchcard.jobs j WHERE j.account_id = $1
