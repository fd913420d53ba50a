-- The jobs of an account that have these ids, which come newest first, as they are now: the first of them,
-- and those after it as long as they have no more than p_bytes in all, of what is read of them: inputs and
-- outputs are, unless somebody does without. Planned once; the months that these
-- ids are of are read alone.
CREATE OR REPLACE FUNCTION punchcard.show_jobs(
    p_account_id uuid, p_ids uuid[], p_bytes bigint, p_input boolean DEFAULT true,
    p_output boolean DEFAULT true)
    RETURNS SETOF punchcard.jobs_now
    LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
    SET plan_cache_mode = force_generic_plan SET enable_seqscan = off SET enable_bitmapscan = off
    SET enable_hashjoin = off SET enable_mergejoin = off SET jit = off AS $$
BEGIN
    RETURN QUERY
    SELECT (p.job).*
    FROM (SELECT n::punchcard.jobs_now AS job, w.place,
                 sum(2000 + CASE WHEN p_input THEN octet_length(n.input::text) ELSE 0 END
                     + CASE WHEN p_output THEN coalesce(octet_length(n.output::text), 0) ELSE 0 END
                     + coalesce(octet_length(n.error::text), 0) + coalesce(octet_length(n.metadata::text), 0)
                     + coalesce(octet_length(n.webhook::text), 0)) OVER (ORDER BY w.place) AS bytes
          -- By their keys, one by one.
          FROM unnest(p_ids) WITH ORDINALITY AS w (id, place), LATERAL (
              SELECT n.* FROM punchcard.jobs_between(p_ids[cardinality(p_ids)], p_ids[1]) n
              WHERE n.account_id = p_account_id AND n.id = w.id LIMIT 1) n) p
    WHERE p.bytes <= p_bytes OR p.place = 1
    ORDER BY p.place;
END $$;
