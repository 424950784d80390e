"""What a worker of the soak does with its end of a stream, and how it tells of it."""

from __future__ import annotations

import json
import os
from typing import Any, Final

import trio

import iii_trio

from .plans import Plan, Receipt, pieces

PREFIX: Final = "soak::"


def say(event: str, **about: Any) -> None:
    """One line, in one write: whoever is killed within it leaves a torn last line at most."""
    os.write(1, json.dumps({"event": event, **about}).encode() + b"\n")


async def read_stream(reader: iii_trio.ChannelReader, plan: Plan) -> dict[str, Any]:
    """Take a stream as it is planned, and say what came."""
    receipt, saw = Receipt(plan), "left"
    try:
        async for item in reader:
            receipt.take(item if isinstance(item, bytes) else item.encode())
            if plan.ending == "cancel" and receipt.bytes > plan.size:
                reader.cancel("as planned")
                saw = "cancelled"
                break
        else:
            saw = "end"
    except iii_trio.ChannelBroken as broken:
        saw = broken.outcome
    except (iii_trio.ConnectionFailed, trio.BrokenResourceError) as error:
        saw = f"failed: {error}"
    finally:
        report = {"saw": saw, **receipt.to_json()}
        say("reader", plan=plan.to_json(), report=report)
    return report


async def write_stream(writer: iii_trio.ChannelWriter, plan: Plan) -> dict[str, Any]:
    """Write a stream as it is planned, and say how it ended."""
    saw = "left"
    try:
        for piece in plan.pieces() if plan.ending != "cancel" else pieces(plan.offset, plan.piece, None):
            await writer.send(piece)
            if plan.pause:
                await trio.sleep(plan.pause)
        if plan.ending == "abort":
            writer.abort("as planned")
            saw = "aborted"
        else:
            await writer.aclose()
            saw = "closed"
    except iii_trio.ChannelBroken as broken:
        saw = broken.outcome
    except (iii_trio.ConnectionFailed, trio.BrokenResourceError) as error:
        saw = f"failed: {error}"
    finally:
        report = {"saw": saw}
        say("writer", plan=plan.to_json(), report=report)
    return report
