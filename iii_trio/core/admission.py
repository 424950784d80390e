"""Ask the auth function of a guarded listener whether a connection may come in (protocol, section 8.2)."""

from __future__ import annotations

import functools
import logging
from collections.abc import Mapping

import msgspec
from msgspec import Raw

from ..records import reprs_without
from ..structure import BadShape
from ..wire import Close, ErrorCode, ErrorMessage, WireError, encode, to_json
from .access import NO_RESULT, read_grants
from .effects import Log, Send
from .engine_calls import EngineAnswer
from .session import SessionEvent, WorkerSession
from .sessions import close_session, greet
from .state import State
from .waiting import ask_worker


class Credentials(msgspec.Struct, frozen=True):
    """What a connection shows at its upgrade. It is given to the auth function and to nothing else."""

    headers: Mapping[str, str]
    """Names in lower case."""
    query_params: Mapping[str, list[str]]
    ip_address: str

    __repr__, __rich_repr__ = reprs_without("headers", "query_params")


def ask_auth_function(state: State, session: WorkerSession, credentials: Credentials | None, now: float) -> None:
    """Ask whether a new session may come in. Its messages wait meanwhile."""
    assert session.access is not None and session.access.auth_function is not None
    shown = credentials or Credentials({}, {}, "")
    payload = {
        "headers": dict(shown.headers),
        "query_params": dict(shown.query_params),
        "ip_address": shown.ip_address,
    }
    then = functools.partial(_answered, state, session)
    ask_worker(state, session, session.access.auth_function, payload, now, then)


def _answered(state: State, session: WorkerSession, answer: EngineAnswer, now: float) -> None:
    assert session.access is not None
    if answer.error is not None:
        _refuse(state, session, answer.error.message, now, again=not answer.from_function)
        return
    try:
        grants = read_grants(answer.value())
    except (BadShape, ValueError) as problem:
        text = str(problem)
        _refuse(state, session, text if text == NO_RESULT else f"invalid auth result: {text}", now)
        return
    session.access = msgspec.structs.replace(session.access, grants=grants)
    session.state.advance(SessionEvent.ADMITTED)
    greet(state, session, now)


def _refuse(state: State, session: WorkerSession, text: str, now: float, *, again: bool = False) -> None:
    """Refuse a connection. `again` says that a later attempt may succeed, because no auth function answered."""
    error = WireError(ErrorCode.AUTH_ERROR, text)
    state.emit(Send(session.id, encode(ErrorMessage(Raw(to_json(error))))))
    fields = {"session": session.id, "peer": session.peer or ""}
    state.emit(Log(logging.WARNING, f"a connection was refused by its auth function: {text}", fields, True))
    # SDKs that see a normal close do not come back, or take it for their own.
    code = Close.TRY_AGAIN_LATER if again else Close.POLICY_VIOLATION
    close_session(state, session, code, f"the auth function refused: {text}", now)
