"""A folder that calls itself complete has every line, whatever happens to the sender."""

from __future__ import annotations

import hypothesis.strategies as st
from archive import Folder, serve_archive
from hypothesis import Phase, given, settings

import iii_trio
from iii_trio.testing import World, simulate

LINES = st.lists(st.sampled_from(["one", "two", "three"]), max_size=5)
MANNERS = settings(deadline=None, phases=set(Phase) - {Phase.explain})  # explaining traces every line: slow


@MANNERS
@given(lines=LINES, dies_before=st.none() | st.integers(0, 5), seed=st.integers(0, 1000))
def test_a_complete_folder_has_every_line(lines: list[str], dies_before: int | None, seed: int) -> None:
    async def scenario(world: World) -> None:
        folder = Folder()
        refs: dict[str, iii_trio.Ref] = {}

        async def archive(worker: iii_trio.Worker) -> None:
            await serve_archive(worker, folder)

        async def send(worker: iii_trio.Worker) -> None:
            async with worker.open_writer(refs["writer"]) as writer:
                for number, line in enumerate(lines):
                    if number == dies_before:
                        world.crash_worker("sender")
                    await writer.send(line)

        await world.start_worker("archive", archive)
        async with world.open_worker("app") as app, app.create_channel() as channel:
            refs["writer"] = channel.writer_ref
            await world.start_worker("sender", send)
            try:
                await app.trigger("archive::save", {"source": channel.reader_ref})
            except iii_trio.CallError as error:
                world.note("app was told:", error)

        assert not folder.complete or folder.lines == lines

    simulate(scenario, seed)
