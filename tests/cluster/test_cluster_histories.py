"""Random histories of three nodes, a few here and more with III_CLUSTER_HISTORIES=N."""

from __future__ import annotations

import os

import pytest

from .histories import LATE_STEPS, violation_of

NUMBER = int(os.environ.get("III_CLUSTER_HISTORIES", "15"))


@pytest.mark.slow
def test_N19_histories_of_lost_leases_partitions_and_restarts_end_well() -> None:
    assert [found for seed in range(NUMBER) if (found := violation_of(seed)) is not None] == []


@pytest.mark.slow
def test_a_split_brain_is_found_where_the_store_does_not_check_fencing_numbers() -> None:
    # Of such histories the 18th had one, after 4 s of CPU.
    assert any(violation_of(seed, checks_fences=False, steps=(LATE_STEPS,)) is not None for seed in range(60))
