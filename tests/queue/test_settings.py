"""The settings of the queue: their defaults, the edges of what is allowed, and the pauses that they give."""

from __future__ import annotations

from typing import Any

import attrs
import pytest

from iii_trio import QueueConfig, QueueSettings
from iii_trio.config.settings import MAX_NUMBER, MAX_SECONDS


def test_a_queue_that_says_nothing() -> None:
    assert attrs.asdict(QueueSettings()) == {
        "max_attempts": 3, "concurrency": 10, "fifo": False, "group_by": None, "backoff_seconds": 1.0,
        "backoff": "exponential", "max_backoff_seconds": 3600.0, "visibility_timeout_seconds": None, "delay_seconds": 0.0,
        "max_lost_deliveries": 3, "missing_function_seconds": None, "max_jobs": None, "overrun_factor": 10.0,
        "dead_letters": 10_000,
    }  # fmt: skip


def test_queues_that_say_nothing() -> None:
    config = QueueConfig()
    assert dict(config.queues) == {"default": QueueSettings()}
    assert (config.directory, config.synchronous, config.jobs) == (None, "full", 1_000_000)
    assert (config.disk_bytes, config.max_away_seconds, config.max_away_jobs) == (None, 2_678_400.0, None)
    assert config.memory_bytes == 67_108_864


COUNTED_FROM_1 = ["max_attempts", "concurrency", "max_lost_deliveries", "max_jobs", "overrun_factor"]
MORE_THAN_NOTHING = ["max_backoff_seconds", "visibility_timeout_seconds", "missing_function_seconds"]
EDGES: list[tuple[str, float, bool]] = [
    *((name, 1, True) for name in COUNTED_FROM_1),
    *((name, 0, False) for name in COUNTED_FROM_1), ("overrun_factor", 0.5, False),
    *((name, MAX_NUMBER, True) for name in [*COUNTED_FROM_1, "dead_letters"]),
    *((name, MAX_NUMBER + 1, False) for name in [*COUNTED_FROM_1, "dead_letters"]),
    ("dead_letters", 0, True), ("dead_letters", -1, False),
    *((name, 1e-9, True) for name in MORE_THAN_NOTHING),
    *((name, 0, False) for name in MORE_THAN_NOTHING),
    *((name, 0, True) for name in ("backoff_seconds", "delay_seconds")),
    *((name, -1e-9, False) for name in ("backoff_seconds", "delay_seconds")),
    *((name, MAX_SECONDS, True) for name in [*MORE_THAN_NOTHING, "backoff_seconds", "delay_seconds"]),
    *((name, MAX_SECONDS + 1, False) for name in [*MORE_THAN_NOTHING, "backoff_seconds", "delay_seconds"]),
]  # fmt: skip


@pytest.mark.parametrize(("name", "value", "is_allowed"), EDGES)
def test_the_edges_of_a_queues_numbers(name: str, value: float, is_allowed: bool) -> None:
    given: dict[str, Any] = {name: value}
    if is_allowed:
        assert getattr(QueueSettings(**given), name) == value
    else:
        with pytest.raises(ValueError, match=name):
            QueueSettings(**given)


@pytest.mark.parametrize(
    ("name", "value", "is_allowed"),
    [
        ("jobs", 1, True), ("jobs", 0, False), ("disk_bytes", 1, True), ("disk_bytes", 0, False),
        ("max_away_jobs", 1, True), ("max_away_jobs", 0, False), ("max_away_seconds", 1e-9, True),
        ("max_away_seconds", 0, False), ("memory_bytes", 0, True), ("memory_bytes", -1, False),
        ("jobs", MAX_NUMBER + 1, False), ("synchronous", "off", True), ("synchronous", "on", False),
    ],
)  # fmt: skip
def test_the_edges_of_the_whole_queues_numbers(name: str, value: Any, is_allowed: bool) -> None:
    given: dict[str, Any] = {name: value}
    if is_allowed:
        assert getattr(QueueConfig(**given), name) == value
    else:
        with pytest.raises(ValueError, match=name):
            QueueConfig(**given)


def test_groups_are_of_fifo_queues_and_names_are_not_empty() -> None:
    assert QueueSettings(fifo=True).group_by is None and QueueSettings(fifo=True, group_by="g").group_by == "g"
    with pytest.raises(ValueError, match="'group_by' says how a fifo queue is grouped"):
        QueueSettings(group_by="g")
    with pytest.raises(ValueError, match="a queue has an empty name"):
        QueueConfig({"mail": QueueSettings(), " ": QueueSettings()})
    with pytest.raises(ValueError, match="backoff"):
        QueueSettings(backoff="linear")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("given", "error", "sentence"),
    [
        (
            {"queues": {"m": QueueSettings(fifo=True)}}, ValueError,
            "queue 'm' is 'fifo': name the member of its jobs' data that groups them ('group_by')",
        ),
        ({"queues": {"m": {}}}, TypeError, "queue 'm' has {} where QueueSettings(…) are expected"),
        ({"queues": {1: QueueSettings()}}, TypeError, "a queue's name is a string, not 1"),
        ({"synchronous": "ful"}, ValueError, "'synchronous' must be one of 'full', 'normal', 'off', not 'ful'"),
        ({"directory": " "}, ValueError, "'directory' is empty: name a directory, or leave it out to keep jobs in memory"),
    ],
)  # fmt: skip
def test_what_a_program_gives_wrong_is_told_in_a_sentence(
    given: dict[str, Any], error: type[Exception], sentence: str
) -> None:
    with pytest.raises(error) as refused:
        QueueConfig(**given)
    assert str(refused.value) == sentence


def test_settings_do_not_change() -> None:
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        QueueSettings().concurrency = 1  # type: ignore[misc]
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        QueueConfig().jobs = 1  # type: ignore[misc]
    with pytest.raises(TypeError):
        QueueConfig().queues["mail"] = QueueSettings()  # type: ignore[index]


def test_a_pause_doubles_up_to_the_longest() -> None:
    settings = QueueSettings(backoff_seconds=3, max_backoff_seconds=40)
    assert [settings.pause_seconds(failures) for failures in (1, 2, 3, 4, 5, 99)] == [3, 6, 12, 24, 40, 40]
    assert settings.pause_seconds(2, jitter=1.5) == 9 and settings.pause_seconds(4, jitter=2) == 40


def test_a_fixed_pause_stays_as_it_is() -> None:
    settings = QueueSettings(backoff_seconds=3, backoff="fixed")
    assert [settings.pause_seconds(failures) for failures in (1, 2, 9)] == [3, 3, 3]
    assert settings.pause_seconds(2, jitter=1.5) == 4.5


def test_a_first_pause_may_be_longer_than_the_longest_that_pauses_grow_to() -> None:
    settings = QueueSettings(backoff_seconds=50, max_backoff_seconds=40)
    assert settings.longest_pause_seconds == 50 and settings.pause_seconds(1) == settings.pause_seconds(2) == 50
    assert QueueSettings(backoff_seconds=3, max_backoff_seconds=40).longest_pause_seconds == 40


def test_a_pause_doubles_sixty_times_at_most() -> None:
    settings = QueueSettings(backoff_seconds=1e-18, max_backoff_seconds=1e9)
    assert settings.pause_seconds(60) == 1e-18 * 2.0**59
    assert settings.pause_seconds(61) == settings.pause_seconds(62) == settings.pause_seconds(10**6) == 1e-18 * 2.0**60
