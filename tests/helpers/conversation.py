"""Talk to a hub as sessions do: frames in, frames out, no I/O and no clock but ours."""

from __future__ import annotations

import itertools
import json
import logging
import re
from collections.abc import Callable, Mapping
from typing import Any

from iii_trio.config import EngineConfig
from iii_trio.core.access import Access
from iii_trio.core.admission import Credentials
from iii_trio.core.call import Call
from iii_trio.core.effects import (
    AskChannelIo,
    AskSignOfLife,
    AskStatistics,
    AskUnreadInput,
    Deliver,
    Effects,
    HangUp,
    Log,
    Send,
)
from iii_trio.core.hub import Hub
from iii_trio.core.session import WorkerSession

ONCE = re.compile("^worker .* was refused: |did not name its namespace in time|, which no worker provides: ")
"""Warnings that each session, or each trigger type, can cause once."""


def counted_ids() -> Callable[[], str]:
    """UUIDs that count: 00000000-0000-4000-8000-000000000001, …"""
    counter = itertools.count(1)
    return lambda: f"00000000-0000-4000-8000-{next(counter):012d}"


def call_id(number: int) -> str:
    """A UUID for a call that a test makes."""
    return f"7d6c2c1e-7c59-4a53-9d29-{number:012d}"


class Peer:
    """A worker, as one who speaks the wire by hand: `say` a frame, `hears` what came since."""

    def __init__(self, talk: Conversation, session: WorkerSession) -> None:
        self._talk = talk
        self.session = session
        self.id = session.id
        self.inbox: list[dict[str, Any]] = []

    @property
    def made(self) -> Mapping[str, Call]:
        """Its own calls that wait for an answer."""
        return self._talk.hub.calls.made_by(self.session)

    @property
    def answering(self) -> Mapping[str, Call]:
        """The calls that it was given and has not answered."""
        return self._talk.hub.calls.given_to(self.session)

    def say(self, frame: dict[str, Any] | str) -> None:
        text = frame if isinstance(frame, str) else json.dumps(frame, ensure_ascii=False)
        self._talk.act(self._talk.hub.received(self.session, text.encode(), self._talk.now))

    def hears(self) -> list[dict[str, Any]]:
        frames, self.inbox[:] = list(self.inbox), []
        return frames

    def register(self, name: str | None = None, **more: Any) -> None:
        """The register call that an SDK makes."""
        data = {"runtime": "python", "version": "0.25.0", "name": name, "os": "Linux", "pid": 7, **more}
        call = {"type": "invokefunction", "function_id": "engine::workers::register", "action": {"type": "void"}}
        self.say({**call, "data": data})

    def offer(self, *function_ids: str) -> None:
        for function_id in function_ids:
            self.say({"type": "registerfunction", "id": function_id})

    def call(self, function_id: str, data: Any = None, number: int = 1, **more: Any) -> None:
        frame = {"type": "invokefunction", "invocation_id": call_id(number), "function_id": function_id, "data": data}
        self.say({**frame, **more})

    def ask(self, function_id: str, data: Any = None, number: int = 1, **more: Any) -> Any:
        """Call a function of the engine, and take its answer out of the inbox: a result, or a WireError as a dict."""
        self.call(function_id, {} if data is None else data, number, **more)
        answers = [frame for frame in self.inbox if frame.get("invocation_id") == call_id(number)]
        assert len(answers) == 1, (function_id, self.inbox)
        self.inbox.remove(answers[0])
        return answers[0].get("error") or answers[0].get("result")

    def answer(self, invocation_id: str, **how: Any) -> None:
        self.say({"type": "invocationresult", "invocation_id": invocation_id, **how})

    def leave(self, reason: str = "it closed with 1000") -> None:
        self._talk.act(self._talk.hub.disconnected(self.session, reason, self._talk.now))


class Conversation:
    """A hub and whoever talks to it."""

    def __init__(self, config: EngineConfig | None = None) -> None:
        self.hub = Hub(config or EngineConfig(), counted_ids(), version="1.2.3", started_at_ms=1)
        self.now = 0.0
        self.peers: dict[str, Peer] = {}
        self.effects: Effects = []
        self.hung_up: dict[str, HangUp] = {}
        self.unread_input: set[str] = set()
        """The sessions with unread input."""
        self.silent: set[str] = set()
        """The sessions that answer no ping. What becomes of them is for the test to say."""
        self.channel_io: dict[str, Any] = {}
        """The I/O statistics of every channel."""
        self.full: set[str] = set()
        """The sessions whose outbox is full."""

    def join(
        self, name: str | None = None, *, namespace: str | None = None, in_process: bool = False, **more: Any
    ) -> Peer:
        """A worker that has registered and heard everything so far. `more` is what else it says of itself."""
        peer = self.connect(in_process=in_process)
        peer.register(name, **({} if namespace is None else {"namespace": namespace}), **more)
        peer.hears()
        return peer

    def connect(
        self,
        *,
        in_process: bool = False,
        internal: bool = False,
        max_channels: int | None = None,
        access: Access | None = None,
        credentials: Credentials | None = None,
    ) -> Peer:
        """A worker that has said nothing yet; its `workerregistered` is in its inbox, unless it waits to be admitted."""
        session, effects = self.hub.connected(
            self.now,
            int(self.now * 1000),
            peer=None if in_process else "127.0.0.1",
            in_process=in_process,
            internal=internal,
            max_channels=max_channels,
            access=access,
            credentials=credentials,
        )
        peer = self.peers[session.id] = Peer(self, session)
        self.act(effects)
        return peer

    def wait(self, seconds: float) -> None:
        """Let time pass, and the hub do what falls due, each at its time."""
        until = self.now + seconds
        while (due := self.hub.next_due()) is not None and due <= until:
            self.now = max(self.now, due)
            self.act(self.hub.tick(self.now))
        self.now = until

    def act(self, effects: Effects) -> None:
        self.effects += effects
        for effect in effects:
            if isinstance(effect, Deliver) and effect.session in self.full:
                self.act(self.hub.undelivered(effect.session, effect.invocation_id, self.now))
            elif isinstance(effect, Send | Deliver) and effect.session not in self.hung_up:
                self.peers[effect.session].inbox.append(json.loads(effect.message))
            elif isinstance(effect, AskUnreadInput):
                has_unread_input = effect.session in self.unread_input
                self.act(self.hub.unread_input_known(effect.session, has_unread_input, self.now))
            elif isinstance(effect, AskSignOfLife):
                if effect.session not in self.silent:
                    self.act(self.hub.sign_of_life_known(effect.session, True, self.now))
            elif isinstance(effect, AskChannelIo):
                io = {channel.id: self.channel_io for channel in self.hub.channels}
                self.act(self.hub.channel_io_known(effect.question, io))
            elif isinstance(effect, AskStatistics):
                self.act(self.hub.statistics_known(effect.question, {}))
            elif isinstance(effect, HangUp):
                self.hung_up.setdefault(effect.session, effect)
            elif isinstance(effect, Log):
                assert effect.fields.keys() & {"session", "function", "channel"}, (
                    f"which session is this about? {effect}"
                )
                # A peer could fill the log with such lines at the cost of the engine's own.
                once = effect.level < logging.WARNING or ONCE.search(effect.message)
                assert effect.peer_controlled or once, effect
