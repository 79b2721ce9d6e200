"""Files, options, progress, pickles and threads, which every stage needs."""
