-- enqueue: charge and insert in one plain statement, as most would write it.
WITH charged AS (
    UPDATE raw.accounts SET available = available - 1, held = held + 1, entries = entries + 1
    WHERE id = :account AND available >= 1 RETURNING id, available, held, entries
), job AS (
    INSERT INTO raw.jobs (account_id, id, price, entry, available_after, held_after, kind, input)
    SELECT id, gen_random_uuid(), 1, entries, available, held, 'bench.noop', :input FROM charged
    RETURNING account_id, id
)
INSERT INTO raw.queue (job_id, account_id, price) SELECT id, account_id, 1 FROM job RETURNING job_id;
