"""The results that are kept for a while: at most so large, so many bytes together, and so long."""

from __future__ import annotations

from iii_trio.triggers.queue.results import Results


def test_a_result_is_kept_until_its_time() -> None:
    results = Results()
    results.keep("a", b"1", 10.0)
    assert results.get("a", 9.9) == b"1"
    assert results.get("a", 10.0) is None and results.get("a", 0.0) is None, "it was dropped"
    assert results.get("b", 0.0) is None


def test_a_result_of_more_than_64_kib_is_not_kept_and_replaces_the_earlier_one() -> None:
    results = Results()
    results.keep("a", b"x" * 65_536, 10.0)
    assert results.get("a", 0.0) == b"x" * 65_536
    results.keep("a", b"x" * 65_537, 10.0)
    assert results.get("a", 0.0) is None


def test_the_oldest_give_way_beyond_16_mib_of_which_each_takes_256_bytes_besides() -> None:
    results = Results()
    for number in range(255):
        results.keep(str(number), b"x" * 65_536, 10.0)
    results.keep("small", b"", 10.0)  # 255 * (65536 + 256) + 256 is 16 MiB
    assert results.get("0", 0.0) is not None
    results.keep("one too many", b"", 10.0)
    assert results.get("0", 0.0) is None
    assert all(results.get(str(number), 0.0) is not None for number in range(1, 255))
    assert results.get("small", 0.0) == results.get("one too many", 0.0) == b""


def test_a_result_that_is_dropped_or_replaced_takes_no_room() -> None:
    results = Results()
    results.keep("kept", b"1", 10.0)
    for number in range(300):
        results.keep("replaced", b"x" * 65_536, 10.0)
        results.keep("dropped", b"x" * 65_536, 5.0)
        assert results.get("dropped", 5.0) is None, number
    assert results.get("kept", 0.0) == b"1"
