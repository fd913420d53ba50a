-- The kinds that a worker serves: the Rust kinds in p_kinds and, if p_http, HTTP targets, whose time limit
-- fits into the p_budget seconds that it has left; if it was woken, p_woken, only those that SQS dispatches;
-- and retired ones, to fail them.
CREATE OR REPLACE FUNCTION punchcard.served_kinds(
    p_kinds text[], p_http boolean, p_budget integer, p_woken boolean)
    RETURNS SETOF text LANGUAGE sql STABLE AS $$
    SELECT k.name FROM punchcard.kinds k
    WHERE (CASE WHEN k.url IS NULL THEN k.name = ANY (p_kinds) ELSE p_http END
           AND k.timeout_seconds <= p_budget AND NOT (p_woken AND k.dispatch = 'poll'))
       OR k.retired_at IS NOT NULL
$$;
