"""Let a session wait for the answer of a worker to the engine: its messages are held back meanwhile, within bounds."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Final

from msgspec import Raw

from ..wire import (
    DEFAULT_NAMESPACE,
    Close,
    ErrorCode,
    InvocationResult,
    Message,
    TriggerRegistrationResult,
    Undecodable,
    WireError,
    to_json,
)
from . import calls
from .call import CallState
from .engine_calls import EngineAnswer, EngineCall
from .quota import detach, why_not_held
from .replies import behind_guard, not_found
from .session import SessionState, WorkerSession
from .sessions import close_session
from .state import State

_ANSWERS: Final = frozenset({InvocationResult, TriggerRegistrationResult})


def ask_worker(
    state: State,
    session: WorkerSession,
    function_id: str,
    payload: object,
    now: float,
    then: Callable[[EngineAnswer, float], None],
) -> None:
    """Call a function in `default` for a session. Hold back its messages, and go on with `then` when the answer comes.

    Every failure is an answer with an error, a missing function and a missed deadline among them.
    """
    session.held = deque() if session.held is None else session.held
    waiting = EngineCall(session, then, now + state.config.timeouts.access_seconds)
    ledger = state.engine_calls
    ledger.add(waiting)

    def fail(error: WireError) -> None:
        ledger.settle(waiting, EngineAnswer(error=error, from_function=False))

    function = state.registry.find(DEFAULT_NAMESPACE, function_id)
    if function is None:
        text = not_found(state.registry.namespaces_of(function_id), DEFAULT_NAMESPACE, function_id)
        fail(WireError(ErrorCode.FUNCTION_NOT_FOUND, text))
        return
    # A guarded session could otherwise take the place of the function that guards it.
    if function.owner is not None and function.owner.access is not None:
        fail(WireError(ErrorCode.FUNCTION_NOT_INVOKABLE, behind_guard(function_id)))
        return

    def answered(result: Raw, error: WireError | None) -> None:
        by_engine = waiting.call is not None and waiting.call.state.current is not CallState.ANSWERED
        ledger.settle(waiting, EngineAnswer(result=result.copy(), error=error, from_function=not by_engine))

    called = calls.call_for_engine(state, function, to_json(payload), answered)
    if isinstance(called, WireError):
        fail(called)
    else:
        waiting.call = called


def hold(state: State, session: WorkerSession, message: Message | Undecodable, now: float) -> bool:
    """Hold back a message of a session that waits. Return False if the message does not have to wait.

    More messages than may wait end the session.
    """
    # Answers go on, because the function that the session waits for may itself wait for them.
    if type(message) in _ANSWERS and session.state.current is not SessionState.PENDING_AUTH:
        return False
    assert session.held is not None
    size = len(message.problem) if isinstance(message, Undecodable) else detach(message)
    full = why_not_held(state.config.limits, session, size)
    if full is not None:
        close_session(state, session, Close.POLICY_VIOLATION, full, now)
        return True
    session.held.append((message, size))
    session.held_bytes += size
    return True


def expire(state: State, now: float) -> None:
    """Give up the calls that were not answered in time."""
    while (waiting := state.engine_calls.take_late(now)) is not None:
        seconds = state.config.timeouts.access_seconds
        text = f"no answer within {seconds:g} s (timeouts.access_seconds)"
        state.engine_calls.settle(
            waiting, EngineAnswer(error=WireError(ErrorCode.INVOCATION_STOPPED, text), from_function=False)
        )
        if waiting.call is not None:
            calls.give_up(state, waiting.call, text)
