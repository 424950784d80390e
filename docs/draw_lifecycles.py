"""Draw docs/lifecycles.md from the tables: `python docs/draw_lifecycles.py > docs/lifecycles.md`."""

from __future__ import annotations

from iii_trio.core import binding, call, channel, name_waiters, registry, session
from iii_trio.testing import draw_lifecycle
from iii_trio.transport import connection_state
from iii_trio.triggers.queue import states
from iii_trio.worker import channel_end, worker_state

HEAD = """# Lifecycles

Drawn from the tables in the code by `python docs/draw_lifecycles.py`. A test checks that they are current. An event without
an edge from a state raises `IllegalTransition` and changes nothing.
"""


def drawings() -> str:
    """The whole of docs/lifecycles.md."""
    parts = [HEAD]
    for title, where, text, drawing in (
        (
            "Channel",
            "iii_trio/core/channel.py",
            "One channel: two ends, attached and closed in any order. Each outcome is a state of its own.",
            draw_lifecycle(channel.CHANNEL, channel.ChannelState.ALLOCATED),
        ),
        (
            "Channel end",
            "iii_trio/worker/channel_end.py",
            "An end in a worker's hands: what a call does with the ends it has used depends on it (clause C5.4).",
            draw_lifecycle(channel_end.CHANNEL_END, channel_end.ChannelEndState.FRESH),
        ),
        (
            "Session",
            "iii_trio/core/session.py",
            "A worker's connection, as the engine sees it.",
            draw_lifecycle(session.SESSION, session.SessionState.UNNAMED),
        ),
        (
            "Membership",
            "iii_trio/worker/worker_state.py",
            "The same, as the worker sees it: lost links are healed.",
            draw_lifecycle(worker_state.MEMBERSHIP, worker_state.WorkerState.CONNECTING),
        ),
        (
            "Call",
            "iii_trio/core/call.py",
            "One call that was given to a callee.",
            draw_lifecycle(call.CALL, call.CallState.WAITING),
        ),
        (
            "Function",
            "iii_trio/core/registry.py",
            "One registration of a function. Later workers stand by (promises R1 to R4).",
            draw_lifecycle(registry.FUNCTION, registry.FunctionState.STANDBY),
        ),
        (
            "Claim of a name",
            "iii_trio/core/name_waiters.py",
            "A worker that claims the name of another one, while it waits (promises R5 to R8).",
            draw_lifecycle(name_waiters.NAME_WAITER, name_waiters.WaiterState.WAITING),
        ),
        (
            "Binding",
            "iii_trio/core/binding.py",
            "One trigger binding.",
            draw_lifecycle(binding.BINDING, binding.BindingState.PARKED),
        ),
        (
            "Connection",
            "iii_trio/transport/connection_state.py",
            "One WebSocket connection, on either side.",
            draw_lifecycle(connection_state.CONNECTION, connection_state.ConnectionState.CONNECTING),
        ),
        (
            "Job",
            "iii_trio/triggers/queue/states.py",
            "One job of the queue. A lease is not on disk: there a job waits until it is done or dead (promise Q2).",
            draw_lifecycle(states.JOB, states.JobState.STORING),
        ),
        (
            "Lane",
            "iii_trio/triggers/queue/states.py",
            "A queue, or one subscriber of a topic.",
            draw_lifecycle(states.LANE, states.LaneState.OPEN),
        ),
    ):
        parts.append(f"\n## {title}\n\n`{where}`: {text}\n\n```mermaid\n{drawing}```\n")
    return "".join(parts)


if __name__ == "__main__":
    print(drawings(), end="")
