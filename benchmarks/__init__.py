"""Measurements of the engine, side by side with floors and peers: `python -m benchmarks`."""
