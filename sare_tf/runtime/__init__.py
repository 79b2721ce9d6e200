"""Files, progress, pickles and threads: what every stage needs."""
