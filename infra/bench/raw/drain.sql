-- drain: finishes a batch and claims the next, with their inputs, until none is left.
SELECT coalesce(ids, '{}') AS ids, inputs AS inputs FROM raw.finish_and_claim(:ids::uuid[], :batch) \gset
