"""Trigger modules: workers on a memory link, like any other worker."""
