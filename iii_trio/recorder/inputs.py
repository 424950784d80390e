"""The inputs of a hub that are recorded, each with the names of its arguments."""

from __future__ import annotations

from typing import Final, final


@final
class Input:
    """A kind of input. It marks the beginning of each entry of a ring."""

    __slots__ = ("arguments", "name")

    def __init__(self, name: str, *arguments: str) -> None:
        self.name = name
        self.arguments = arguments

    def __repr__(self) -> str:
        return self.name


CONNECTED: Final = Input(
    "connected", "now_ms", "peer", "in_process", "max_channels", "internal", "access", "credentials"
)
RECEIVED: Final = Input("received", "session", "text")
UNREADABLE: Final = Input("unreadable", "session", "problem", "type", "invocation_id", "names")
"""Only in recordings: a message that the engine could not read, without its text."""
UNDELIVERED: Final = Input("undelivered", "session", "invocation_id")
DISCONNECTED: Final = Input("disconnected", "session", "reason", "may_come_back", "left")
CLOSE_SESSION: Final = Input("close_session", "session", "code", "reason", "may_come_back")
CHANGE_RULES: Final = Input("change_rules", "session", "max_channels", "access")
ATTACH: Final = Input("attach", "channel", "key", "direction", "session", "invocation_id", "status")
CHANNEL_EVENT: Final = Input("channel_event", "channel", "event", "reason", "code")
NAME_HOME: Final = Input("name_home", "home")
SHOW_WORKERS: Final = Input("show_workers", "rows")
SHOW_GAUGES: Final = Input("show_gauges", "worker", "gauges", "time_ms")
HOLD_ELSEWHERE: Final = Input("hold_elsewhere", "channel", "session")
RELEASE_ELSEWHERE: Final = Input("release_elsewhere", "channel", "session")
CHANNEL_ENDED_ELSEWHERE: Final = Input("channel_ended_elsewhere", "channel", "outcome", "reason", "code")
ENGINE_LOST: Final = Input("engine_lost", "home", "reason")
REFUSE_NAME: Final = Input("refuse_name", "namespace", "name", "holder", "node")
TOUCH: Final = Input("touch", "channel")
UNREAD_INPUT_KNOWN: Final = Input("unread_input_known", "session", "has_unread_input")
SIGN_OF_LIFE_KNOWN: Final = Input("sign_of_life_known", "session", "is_alive")
CHANNEL_IO_KNOWN: Final = Input("channel_io_known", "question", "statistics")
STATISTICS_KNOWN: Final = Input("statistics_known", "question", "statistics")
RECORDING_KNOWN: Final = Input("recording_known", "question", "result", "error")
TICK: Final = Input("tick")
RECONFIGURE: Final = Input("reconfigure", "limits", "channels", "timeouts")
DRAIN: Final = Input("drain")
CLOSE: Final = Input("close", "reason")

INPUTS: Final = {
    each.name: each
    for each in (
        CONNECTED, RECEIVED, UNREADABLE, UNDELIVERED, DISCONNECTED, CLOSE_SESSION, CHANGE_RULES, ATTACH,
        CHANNEL_EVENT, NAME_HOME, SHOW_WORKERS, HOLD_ELSEWHERE, RELEASE_ELSEWHERE, CHANNEL_ENDED_ELSEWHERE, ENGINE_LOST,
        REFUSE_NAME, TOUCH, SHOW_GAUGES,
        UNREAD_INPUT_KNOWN, SIGN_OF_LIFE_KNOWN, CHANNEL_IO_KNOWN, STATISTICS_KNOWN,
        RECORDING_KNOWN, TICK, RECONFIGURE, DRAIN, CLOSE,
    )
}  # fmt: skip
