"""A Trio-based structured-concurrency runtime for a worker mesh."""
