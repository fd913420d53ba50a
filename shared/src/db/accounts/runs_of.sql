-- runs_of: the runs of the jobs $1 of an account ($3), which come newest first; none, if it is erased: all of
-- the first one's, and of the others as many as have $2 bytes. The last columns say how many its job has, and
-- all of them.
SELECT r.number, r.attempt, r.ended, r.started_at, r.ended_at, r.error::text, r.job_id, r.of_job,
       r.there
FROM (SELECT r.*, count(*) OVER (PARTITION BY r.job_id) AS of_job, count(*) OVER () AS there,
             sum(300 + coalesce(octet_length(r.error::text), 0)) OVER (ORDER BY r.job_id DESC, r.number)
                 AS bytes
      FROM punchcard.runs r
      WHERE r.job_id = ANY ($1)
        AND NOT EXISTS (SELECT FROM punchcard.erasures e WHERE e.account_id = $3)) r
WHERE r.bytes <= $2 OR r.job_id = ($1::uuid[])[1]
ORDER BY r.job_id DESC, r.number
