"""Mutation testing: does a test fail when one operator or number is changed? See `python -m tests.mutation -h`."""
