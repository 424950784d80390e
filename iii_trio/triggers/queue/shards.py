"""The shards of the queues of a mesh: which one has a queue or topic, and how they are named to people."""

from __future__ import annotations

import zlib
from collections.abc import Iterable


def shard_of(name: str, shards: int) -> int:
    """Return the shard of a queue or topic. One name is in one shard, whether it is a queue's or a topic's."""
    return zlib.crc32(name.encode(errors="replace")) % shards


def namespace_of_shard(node: str, shard: int) -> str:
    """Return the namespace in which a node offers the functions of a shard that it owns to the mesh."""
    return f"iii-queue.{node}.{shard}"


def shards_in_words(shards: Iterable[int]) -> str:
    """Return the numbers of shards with ranges, such as `0-5, 7`."""
    runs: list[list[int]] = []
    for shard in sorted(shards):
        if runs and runs[-1][-1] == shard - 1:
            runs[-1].append(shard)
        else:
            runs.append([shard])
    return ", ".join(f"{run[0]}-{run[-1]}" if len(run) > 1 else f"{run[0]}" for run in runs)
