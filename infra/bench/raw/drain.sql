-- drain: finishes a batch and claims the next, until none is left.
SELECT coalesce(raw.finish_and_claim(:ids::uuid[], :batch), '{}') AS ids \gset
