-- enqueue: charge and insert in one plain statement, as most would write it.
WITH charged AS (
    UPDATE raw.accounts SET available = available - 1, held = held + 1
    WHERE id = :account AND available >= 1 RETURNING id, available, held
), job AS (
    INSERT INTO raw.jobs (account_id, kind, price, input) SELECT id, 'bench.noop', 1, :input FROM charged
    RETURNING id
)
INSERT INTO raw.ledger (account_id, kind, amount, available_after, held_after, job_id)
SELECT c.id, 'hold', 1, c.available, c.held, j.id FROM charged c, job j RETURNING job_id;
