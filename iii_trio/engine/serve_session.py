"""One worker: its messages in, the engine's messages out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final
from urllib.parse import parse_qs

import trio

from ..core.admission import Credentials
from ..core.session import SessionState, WorkerSession
from ..errors import FrameError
from ..transport.control_frames import ping_frame
from ..transport.frames import CloseFrame, MessageScanner, text_head
from ..transport.http1 import Head
from ..transport.memory_budget import MemoryAccount, MemoryCharge
from ..transport.socket import Socket
from ..transport.tls import TlsStream
from ..transport.websocket import Lost, WebSocket, choose_read_size
from ..wire import Close
from .challenge import Challenge
from .policy import ListenerPolicy
from .shell import Shell

_MESSAGES_AT_ONCE: Final = 64  # a millisecond or two before others have their turn
_FIRST_BYTES: Final = 16_384  # to be read at once, as long as nothing is known of the size of messages
_PING: Final = ping_frame(is_client=False)
_LARGE: Final = 4096  # bytes; a copy costs less than a second piece to write
_CALL_BYTES: Final = 640  # that the records of a call under way take
_CHANNEL_BYTES: Final = 1536  # that the record of an open channel takes
_READABLE_BYTES: Final = 65_536  # of output: a peer that has more waiting does not read, and would not read a Close
_LEFT: Final = frozenset({Close.NORMAL, Close.GOING_AWAY, Close.NO_STATUS_RCVD})
"""How a worker closes that means to go; one that closes otherwise (a keepalive that failed) may be back."""


async def serve_session(
    shell: Shell, stream: trio.abc.Stream, head: Head, peer: str | None, policy: ListenerPolicy, token: str | None
) -> None:
    """Serve one worker, admitted by `policy` with `token`, over a WebSocket until either side is done.

    If cancelled: the connection is dropped; the session ends as by any other loss (clause C4.5).
    """
    timeouts = shell.config.timeouts
    credentials = None
    if policy.access is not None:
        query = parse_qs(head.query, keep_blank_values=True)
        credentials = Credentials(dict(head.headers), query, peer or "")
    line = _SessionSocket(shell, peer, policy, token, credentials)
    websocket = WebSocket(
        stream,
        line,
        buffer=shell.buffer,
        lost_connections=shell.lost_connections,
        goodbye_seconds=timeouts.goodbye_seconds,
        stalled_seconds=timeouts.stalled_session_seconds,
    )
    try:
        await websocket.serve(head)
    finally:
        line.release()


class _SessionSocket:
    """A session's socket: handler of its connection, and the line to it."""

    def __init__(
        self, shell: Shell, peer: str | None, policy: ListenerPolicy, token: str | None, credentials: Credentials | None
    ) -> None:
        self._credentials = credentials
        self.policy = policy
        self.token = token
        self._shell = shell
        self._peer = peer
        self._scanner = MessageScanner(policy.message_bytes(shell.config.limits), masked=True)
        self.unparsed = b""
        self._websocket: WebSocket | None = None
        self._session: WorkerSession | None = None
        self._may_come_back = False
        self._over: str | None = None
        self._account: MemoryAccount | None = None
        self._memory: MemoryCharge | None = None
        self._heard = True
        self._written = 0
        self._challenge: Challenge | None = None
        shell.arriving += 1
        policy.counts.sessions += 1

    # --- as the connection's handler

    def on_open(self, websocket: WebSocket) -> None:
        self._websocket = websocket
        websocket.input.read_size = _FIRST_BYTES
        self._shell.arriving -= 1
        max_channels = self.policy.limits.channels_per_session
        credentials, self._credentials = self._credentials, None
        self._session = self._shell.connected(
            self,
            peer=self._peer,
            in_process=False,
            max_channels=max_channels,
            access=self.policy.access,
            credentials=credentials,
        )
        if self._over is None:
            self._account = self._shell.memory.open_account(f"session {self._session.id}", self._evict)
            self._shell.memory_accounts[self._session.id] = self._account
            self._memory = self._account.charge()
            websocket.outbox.memory = self._account.charge()
            self._shell.heartbeat.watch(self)
        else:  # already the greeting found the peer gone
            self._shell.disconnected(self._session, self._over, may_come_back=self._may_come_back)

    def feed(self, data: memoryview) -> tuple[bytes, CloseFrame | FrameError | None]:
        self._heard = True
        scanner, session, websocket = self._scanner, self._session, self._websocket
        messages, controls = scanner.scan(data)
        self.unparsed = scanner.tail
        if messages and session is not None and websocket is not None and websocket.talking:
            websocket.input.read_size = choose_read_size(len(data), len(messages), _MESSAGES_AT_ONCE)
            # Most reads bring one message.
            payloads = [messages[0][1]] if len(messages) == 1 else [payload for _, payload in messages]
            self._shell.on_messages(session, payloads)
        memory = self._memory
        if memory is not None and memory.bytes != (held := self._held_bytes()):
            memory.set(held)
        over = scanner.error or scanner.closed
        # A Close is not a sign that it stays.
        if over is None and self._challenge is not None:
            self._resolve_challenge(alive=True)
        return controls, over

    def _held_bytes(self) -> int:
        """Count the bytes held for this session, without its outbox and its pipes."""
        session, held = self._session, self._scanner.held_bytes
        if session is None or session.state.current is SessionState.GONE:
            return held
        # A fourth more, which the allocator cannot give back later.
        held += (session.registration_bytes + session.held_bytes) * 5 // 4
        # Calls and channels are counted by the 64, so that most reads change nothing.
        calls, channels = len(self._shell.hub.calls.made[session]) >> 6, len(session.owned) >> 6
        if calls or channels:
            held += calls * 64 * _CALL_BYTES + channels * 64 * _CHANNEL_BYTES
        return held

    def _evict(self, reason: str) -> None:
        """Give up this peer, which holds more of the engine's memory than any other."""
        assert self._session is not None and self._account is not None and self._websocket is not None
        self._shell.evict(self._session, self._account, reason)
        self._keep_nothing()
        outbox = self._websocket.outbox
        if outbox.waiting_bytes > _READABLE_BYTES:
            self._websocket.lost(reason)
            outbox.abandon()

    def _keep_nothing(self) -> None:
        """Release the input that is not parsed yet, and keep none of the input that still comes."""
        self._scanner.discard()
        if self._memory is not None:
            self._memory.set(0)

    def release(self) -> None:
        """Take apart the circle of the connection and its handler, so that nothing waits for the cycle collector."""
        self._keep_nothing()
        self._websocket = None

    async def wait_ready(self) -> None:
        """Never wait, because each message of a session is answered or refused at once."""

    def on_close(self, how: CloseFrame | FrameError | Lost) -> None:
        self.policy.counts.sessions -= 1
        if self._websocket is None:
            self._shell.arriving -= 1
        match how:
            case CloseFrame():
                reason = f"it closed with {how.code}" + (f" ({how.reason})" if how.reason else "")
            case FrameError():
                reason = f"it broke the protocol: {how.reason}"
            case Lost():
                reason = how.cause
        self._over = reason
        left = isinstance(how, CloseFrame) and how.code in _LEFT
        self._may_come_back = not (left or isinstance(how, FrameError))
        self._shell.heartbeat.forget(self)
        self._keep_nothing()
        if self._session is not None:
            self._shell.memory_accounts.pop(self._session.id, None)
            self._shell.disconnected(self._session, self._over, may_come_back=self._may_come_back, left=left)
        self._resolve_challenge(alive=False)  # last, so that a worker that leaves is not taken for one that was lost

    # --- as the line to the session

    def put(self, message: bytes, *, bound: int) -> bool:
        websocket = self._websocket
        if websocket is None or not websocket.talking:
            return True  # it is ending: whoever waits is told by that
        outbox, size = websocket.outbox, len(message)
        if outbox.waiting_bytes and outbox.waiting_bytes + size > bound:
            return False
        if size < _LARGE:
            outbox.put(text_head(size) + message)
        else:
            outbox.put(text_head(size))
            outbox.put(message)
        return True

    def flush(self) -> None:
        if self._websocket is not None:
            self._websocket.outbox.flush()

    def hang_up(self, code: int, reason: str) -> None:
        if self._websocket is not None:
            self._websocket.close(code, reason)
            self._keep_nothing()

    def input_waits(self) -> bool:
        stream = self._websocket.stream if self._websocket is not None else None
        return isinstance(stream, Socket | TlsStream) and stream.input_waits()

    # --- as one whose heart beats

    def take_sign_of_life(self) -> bool:
        outbox = self._websocket.outbox if self._websocket is not None else None
        if outbox is not None and outbox.waiting_bytes:  # a ping would wait behind a message that takes its time
            self._heard = self._heard or outbox.written_bytes > self._written
            self._written = outbox.written_bytes
        heard, self._heard = self._heard, False
        return heard

    def give_up(self, reason: str) -> None:
        if self._session is not None:
            self._shell.close_session(self._session.id, Close.EVICTED, reason, may_come_back=True)

    def ping(self) -> None:
        if self._websocket is not None and self._websocket.talking and self._websocket.outbox.empty:
            self._websocket.outbox.put(_PING)
            self._websocket.outbox.flush()

    # --- as one that can be asked at once

    def challenge(self, seconds: float, answered: Callable[[bool], object]) -> None:
        websocket = self._websocket
        if websocket is None or not websocket.talking:
            answered(False)
            return
        # One ping at a time: the question comes from others, who could otherwise fill this outbox.
        if self._challenge is None:
            outbox = websocket.outbox
            outbox.put(_PING)
            outbox.flush()

            def progress() -> int | None:
                # Behind a large message the ping waits, and the peer is there if its kernel takes more and more of it.
                # A kernel with room takes bytes for a peer that is gone as well.
                return outbox.written_bytes if outbox.waiting_bytes else None

            self._challenge = Challenge(seconds, progress, self.input_waits)
            websocket.start_soon(self._challenge.run)
        self._challenge.add(answered)

    def _resolve_challenge(self, *, alive: bool) -> None:
        challenge, self._challenge = self._challenge, None
        if challenge is not None:
            challenge.resolve(alive)
