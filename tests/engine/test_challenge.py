"""A peer is asked for a sign of life at once: it answers, or is found dead within the stated time."""

from __future__ import annotations

import pytest
import trio
import trio.testing

from iii_trio import Engine, open_engine
from tests.helpers.bare import Bare, connected, within


async def session_of(engine: Engine, bare: Bare) -> str:
    """The id of the session that `bare` has."""
    return str((await bare.message())["worker_id"])


async def next_ping(bare: Bare) -> bytes:
    while (frame := await bare.frame()) is not None:
        if frame[0] == 9:
            return frame[1]
    raise AssertionError("the connection ended")


@within(60)
async def test_any_byte_within_the_time_is_a_sign_of_life(autojump_clock: trio.testing.MockClock) -> None:
    async with open_engine() as engine, connected(engine) as bare:
        answers: list[tuple[bool, float]] = []
        session, began = await session_of(engine, bare), trio.current_time()
        engine._shell.challenge(session, 5, lambda alive: answers.append((alive, trio.current_time() - began)))
        payload = await next_ping(bare)
        await trio.sleep(2)
        assert not answers
        await bare.say(10, payload)
        await trio.sleep(10)
        assert answers == [(True, pytest.approx(2))]


@within(60)
async def test_a_peer_that_stays_silent_is_dead_after_the_time(autojump_clock: trio.testing.MockClock) -> None:
    async with open_engine() as engine, connected(engine) as bare:
        answers: list[tuple[bool, float]] = []
        session, began = await session_of(engine, bare), trio.current_time()
        engine._shell.challenge(session, 5, lambda alive: answers.append((alive, trio.current_time() - began)))
        await trio.sleep(30)
        assert answers == [(False, pytest.approx(5))]
        assert engine.statistics().sessions == 1, "what follows is for the asker to decide"


@within(60)
async def test_many_questions_are_one_ping_and_each_is_answered_once(autojump_clock: trio.testing.MockClock) -> None:
    async with open_engine() as engine, connected(engine) as bare:
        answers: list[bool] = []
        session = await session_of(engine, bare)
        for _ in range(1000):
            engine._shell.challenge(session, 5, answers.append)
        await bare.say(10, await next_ping(bare))
        await trio.sleep(1)
        assert answers == [True] * 1000
        engine._shell.challenge(session, 5, answers.append)  # and it can be asked again
        await bare.say(10, await next_ping(bare))
        await trio.sleep(1)
        assert answers == [True] * 1001


@within(60)
async def test_an_end_of_the_session_is_an_answer(autojump_clock: trio.testing.MockClock) -> None:
    async with open_engine() as engine:
        answers: list[bool] = []
        async with connected(engine) as bare:
            session = await session_of(engine, bare)
            engine._shell.challenge(session, 5, answers.append)
            await trio.testing.wait_all_tasks_blocked()
            assert not answers
        await trio.testing.wait_all_tasks_blocked()
        assert answers == [False]
        engine._shell.challenge(session, 5, answers.append)
        assert answers == [False, False]


@within(60)
async def test_a_worker_in_this_process_is_alive(autojump_clock: trio.testing.MockClock) -> None:
    async with open_engine() as engine, engine.open_worker("w"):
        answers: list[bool] = []
        for session in engine._shell.outputs:
            engine._shell.challenge(session, 5, answers.append)
        assert answers == [True] * len(engine._shell.outputs) and answers
