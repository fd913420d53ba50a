-- enqueue_function: the same rows by a function whose plans are kept.
SELECT raw.enqueue(:account, 'bench.noop', :input, NULL);
