"""A short, seeded run of every part of the fuzzer, and a look whether its oracles see what they are for."""

from __future__ import annotations

import pytest

from .drivers import KINDS


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("kind", KINDS)
def test_a_short_run(kind: str, seed: int) -> None:
    make, run = KINDS[kind]
    run(make(seed), None)
