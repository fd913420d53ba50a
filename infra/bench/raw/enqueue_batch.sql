-- enqueue_batch: a thousand jobs of one account by `unnest`, charged at once, with an entry for each.
WITH charged AS (
    UPDATE raw.accounts SET available = available - 1000, held = held + 1000
    WHERE id = :account AND available >= 1000 RETURNING id, available, held
), job AS (
    INSERT INTO raw.jobs (account_id, kind, price, input)
    SELECT c.id, w.kind, 1, w.input::json
    FROM charged c, sent s, unnest(s.kinds, s.inputs) AS w (kind, input)
    RETURNING id
)
INSERT INTO raw.ledger (account_id, kind, amount, available_after, held_after, job_id)
SELECT c.id, 'hold', 1, c.available, c.held, j.id FROM charged c, job j;
