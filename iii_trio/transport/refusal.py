"""The errors behind an engine's refusal of a channel's end."""

from __future__ import annotations

import json

from ..errors import AttachRefused, ChannelBroken


def refusal_of(status: int, body: bytes) -> AttachRefused | ChannelBroken:
    """Build the error for an engine's refusal of an attach (clause C2.1)."""
    if status == 410:
        try:
            told = json.loads(body)
            return ChannelBroken(str(told["outcome"]), str(told.get("reason") or ""), code=told.get("code"))
        except (ValueError, KeyError, TypeError):
            pass
    return AttachRefused(status, body.decode(errors="replace")[:200].strip() or "refused")
