-- runs: up to $5 runs of a job that have ended, oldest first, after the one numbered $3: as many as have $4
-- bytes, and in the last column how many there are; of one account ($2) or of any (NULL).
SELECT r.number, r.attempt, r.ended, r.started_at, r.ended_at, r.error::text, r.there
FROM (SELECT r.*, count(*) OVER () AS there,
             sum(300 + coalesce(octet_length(r.error::text), 0)) OVER (ORDER BY r.number) AS bytes
      FROM punchcard.runs r
      WHERE r.job_id = $1 AND r.number > $3
        AND EXISTS (SELECT FROM punchcard.jobs j
                    WHERE j.id = $1
                      AND NOT EXISTS (SELECT FROM punchcard.erasures e WHERE e.account_id = j.account_id)
                      AND j.account_id = coalesce(
                          $2, (SELECT account_id FROM punchcard.queue WHERE job_id = $1),
                          (SELECT account_id FROM punchcard.outcomes WHERE job_id = $1)))) r
WHERE r.bytes <= $4
ORDER BY r.number
LIMIT $5
