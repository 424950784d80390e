"""Sockets, frames, outboxes, pipes and links."""
