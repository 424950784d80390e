"""Workarounds for defects of released SDKs. README.md beside this file says when each can be removed."""
