"""Decisions, without I/O: what happened goes in, effects come out. Pure."""
