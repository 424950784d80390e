"""The queue's line in the table of modules. It loads the queue itself only when one is opened."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from typing import Any, Final

import attrs

from ...transport.link import Address
from ..module import Command, Module, ModuleEnvironment, RunningModule
from .entry import ENTRIES, read_queue
from .settings import QueueConfig


def _open(
    address: Address, settings: QueueConfig, environment: ModuleEnvironment
) -> AbstractAsyncContextManager[RunningModule]:
    from .module import open_queue  # here, so that commands which call an engine elsewhere do not load the queue

    return open_queue(
        address,
        settings,
        store=environment.store,
        run_blocking=environment.run_blocking,
        wall_clock=environment.wall_clock,
        rng=environment.rng,
        new_id=environment.new_id,
    )


def _in_directory(settings: QueueConfig, directory: str | None) -> Any:
    return attrs.evolve(settings, directory=directory)


QUEUE: Final = Module(
    name="queue",
    settings=QueueConfig,
    open=_open,
    worker="iii-queue",
    entries=ENTRIES,
    read=read_queue,
    in_directory=_in_directory,
    commands=(
        Command(
            "enqueue",
            "iii_trio.cli.enqueue:enqueue",
            "Have a function called later, by a queue, and print the job's receipt: its id.",
        ),
        Command(
            "queues",
            "iii_trio.cli.queues:queues",
            "List the queues and topics: how many jobs are where, how many are done a second, and what they wait for.",
        ),
        Command("jobs", "iii_trio.cli.jobs:jobs", "List the jobs of a queue or topic by page, the oldest first."),
        Command(
            "job",
            "iii_trio.cli.jobs:job",
            "Show one job: its state, its attempts, its last error, its trace and its payload.",
        ),
        Command(
            "cancel",
            "iii_trio.cli.jobs:cancel",
            "Remove one job that waits or runs. A handler that runs is cancelled, if its SDK supports that.",
        ),
        Command(
            "purge",
            "iii_trio.cli.jobs:purge",
            "Remove all jobs that wait in a queue, a topic, or for one subscriber. Jobs that run go on.",
        ),
        Command(
            "pause",
            "iii_trio.cli.jobs:pause",
            "Start no more jobs of a queue, a topic, or one subscriber, also after a restart. Jobs that run go on.",
        ),
        Command(
            "resume",
            "iii_trio.cli.jobs:resume",
            "Start the jobs again of a queue, a topic, or one subscriber that was paused.",
        ),
        Command(
            "unsubscribe",
            "iii_trio.cli.jobs:unsubscribe",
            "End the subscription of a subscriber that is away, and remove the jobs that wait for it.",
        ),
        Command(
            "dead-letters",
            "iii_trio.cli.dead_letters:dead_letters",
            "List the dead letters of a queue or topic: jobs that failed for the last time, and why.",
        ),
        Command(
            "redrive",
            "iii_trio.cli.dead_letters:redrive",
            "Make dead letters jobs again, with all their attempts, behind what waits.",
        ),
        Command(
            "discard",
            "iii_trio.cli.dead_letters:discard",
            "Throw dead letters away: one, or with --all every one of the queue.",
        ),
    ),
)
