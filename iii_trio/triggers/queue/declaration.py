"""The queue's line in the table of modules. It loads the queue itself only when one is opened."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from typing import Any, Final

import attrs

from ...transport.link import Address
from ..module import Command, Module, ModuleEnvironment, RunningModule
from .settings import IN_MESH, QueueConfig


def _open(
    address: Address, settings: QueueConfig, environment: ModuleEnvironment
) -> AbstractAsyncContextManager[RunningModule]:
    if settings.in_mesh:
        from .mesh_queue import open_mesh_queue

        return open_mesh_queue(address, settings, environment)
    from .memory_store import MemoryStore
    from .module import open_queue  # here, so that commands which call an engine elsewhere do not load the queue

    store = environment.store
    # Jobs in memory must outlive a failure of the module, which is not a failure of the engine.
    if store is None and settings.directory is None:
        store = environment.kept.get("jobs")
        if store is None:
            store = environment.kept["jobs"] = MemoryStore()
    return open_queue(
        address,
        settings,
        store=store,
        environment=environment,
        tracing=environment.tracing,
        memory=environment.host.open_memory_share("queue") if environment.host is not None else None,
    )


def _in_directory(settings: QueueConfig, directory: str | None) -> Any:
    if directory == IN_MESH:
        return attrs.evolve(settings, directory=None, in_mesh=True)
    return settings if settings.in_mesh else attrs.evolve(settings, directory=directory)


QUEUE: Final = Module(
    name="queue",
    settings=QueueConfig,
    open=_open,
    worker="iii-queue",
    entries=frozenset({"iii-queue", "queue"}),
    read="iii_trio.triggers.queue.entry:read_queue",
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
            "Show one job: its state, its attempts, its last error, its trace and its payload. With --wait, how it ended.",
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
        Command(
            "backup",
            "iii_trio.cli.backup:backup",
            "Copy all jobs of a running engine into a file, as they are at one moment, and check it.",
        ),
    ),
)
