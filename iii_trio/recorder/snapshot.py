"""The state of a hub as plain data, and back.

A snapshot is taken between two inputs, when nothing waits inside of the core for an answer, such as one of an auth function,
of a hook or of the shell. Such waits are short, and a snapshot waits for their end (decision 0022).
"""

from __future__ import annotations

from functools import cache
from typing import Any, Final

from ..config import EngineConfig
from ..core.hub import Hub
from .plain import NotPlain, Plain, Reader, Writer

LEFT_OUT: Final[dict[str, frozenset[str]]] = {
    "state": frozenset(
        {"_effects", "emit", "config", "new_id", "new_secret", "traces", "sessions", "questions"}
        | {"engine_calls", "name_waiters"}
    ),
    "channels": frozenset({"_defaults", "_limits", "_new_id", "_new_secret", "_sessions", "_emit"}),
    "lost_sessions": frozenset({"_channels"}),
    "triggers": frozenset({"_emit"}),
    "ends_elsewhere": frozenset({"_emit"}),
    "function_changes": frozenset({"_registry"}),
}
"""The fields that are not part of a snapshot. A new hub has them, or they are empty when it is taken."""
LEDGERS: Final = (
    "registry", "calls", "call_counts", "channels", "lost_sessions", "triggers", "function_changes", "events",
    "ends_elsewhere",
)  # fmt: skip
"""The parts of the state whose fields are written one by one, because other parts refer to them."""
_NONE: Final[frozenset[str]] = frozenset()


def is_quiet(hub: Hub) -> bool:
    """Return whether nothing waits for an answer that only this process can give."""
    state = hub.state
    return not (
        state.questions
        or state.name_waiters.waiting
        or state.engine_calls.settled
        or state.engine_calls.next_due() is not None
        or state.triggers.next_due() is not None
    )


def take_snapshot(hub: Hub) -> Plain:
    """Return the state of a quiet hub. Raises NotPlain if a part of it cannot be written."""
    state, writer = hub.state, Writer()
    config = state.config
    parts = [
        [writer.write(part) for part in (config.limits, config.channels, config.timeouts)],
        writer.write(state.sessions),
        _write(writer, "state", state),
        [_write(writer, name, getattr(state, name)) for name in LEDGERS],
    ]
    return [parts, writer.objects]


def _write(writer: Writer, name: str, part: object) -> Plain:
    return [[field, writer.write(getattr(part, field))] for field in _fields()[name]]


def restore_snapshot(hub: Hub, snapshot: Plain) -> None:
    """Give a new hub the state of a snapshot. Raises NotPlain, and leaves the hub unusable, if it cannot be read."""
    state = hub.state
    try:
        (settings, sessions, plain, ledgers), objects = snapshot
        reader = Reader(objects)
        limits, channels, timeouts = map(reader.read, settings)
        config: Any = type(state.config)
        hub.reconfigure(config(limits=limits, channels=channels, timeouts=timeouts))
        # The dictionary itself stays, because other parts refer to it.
        state.sessions.update(reader.read(sessions))
        _read(reader, "state", state, plain)
        for name, fields in zip(LEDGERS, ledgers, strict=True):
            _read(reader, name, getattr(state, name), fields)
    except NotPlain:
        raise
    # A file of another origin may hold anything in place of a snapshot.
    except Exception as error:
        raise NotPlain(f"its snapshot cannot be read ({type(error).__name__})") from None


@cache
def _fields() -> dict[str, list[str]]:
    """Return the names of the fields of each part, so that one that is added later is in its snapshot."""
    # They are read from another hub: Python reads attributes slower once the dictionary of an object was asked for.
    state = Hub(EngineConfig(), "".__str__).state
    parts = {"state": state, **{name: getattr(state, name) for name in LEDGERS}}
    return {
        name: [field for field in vars(part) if field not in LEFT_OUT.get(name, _NONE) and field not in LEDGERS]
        for name, part in parts.items()
    }


def _read(reader: Reader, name: str, part: object, fields: Plain) -> None:
    known = _fields()[name]
    for field, node in fields:
        # A file must not replace the parts of a hub that refer to each other.
        if field not in known:
            raise NotPlain(f"its snapshot has a field `{field}`, which this version does not know")
        setattr(part, field, reader.read(node))
