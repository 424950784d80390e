"""What a ledger makes of the jobs of an earlier engine."""

from __future__ import annotations

from iii_trio import QueueConfig, QueueSettings
from iii_trio.triggers.queue.job_loader import JobLoader
from iii_trio.triggers.queue.ledger import Ledger
from iii_trio.triggers.queue.record import Options, Progress
from iii_trio.triggers.queue.store import Damaged
from tests.queue.ledgers import at, is_done, ledger_of, queue_of, record, started, stored

MANY = QueueSettings(concurrency=10**6)


def loaded(
    ledger: Ledger,
    *records: object,
    settings: dict[str, bytes] | None = None,
    now: float = 100.0,
    wall_ms: int = 50_000,
) -> list[Damaged]:
    timestamp, loader = at(now, wall_ms), JobLoader(ledger)
    damaged = loader.load(records, settings or {}, timestamp)  # type: ignore[arg-type]
    return damaged + loader.end(settings or {}, timestamp)


def test_jobs_of_an_earlier_engine_stand_at_their_positions() -> None:
    ledger = ledger_of(mail=MANY)
    assert (
        loaded(ledger, record(1, position=3), record(2), record(4, position=9), record(5), record(7, position=8)) == []
    )
    assert [job.record.key for job in queue_of(ledger).jobs.values()] == [2, 1, 5, 7, 4]
    assert started(ledger) == ["job 2", "job 1", "job 5", "job 7", "job 4"]
    assert stored(ledger, "new").record.key == 10, "behind all positions"


def test_redriven_jobs_are_loaded_before_the_first_one_behind_their_place() -> None:
    ledger = ledger_of(mail=MANY)
    assert loaded(ledger, record(1, position=6), record(2, position=9), record(8), record(10)) == []
    assert started(ledger) == ["job 1", "job 8", "job 2", "job 10"]


def test_new_keys_are_behind_all_keys_also_those_of_damaged_records() -> None:
    ledger = ledger_of(mail=MANY)
    assert loaded(ledger, record(2), Damaged(7, "why")) == [Damaged(7, "why")]
    assert stored(ledger, "new").record.key == 8


def test_records_without_sense_are_returned_and_the_others_are_loaded() -> None:
    ledger = ledger_of(mail=MANY)
    bad = [record(1, data=None), record(2, data=b"{"), record(3, lane="nothing"), record(4, lane='["other","x"]')]
    damaged = loaded(ledger, *bad, record(5), record(6, position=8, data=None))
    assert [one.key for one in damaged] == [1, 2, 3, 4, 6]
    assert [one.problem for one in damaged][:2] == ["its data is not JSON"] * 2
    assert started(ledger) == ["job 5"] and ledger.room.unfinished == 1


def test_a_pause_goes_on_for_the_rest_of_its_time_and_never_for_longer_than_the_whole() -> None:
    ledger = ledger_of(mail=MANY)
    due = [
        record(1, progress=Progress(attempts=1, due_ms=51_500, pause_ms=9_000)),
        record(2, progress=Progress(attempts=1, due_ms=50_000, pause_ms=9_000)),
        record(3, progress=Progress(attempts=1, due_ms=90_000, pause_ms=2_500)),
        record(4, progress=Progress(attempts=1)),
        record(5, progress=Progress(attempts=1, due_ms=53_000)),
        record(6, progress=Progress(attempts=1, due_ms=50_500)),
        record(7, progress=Progress(attempts=1, due_ms=40_000, pause_ms=9_000)),
    ]
    assert loaded(ledger, *due) == []
    assert started(ledger, 100.0) == ["job 2", "job 4", "job 7"]
    for then, name in ((100.5, "job 6"), (101.5, "job 1"), (102.5, "job 3"), (103.0, "job 5")):
        assert ledger.next_due() == then
        ledger.tick(at(then))
        assert started(ledger, then) == [name]


def test_dead_letters_of_an_earlier_engine_are_in_the_order_of_their_deaths() -> None:
    ledger = ledger_of(mail=MANY)
    assert loaded(
        ledger, record(1, progress=Progress(died_at_ms=9)), record(2, progress=Progress(died_at_ms=5)), record(3),
        record(4, progress=Progress(died_at_ms=7), position=6),
    ) == []  # fmt: skip
    lane = queue_of(ledger)
    assert [job.record.key for job in lane.dead_letters()] == [2, 4, 1]
    assert lane.unfinished == ledger.room.unfinished == 1 and ledger.find("job 1") is lane.dead[1]
    assert lane.dead[1].record.data is None and started(ledger) == ["job 3"]


def test_payloads_are_kept_in_memory_as_far_as_there_is_room() -> None:
    ledger = Ledger(QueueConfig({"mail": MANY}, memory_bytes=4), lambda: 1.0)
    assert loaded(ledger, *(record(key) for key in (1, 2, 3))) == []
    assert [job.record.data is None for job in queue_of(ledger).jobs.values()] == [False, False, True]
    assert ledger.room.kept_bytes == 4


def test_unique_keys_are_taken_for_the_rest_of_their_time() -> None:
    ledger = ledger_of(mail=MANY)
    one, other = record(1, created_at_ms=47_500), record(2, created_at_ms=60_000)
    one.options, other.options = Options(unique_key="k", unique_ms=5_000), Options(unique_key="l", unique_ms=5_000)
    assert loaded(ledger, one, other) == []
    lane = queue_of(ledger)
    assert started(ledger, 100.0) == ["job 1", "job 2"]
    for job in list(lane.jobs.values()):
        is_done(ledger, job)
    assert (
        ledger.unique.holder(lane.text, "k", 102.499) == "job 1" and ledger.unique.holder(lane.text, "k", 102.5) is None
    )
    assert (
        ledger.unique.holder(lane.text, "l", 104.9) == "job 2" and ledger.unique.holder(lane.text, "l", 105.0) is None
    )


def test_a_lane_that_nothing_configures_has_the_settings_that_the_store_has() -> None:
    ledger = ledger_of()
    text = '["queue","gone"]'
    settings = {text: b'{"settings":{"concurrency":1},"condition":"c"}'}
    assert (
        loaded(
            ledger, record(1, lane=text), record(2, lane=text), record(3, lane='["queue","bare"]'), settings=settings
        )
        == []
    )
    (lane,) = ledger.lanes.find("gone", None)
    assert (lane.settings.concurrency, lane.condition, lane.known) == (1, "c", False)
    assert started(ledger) == ["job 3", "job 1"]
    assert ledger.lanes.queue("gone") is None, "nothing can be enqueued to it"
    job = ledger.find("job 3")
    assert job is not None
    is_done(ledger, job)
    assert ledger.lanes.find("bare", None) == [], "it goes with its last job"


def test_settings_that_cannot_be_read_make_the_jobs_damaged() -> None:
    ledger = ledger_of()
    text = '["queue","gone"]'
    (damaged,) = loaded(ledger, record(1, lane=text), settings={text: b"[]"})
    assert (damaged.key, damaged.problem) == (1, "they are not settings of a lane")
