"""A job as a store keeps it: its row, and what jobs share."""

from __future__ import annotations

from msgspec.structs import fields

from iii_trio.triggers.queue.record import NEW, NORMAL_PRIORITY, PLAIN, Options, Progress, Record, Timestamp

FULL = Record(
    3, 7, "id", "lane", "f", "n", b"data", 1234, "group", "trace", "baggage", b"meta",
    Progress(1, 2, 3, 4, 5, "code", "message"), Options(2, "key", 6, 8),
)  # fmt: skip
ROW = (
    3, 7, "id", "lane", "f", "n", b"data", 1234, "group", "trace", "baggage", b"meta",
    1, 2, 3, 4, 5, "code", "message", 2, "key", 6, 8,
)  # fmt: skip


def test_a_record_is_one_row_of_all_its_values_and_comes_back_from_it() -> None:
    assert FULL.columns == ROW and Record.from_columns(ROW) == FULL
    names = [field.name for struct in (Record, Progress, Options) for field in fields(struct)]
    assert len(ROW) == len(names) - 2 == 23, "`progress` and `options` are spread out"


def test_what_is_new_and_plain_is_shared() -> None:
    plain = Record(1, 1, "id", "lane", "f", "n", None, 0)
    assert plain.progress is NEW and plain.options is PLAIN
    one, other = (Record.from_columns(plain.columns) for _ in range(2))
    assert one == plain and one.progress is NEW and one.options is PLAIN
    lane, function_id, namespace = "".join(["la", "ne2"]), "".join(["f", "2"]), "".join(["n", "2"])
    one, other = (
        Record.from_columns((1, 1, "id", str(lane), str(function_id), str(namespace), *plain.columns[6:]))
        for _ in range(2)
    )
    assert one.lane is other.lane and one.function_id is other.function_id and one.namespace is other.namespace


def test_what_is_hardly_new_or_plain_is_kept() -> None:
    for kept in (Progress(due_ms=5), Progress(attempts=1)):
        made = Record(1, 1, "id", "lane", "f", "n", None, 0, progress=kept, options=Options(priority=0))
        assert Record.from_columns(made.columns) == made


def test_a_position_that_is_the_key_is_one_number() -> None:
    key, position = int("123456789"), int("123456789")
    same = Record.from_columns((key, position, *ROW[2:]))
    assert same.position is same.key
    assert Record.from_columns((key, position + 1, *ROW[2:])).position == position + 1


def test_progress_changes_for_one_record_only() -> None:
    one, other = Record(1, 1, "a", "l", "f", "n", None, 0), Record(2, 2, "b", "l", "f", "n", None, 0)
    one.evolve(attempts=1)
    one.evolve(code="c")
    assert one.progress == Progress(attempts=1, code="c") and other.progress is NEW


def test_a_new_job_has_failed_never_and_has_the_usual_priority() -> None:
    assert (NEW.attempts, NEW.lost, NEW.due_ms, NEW.died_at_ms) == (0, 0, None, None)
    assert PLAIN.priority == NORMAL_PRIORITY == 1


def test_the_calendars_time_is_rounded_to_milliseconds() -> None:
    timestamp = Timestamp(10.0, 5_000)
    assert [timestamp.wall_at(then) for then in (10.0, 11.5, 9.0, 10.0006, 10.0004)] == [5000, 6500, 4000, 5001, 5000]
