"""Keep a worker connected: dial, register, listen, and dial again when the link is lost."""

from __future__ import annotations

import functools
import logging
import math
from collections.abc import Callable
from typing import Any, Final

import trio
from msgspec import Raw

from ..environment import Environment
from ..errors import CallError, ConnectionFailed, Rejected
from ..report import get_logger
from ..state_machine import StateMachine
from ..transport.link import Address, Link
from ..wire import (
    FEATURE,
    Action,
    CancelInvocation,
    ChannelEnded,
    ErrorCode,
    InvocationResult,
    InvokeFunction,
    Ping,
    Pong,
    Reattach,
    RegisterTrigger,
    RegistrationRejected,
    Rejection,
    TriggerRegistrationResult,
    Undecodable,
    UnregisterTrigger,
    WorkerRegistered,
    bad_input,
    decode,
    encode,
    to_json,
)
from .calls import PendingCall, WorkerSession
from .failures import contain
from .registrations import Registrations
from .replies import reply_error
from .worker_state import MEMBERSHIP, WorkerEvent, WorkerState

LOGGER = get_logger("iii_trio.worker")
FIRST_WAIT_SECONDS: Final = 1.0
LONGEST_WAIT_SECONDS: Final = 30.0
_JITTER: Final = 0.3
_HELLO_SECONDS: Final = 10.0


