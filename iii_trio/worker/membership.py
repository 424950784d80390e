"""Stay a member: dial, say what is offered, listen; when the link is lost, dial again."""

from __future__ import annotations

import math
import random
from typing import TYPE_CHECKING, Final

import trio
from msgspec import Raw

from ..errors import CallError, ConnectionFailed, Rejected
from ..report import get_logger
from ..state_machine import StateMachine
from ..transport.link import Link
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
    decode,
    encode,
    to_json,
)
from .answer import answer_error
from .calls import PendingCall, Session, cancel
from .failures import contain
from .worker_state import MEMBERSHIP, WorkerEvent, WorkerState

if TYPE_CHECKING:
    from .worker import Worker

LOGGER = get_logger("iii_trio.worker")
FIRST_WAIT_SECONDS: Final = 1.0
LONGEST_WAIT_SECONDS: Final = 30.0
_JITTER: Final = 0.3
_HELLO_SECONDS: Final = 10.0


class Membership:
    """A worker's connection to its engine, healed as long as the worker lives."""

    def __init__(self, worker: Worker, rng: random.Random) -> None:
        self._worker = worker
        self._rng = rng
        self._last: Session | None = None
        self._staying = trio.CancelScope()
        self.state = StateMachine(MEMBERSHIP, WorkerState.CONNECTING)
        self.changed = trio.lowlevel.ParkingLot()
        self.session: Session | None = None
        """The session that is ready, while one is."""
        self.refused: Rejected | None = None

    def take(self, cue: WorkerEvent) -> None:
        """Move on, and wake whoever waits for a change."""
        if self.state.can(cue):
            self.state.advance(cue)
            self.changed.unpark_all()

    async def stay(self, *, task_status: trio.TaskStatus[None]) -> None:
        """Be a member until told to `leave`; `started` at the first success.

        Raises Rejected; ConnectionFailed at the first try. Once it is a member, a cancellation from without does not
        reach it: the link must outlive the handlers, whose last words go over it.
        """
        with self._staying:
            await self._stay(task_status)

    def leave(self) -> None:
        """Close the link with a goodbye, and dial no more."""
        self._staying.cancel(reason="the worker left")
        self.take(WorkerEvent.LEFT)

    async def _stay(self, task_status: trio.TaskStatus[None]) -> None:
        ready = False
        wait = FIRST_WAIT_SECONDS
        while True:
            try:
                link = await self._worker.connections.start(self._worker.address.connect)
            except ConnectionFailed as error:
                if not ready:
                    raise
                LOGGER.warning("%s; trying again", error)
                self.take(WorkerEvent.NOT_REACHED)
            else:
                self.take(WorkerEvent.LINKED)
                try:
                    if await self._converse(link, None if ready else task_status):
                        ready = True
                        wait = FIRST_WAIT_SECONDS
                finally:
                    self._lose(link)
                if self.refused is not None:
                    self.take(WorkerEvent.REJECTED)
                    raise self.refused
                if not ready:
                    raise ConnectionFailed(f"{self._worker.address} ended the link at once: {_why(link)}")
                LOGGER.warning("the link to %s was lost: %s", self._worker.address, _why(link))
                self.take(WorkerEvent.LINK_LOST)
            await trio.sleep(wait * (1 + _JITTER * (2 * self._rng.random() - 1)))
            wait = min(wait * 2, LONGEST_WAIT_SECONDS)
            self.take(WorkerEvent.WAITED)

    async def _converse(self, link: Link, task_status: trio.TaskStatus[None] | None) -> bool:
        """Introduce ourselves and listen until the link is over; whether we became a member."""
        hello = None
        with trio.move_on_after(_HELLO_SECONDS):
            while hello is None and (text := await link.receive()) is not None:
                message = decode(text)
                hello = message if isinstance(message, WorkerRegistered) else None
        if hello is None:
            link.close("no greeting came")
            return False
        session = Session(
            link=link,
            worker_id=hello.worker_id,
            reattach_token=hello.reattach_token,
            channel_secret=hello.channel_secret,
            knows_us=FEATURE in hello.features,
        )
        if self._last is not None:
            link.send(encode(Reattach(self._last.worker_id, self._last.reattach_token)))
        self._last = session
        registering = self._introduce(session)
        while registering is not None and not registering.settled and (text := await link.receive()) is not None:
            self._heard(session, text)
        joined = registering is None or (registering.settled and self._accepted(registering))
        if joined:
            self._joined(session, task_status)
        else:
            link.close("not taken")
        await link.listen(lambda text: self._heard(session, text))
        return joined

    def _introduce(self, session: Session) -> PendingCall | None:
        """Say who we are and what we offer. To an engine that knows us, as a call whose answer is awaited."""
        worker = self._worker
        call = None
        if session.knows_us:
            call = PendingCall("engine::workers::register", worker.new_id(), lambda: None)
        text = encode(
            InvokeFunction(
                function_id="engine::workers::register",
                invocation_id=call.invocation_id if call is not None else None,
                data=Raw(to_json(worker.introduction)),
                action=None if call is not None else Action("void"),
            )
        )
        if call is not None:
            session.send(call, text)
        else:
            session.link.send(text)
        worker.offers.introduce(session.link)
        return call

    def _accepted(self, call: PendingCall) -> bool:
        try:
            value = call.value()
        except CallError as error:
            if error.code in (ErrorCode.ENGINE_DRAINING, ErrorCode.INVOCATION_STOPPED):
                return False  # not a refusal of this worker: the link is given up, and another tried
            self.refused = Rejected(error.code, f"the engine refused this worker: {error.message}")
            return False
        return bool(value is None or value.get("success", True))

    def _joined(self, session: Session, task_status: trio.TaskStatus[None] | None) -> None:
        self.session = session
        self.take(WorkerEvent.GREETED)
        if task_status is not None:
            # Under a cancellation `started` would leave us where we began, in the start's own nursery: not to be shielded.
            self._staying.shield = trio.current_effective_deadline() != -math.inf
            task_status.started()

    def _heard(self, session: Session, text: bytes) -> None:
        """Handle one message. A failure in it ends neither the link nor what else comes over it."""
        contain(self._handle, session, text, what="handling a message of the engine")

    def _handle(self, session: Session, text: bytes) -> None:
        worker = self._worker
        match decode(text):
            case InvokeFunction() as call:
                worker.beginnings.add(session, call)
            case InvocationResult() as result:
                pending = session.pending.pop(result.invocation_id, None)
                if pending is not None:
                    pending.settle(result)
            case CancelInvocation() as message:
                scope = session.running.get(message.invocation_id)
                if scope is not None:
                    cancel(scope, message.reason)
            case ChannelEnded() as message:
                worker.channel_ended(session, message)
            case RegistrationRejected() as rejection:
                self._rejected(session, rejection)
            case RegisterTrigger() as wanted:
                worker.offers.bind(session, wanted)
            case UnregisterTrigger() as unwanted:
                worker.offers.unbind(unwanted)
            case TriggerRegistrationResult() as told:
                worker.offers.told(told)
            case Ping():
                session.link.send(encode(Pong()))
            case Pong():
                if session.pings:
                    session.pings.popleft().set()
            case Undecodable() as unread:
                self._unread(session, unread)
            case _:
                pass  # what a newer engine may say

    def _unread(self, session: Session, message: Undecodable) -> None:
        """A message that cannot be read: whoever waits for it is told."""
        LOGGER.warning("the engine sent a message that cannot be read: %s", message.problem)
        if message.type == "invocationresult":
            pending = session.pending.pop(message.invocation_id or "", None)
            if pending is not None:
                pending.settle(unread=message.problem)
        elif message.type == "invokefunction" and message.invocation_id is not None:
            problem = f"Failed to deserialize input for {message.function_id}: {message.problem}"
            call = InvokeFunction(message.function_id, message.invocation_id)
            answer_error(session, call, CallError(ErrorCode.DESERIALIZATION_ERROR, problem))

    def _rejected(self, session: Session, rejection: RegistrationRejected) -> None:
        where = f"namespace '{rejection.namespace}'"
        owner = f"worker {rejection.owner_worker_id}" if rejection.owner_worker_id else "the engine itself"
        if rejection.code == Rejection.FUNCTION and rejection.function_id is not None:
            declared = self._worker.offers.functions.get(rejection.function_id)
            why = rejection.reason or f"{owner} has it"
            problem = f"{rejection.function_id} was refused in {where}: {why}"
            LOGGER.warning("%s", problem)
            if declared is not None:
                declared.refused = problem
            return
        problem = f"this worker was refused: {owner} has the name '{rejection.worker_name}' in {where}"
        self.refused = Rejected(rejection.code, problem)
        session.link.close("refused")

    def _lose(self, link: Link) -> None:
        link.close("the worker left")
        self._worker.offers.lost(link)
        session, self.session = self.session, None
        for one in {id(s): s for s in (session, self._last) if s is not None and s.link is link}.values():
            one.lose(_why(link))


def _why(link: Link) -> str:
    return link.ended.reason if link.ended is not None else "it is over"
