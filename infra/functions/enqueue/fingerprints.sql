-- A batch as `request_hash` takes it: the hash of each of its jobs, so that there is but one of them as jsonb
-- at a time. One that is longer than any job that can be bought counts as it is written.
CREATE OR REPLACE FUNCTION punchcard.fingerprints(p_jobs json) RETURNS json
    LANGUAGE plpgsql AS $$
BEGIN
    RETURN (SELECT json_agg(encode(sha256(convert_to(
                CASE WHEN octet_length(j.job::text) > 200000 THEN j.job::text
                     ELSE punchcard.canonical(j.job) END, 'UTF8')), 'hex')
                ORDER BY j.n)
            FROM json_array_elements(p_jobs) WITH ORDINALITY AS j (job, n));
EXCEPTION WHEN data_exception THEN
    RETURN to_json(encode(sha256(convert_to(p_jobs::text, 'UTF8')), 'hex'));
END $$;
