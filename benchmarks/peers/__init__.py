"""Relays to compare with, each a process: it prints its port, and passes on what /NAME/write sends to /NAME/read."""
