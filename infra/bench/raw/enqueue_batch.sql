-- enqueue_batch: a thousand jobs of one account by `unnest`, charged at once, with a number for each.
WITH charged AS (
    UPDATE raw.accounts SET available = available - 1000, held = held + 1000, entries = entries + 1000
    WHERE id = :account AND available >= 1000 RETURNING id, available, held, entries
), job AS (
    INSERT INTO raw.jobs (account_id, id, price, entry, available_after, held_after, kind, input)
    SELECT c.id, gen_random_uuid(), 1, c.entries - 1000 + w.n, c.available + 1000 - w.n, c.held - 1000 + w.n,
           w.kind, w.input::json
    FROM charged c, sent s, unnest(s.kinds, s.inputs) WITH ORDINALITY AS w (kind, input, n)
    RETURNING account_id, id
)
INSERT INTO raw.queue (job_id, account_id, price) SELECT id, account_id, 1 FROM job;
