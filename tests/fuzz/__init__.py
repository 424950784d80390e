"""A fuzzer for every input of an engine. By hand: `python -m tests.fuzz --minutes 30`."""