class Membership:
    """A worker's connection to its engine, healed as long as the worker lives."""

    def __init__(
        self,
        address: Address,
        connections: trio.Nursery,
        introduction: dict[str, Any],
        registrations: Registrations,
        on_call: Callable[[WorkerSession, InvokeFunction], None],
        on_channel_ended: Callable[[WorkerSession, ChannelEnded], None],
        environment: Environment,
    ) -> None:
        self._address = address
        self._connections = connections
        self._introduction = introduction
        self._registrations = registrations
        self._on_call = on_call
        self._on_channel_ended = on_channel_ended
        self._environment = environment
        self._last: WorkerSession | None = None
        self._staying = trio.CancelScope()
        self._given_up = ""  # why this worker itself ends the link that it has
        self.state = StateMachine(MEMBERSHIP, WorkerState.CONNECTING)
        self.changed = trio.lowlevel.ParkingLot()
        self.session: WorkerSession | None = None
        """The session that is ready, while one is."""
        self.rejection: Rejected | None = None

    def _advance(self, event: WorkerEvent) -> None:
        """Move to the next state, and wake the tasks that wait for a change."""
        # A worker that left may still hear from a link that is closing.
        if self.state.can(event):
            self.state.advance(event)
            self.changed.unpark_all()

    async def stay(self, *, task_status: trio.TaskStatus[None]) -> None:
        """Stay connected until `leave` is called. `started` comes at the first success.

        Raises Rejected, and at the first try ConnectionFailed. Once connected, a cancellation from outside does not reach
        this task, because the link must outlive the handlers and carry their last answers.
        """
        with self._staying:
            await self._stay(task_status)

    def leave(self) -> None:
        """Close the link with a goodbye, and dial no more."""
        self._staying.cancel(reason="the worker left")
        self._advance(WorkerEvent.LEFT)

    async def _stay(self, task_status: trio.TaskStatus[None]) -> None:
        ready = False
        wait = FIRST_WAIT_SECONDS
        while True:
            try:
                link = await self._connections.start(self._address.connect)
            except ConnectionFailed as error:
                # A first failure is most likely a wrong address, which the caller has to hear of.
                if not ready:
                    raise
                LOGGER.warning("%s; trying again", error)
                self._advance(WorkerEvent.NOT_REACHED)
            else:
                self._advance(WorkerEvent.LINKED)
                self._given_up = ""
                try:
                    if await self._talk(link, None if ready else task_status):
                        ready = True
                        wait = FIRST_WAIT_SECONDS
                finally:
                    self._lose(link)
                # A refused worker would be refused again, so dialling on is useless.
                if self.rejection is not None:
                    self._advance(WorkerEvent.REJECTED)
                    raise self.rejection
                # An engine that hangs up before its greeting is most likely no engine.
                if not ready:
                    raise ConnectionFailed(f"{self._address} ended the link at once: {self._why(link)}")
                LOGGER.warning("the link to %s was lost: %s", self._address, self._why(link))
                self._advance(WorkerEvent.LINK_LOST)
            # The jitter keeps many workers from dialling a restarted engine at the same moment.
            await trio.sleep(wait * (1 + _JITTER * (2 * self._environment.rng.random() - 1)))
            wait = min(wait * 2, LONGEST_WAIT_SECONDS)
            self._advance(WorkerEvent.WAITED)

    async def _talk(self, link: Link, task_status: trio.TaskStatus[None] | None) -> bool:
        """Register and listen until the link is over. Return whether the engine accepted this worker."""
        hello = None
        with trio.move_on_after(_HELLO_SECONDS) as scope:
            while hello is None and (text := await link.receive()) is not None:
                message = decode(text)
                hello = message if isinstance(message, WorkerRegistered) else None
        # A peer that accepts links but stays silent must not hold the worker for ever.
        if hello is None:
            if scope.cancelled_caught:
                self._given_up = f"no greeting came within {_HELLO_SECONDS:g} s"
            link.close("no greeting came")
            return False
        session = WorkerSession(
            link=link,
            worker_id=hello.worker_id,
            reattach_token=hello.reattach_token,
            channel_secret=hello.channel_secret,
            supports_extensions=FEATURE in hello.features,
        )
        # A worker that comes back takes over the channels of its last session (clause C4.6).
        if self._last is not None:
            link.send(encode(Reattach(self._last.worker_id, self._last.reattach_token)))
        self._last = session
        registering = self._introduce(session)
        while registering is not None and not registering.settled and (text := await link.receive()) is not None:
            self._on_message(session, text)
        joined = registering is None or (registering.settled and self._accepted(registering))
        if joined:
            self._joined(session, task_status)
        else:
            link.close("not taken")
        await link.listen(functools.partial(self._on_message, session))
        return joined

    def _introduce(self, session: WorkerSession) -> PendingCall | None:
        """Register the worker and its functions. An engine with extensions gets a call, and its answer is awaited."""
        call = None
        if session.supports_extensions:
            call = PendingCall("engine::workers::register", self._environment.new_id(), lambda: None)
        text = encode(
            InvokeFunction(
                function_id="engine::workers::register",
                invocation_id=call.invocation_id if call is not None else None,
                data=Raw(to_json(self._introduction)),
                action=None if call is not None else Action("void"),
            )
        )
        if call is not None:
            session.send(call, text)
        else:
            session.link.send(text)
        self._registrations.introduce(session.link)
        return call

    def _accepted(self, call: PendingCall) -> bool:
        try:
            value = call.value()
        except CallError as error:
            if error.code in (ErrorCode.ENGINE_DRAINING, ErrorCode.INVOCATION_STOPPED):
                return False  # no refusal of this worker: try another link
            self.rejection = Rejected(error.code, f"the engine refused this worker: {error.message}")
            return False
        return bool(value is None or value.get("success", True))

    def _joined(self, session: WorkerSession, task_status: trio.TaskStatus[None] | None) -> None:
        self.session = session
        self._advance(WorkerEvent.GREETED)
        if task_status is not None:
            # Under a cancellation `started` would leave us where we began, in the start's own nursery: not to be shielded.
            self._staying.shield = trio.current_effective_deadline() != -math.inf
            task_status.started()

    def _on_message(self, session: WorkerSession, text: bytes) -> None:
        """Handle one message. A failure in it ends neither the link nor what else comes over it."""
        contain(self._handle, session, text, what="handling a message of the engine")

    def _handle(self, session: WorkerSession, text: bytes) -> None:
        received = decode(text, checked=session.link.is_checked)
        # Most messages are calls and results. To compare their types takes less than to match their classes.
        if type(received) is InvokeFunction:
            self._on_call(session, received)
            return
        if type(received) is InvocationResult:
            pending = session.pending.pop(received.invocation_id, None)
            # The call may have been given up while its answer was on the way.
            if pending is not None:
                pending.settle(received)
            return
        match received:
            case CancelInvocation() as message:
                running = session.running.get(message.invocation_id)
                # The cancellation may cross the answer.
                if running is not None:
                    running.cancel(message.reason)  # clause C7.2
            case ChannelEnded() as message:
                self._on_channel_ended(session, message)
            case RegistrationRejected() as rejection:
                self._rejected(session, rejection)
            case RegisterTrigger() as request:
                self._registrations.bind(session, request)
            case UnregisterTrigger() as request:
                self._registrations.unbind(request)
            case TriggerRegistrationResult() as result:
                self._registrations.told(result)
            case Ping():
                session.link.send(encode(Pong()))
            case Pong():
                if session.pings:
                    session.pings.popleft().set()
            case Undecodable() as unread:
                self._unread(session, unread)
            case _:
                pass  # a message of a newer engine

    def _unread(self, session: WorkerSession, message: Undecodable) -> None:
        """Settle or refuse the call that an unreadable message belongs to."""
        LOGGER.warning("the engine sent a message that cannot be read: %s", message.problem)
        if message.type == "invocationresult":
            pending = session.pending.pop(message.invocation_id or "", None)
            if pending is not None:
                pending.settle(unread=message.problem)
        elif message.type == "invokefunction" and message.invocation_id is not None:
            call = InvokeFunction(message.function_id, message.invocation_id)
            reply_error(session, call, bad_input(message.function_id, message.problem))

    def _rejected(self, session: WorkerSession, rejection: RegistrationRejected) -> None:
        where = f"namespace '{rejection.namespace}'"
        owner = f"worker {rejection.owner_worker_id}" if rejection.owner_worker_id else "the engine itself"
        if rejection.code == Rejection.FUNCTION and rejection.function_id is not None:
            declared = self._registrations.functions.get(rejection.function_id)
            why = rejection.reason or f"{owner} has it"
            problem = f"{rejection.function_id} was refused in {where}: {why}"
            expected = declared is not None and declared.stands_by
            LOGGER.log(logging.DEBUG if expected else logging.WARNING, "%s", problem)
            # The function may have been unregistered meanwhile.
            if declared is not None:
                declared.refused = problem
            return
        problem = f"this worker was refused: {owner} has the name '{rejection.worker_name}' in {where}"
        mend = "open this one with another `name` or `namespace`"
        if rejection.owner_worker_id:
            mend = f"stop that worker, or {mend}"
        self.rejection = Rejected(rejection.code, f"{problem}; {mend}")
        session.link.close("refused")

    def _lose(self, link: Link) -> None:
        link.close("the worker left")
        self._registrations.lost(link)
        session, self.session = self.session, None
        for one in {id(s): s for s in (session, self._last) if s is not None and s.link is link}.values():
            one.lose(self._why(link))

    def _why(self, link: Link) -> str:
        """Return why a link is over. What made this worker give it up comes first, because that link may still be ending."""
        return self._given_up or (link.ended.reason if link.ended is not None else "it is over")
