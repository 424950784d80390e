"""The ledger of ends that sessions hold of channels at other engines. It knows who is to be told how a channel ended."""

from __future__ import annotations

from collections.abc import Callable

from ..wire import FEATURE, ChannelEnded, Outcome, encode
from .effects import Effect, Send
from .session import WorkerSession


class EndsElsewhere:
    """The holders of ends at other engines, by the channel's id. An entry stays until the channel has ended."""

    def __init__(self, emit: Callable[[Effect], None]) -> None:
        self._emit = emit
        self._holders: dict[str, dict[str, WorkerSession]] = {}

    def __len__(self) -> int:
        return len(self._holders)

    def add(self, channel_id: str, session: WorkerSession) -> None:
        """Note that a session holds an end of this channel."""
        self._holders.setdefault(channel_id, {})[session.id] = session
        session.held_elsewhere.add(channel_id)

    def remove(self, channel_id: str, session: WorkerSession) -> None:
        """Note that a session holds no end of this channel, because the other engine has refused it."""
        holders = self._holders.get(channel_id, {})
        holders.pop(session.id, None)
        # Ids of channels come from elsewhere, so none may stay without a holder.
        if not holders:
            self._holders.pop(channel_id, None)
        session.held_elsewhere.discard(channel_id)

    def session_ended(self, session: WorkerSession) -> None:
        """Forget a session."""
        for channel_id in list(session.held_elsewhere):
            self.remove(channel_id, session)

    def ended(self, channel_id: str, outcome: Outcome, reason: str, code: str | None) -> None:
        """Tell the holders how a channel ended, and forget it."""
        message = encode(ChannelEnded(channel_id, outcome, reason, code))
        for session in self._holders.pop(channel_id, {}).values():
            session.held_elsewhere.discard(channel_id)
            # Other SDKs learn of it by the connection only.
            if FEATURE in session.features:
                self._emit(Send(session.id, message))

    def engine_lost(self, home: str, reason: str) -> None:
        """Tell the holders that all channels of an engine are lost to them."""
        for channel_id in [each for each in self._holders if each.endswith(f".{home}")]:
            self.ended(channel_id, Outcome.OWNER_LOST, reason, None)
