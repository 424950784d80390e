"""Errors are values: they can be pickled, copied, and be built in one way only."""

from __future__ import annotations

import copy
import pickle

import pytest

from iii_trio import errors
from iii_trio.structure import BadShape
from iii_trio.worker.worker_state import WorkerEvent, WorkerState

EXAMPLES = [
    errors.MisuseError("m"),
    errors.IllegalTransition(WorkerState.CLOSED, WorkerEvent.LEFT),
    errors.ConfigError("c"),
    errors.FrameError(1002, "bad"),
    errors.MessageError("m"),
    errors.ConnectionFailed("no engine"),
    errors.Rejected("WORKER_NAMESPACE_CONFLICT", "refused"),
    errors.AttachRefused(404, "unknown channel"),
    errors.ListenFailed("the port is in use", in_use=True),
    errors.StorageError("full"),
    errors.ModuleFailed("m"),
    errors.CallError(
        "c", "m", stacktrace="s", function_id="f", invocation_id="00000000-0000-4000-8000-000000000001", origin="engine"
    ),
    errors.ChannelBroken("aborted", "the reason", code="c"),
    BadShape("a.b", "missing"),
]


def all_kinds(kind: type) -> set[type]:
    return {kind}.union(*(all_kinds(one) for one in kind.__subclasses__()))


def test_the_examples_are_of_all_kinds() -> None:
    made = {type(one) for one in EXAMPLES}
    ours = {kind for kind in all_kinds(errors.IIIError) if kind.__module__ in ("iii_trio.errors", "iii_trio.structure")}
    assert ours - made == {errors.IIIError, errors.PeerError}


@pytest.mark.parametrize("error", EXAMPLES, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize("again", [copy.copy, lambda error: pickle.loads(pickle.dumps(error))])
def test_an_error_survives_pickle_and_copy(error: errors.IIIError, again: object) -> None:
    error.add_note("a note")
    other = again(error)  # type: ignore[operator]
    assert type(other) is type(error)
    assert (str(other), other.args, vars(other)) == (str(error), error.args, vars(error))


@pytest.mark.parametrize("arguments", [("bad_input", {"field": "a"}), (404, "x"), ("c", None)])
def test_a_call_error_is_made_of_two_texts(arguments: tuple[str, str]) -> None:
    with pytest.raises(TypeError, match="CallError takes two strings"):
        errors.CallError(*arguments)
