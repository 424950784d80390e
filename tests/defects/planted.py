"""Defects to plant in a copy of the package, each as a piece of code and its replacement.

A piece is found anywhere in the package, whatever its line breaks and indentation, so a defect survives reformatting and
the move of a file. It has to occur exactly once.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Literal, TypeAlias

import attrs

Hunt: TypeAlias = Literal["frames", "scripts", "conversations", "clauses"]


class NotPlanted(Exception):
    """The piece of code that a defect replaces is not there exactly once."""


@attrs.frozen
class Defect:
    """A defect, the hunt that finds it, and its place."""

    name: str
    effect: str
    hunt: Hunt
    old: str
    new: str
    """May have several lines. Those after the first get the indentation of the replaced piece."""

    def plant(self, package: Path) -> Path:
        """Plant the defect in the package at this path and return the changed file. Raises NotPlanted."""
        found = [(path, match) for path in sorted(package.rglob("*.py")) for match in self._matches(path.read_text())]
        if len(found) != 1:
            places = ", ".join(f"{path.relative_to(package)} at {match.start()}" for path, match in found)
            raise NotPlanted(f"{self.name}: {self.old!r} occurs {len(found)} times, not once ({places or 'nowhere'})")
        [(path, match)] = found
        text = path.read_text()
        line = text[text.rfind("\n", 0, match.start()) + 1 : match.start()]
        indentation = line[: len(line) - len(line.lstrip())]
        new = self.new.replace("\n", f"\n{indentation}")
        path.write_text(text[: match.start()] + new + text[match.end() :])
        return path

    def _matches(self, text: str) -> list[re.Match[str]]:
        tokens = re.findall(r"\w+|[^\w\s]", self.old)
        # The formatter may put a comma before a bracket that closes a call over several lines.
        pattern = r"\s*".join((r",?\s*" if token in ")]}" else "") + re.escape(token) for token in tokens)
        return list(re.finditer(rf"(?<!\w){pattern}(?!\w)" if tokens[-1].isidentifier() else pattern, text))


DEFECTS: tuple[Defect, ...] = (
    Defect(
        "a_close_within_a_message_is_clean",
        "A Close within a message is taken for the clean end.",
        "frames",
        "if how.code in CLEAN_CLOSES and not self._scanner.within_message:",
        "if how.code in CLEAN_CLOSES:",
    ),
    Defect(
        "a_fin_is_a_clean_end",
        "A writer whose connection ends in order, but without a Close, is taken to have closed.",
        "frames",
        "case Lost(): shell.channel_event(channel, ChannelEvent.WRITER_LOST",
        "case Lost():\n"
        "    shell.channel_event(channel, ChannelEvent.WRITER_CLOSED if how.by_fin else ChannelEvent.WRITER_LOST",
    ),
    Defect(
        "a_lost_reader_looks_like_one_that_took_all",
        "A reader that is gone counts as finished.",
        "conversations",
        "ChannelEvent.READER_LOST: ChannelState.READER_LOST",
        "ChannelEvent.READER_LOST: ChannelState.COMPLETED",
    ),
    Defect(
        "a_batch_is_never_cut",
        "A batch goes into the pipe as a whole, however many items it has.",
        "frames",
        "rest.cut(self.max_items - self.items_waiting, self.max_bytes - self.bytes_waiting)",
        "(None, batch) if self.full else (batch, None)",
    ),
    Defect(
        "a_tab_going_away_is_a_clean_end",
        "A writer's Close with 1001 is taken for the clean end.",
        "frames",
        "frozenset({Close.NORMAL, Close.NO_STATUS_RCVD})",
        "frozenset({Close.NORMAL, Close.GOING_AWAY, Close.NO_STATUS_RCVD})",
    ),
    Defect(
        "an_abort_lets_waiting_items_look_complete",
        "An abort seals the pipe instead of breaking it: the waiting items are delivered, and then the clean end.",
        "scripts",
        "self.pipe.break_off(end)",
        "self.pipe.seal()",
    ),
    Defect(
        "an_ended_channel_is_remembered_as_open",
        "A channel that completed stays among those that its owner has open.",
        "scripts",
        "del self._open[channel.id]",
        "if channel.state.current is not ChannelState.COMPLETED: del self._open[channel.id]",
    ),
    Defect(
        "an_idle_writer_is_not_told",
        "A writer is told that its channel has ended only while something of it waits.",
        "clauses",
        "self._set_ahead(None) if self._has_room: self._has_room.unpark_all() if not self.websocket.shaking: self._say(end)",
        "if self._ahead is not None and not self.websocket.shaking: self._say(end)",
    ),
    Defect(
        "done_gives_no_room_back",
        "A chunk that was written leaves its items counted: the pipe stays full.",
        "conversations",
        "self._chunks -= 1 self.items_waiting -= items",
        "self._chunks -= 1",
    ),
    Defect(
        "held_writers_outlive_their_session",
        "The writers that a session held are not lost with it.",
        "clauses",
        "sorted(session.held_writers)",
        "()",
    ),
    Defect(
        "messages_are_no_activity",
        "A channel expires after its creation, not after its last activity.",
        "clauses",
        "if channel.touched_at + channel.expires_after_seconds > now:",
        "if channel.created_at + channel.expires_after_seconds > now:",
    ),
    Defect(
        "room_wakes_no_writer",
        "Room in the pipe is not told to the writer that waits for it.",
        "conversations",
        "self._room.unpark_all() if self._tell_room is not None: self._tell_room()",
        "pass",
    ),
    Defect(
        "one_item_too_many_fits",
        "The room for items is counted too large.",
        "frames",
        "rest.cut(self.max_items - self.items_waiting, self.max_bytes - self.bytes_waiting)",
        "rest.cut(self.max_items - self.items_waiting + 2, self.max_bytes - self.bytes_waiting)",
    ),
    Defect(
        "owned_channels_outlive_their_owner",
        "The channels that a session owned go on without it.",
        "scripts",
        "sorted(session.owned)",
        "()",
    ),
    Defect(
        "the_end_of_a_fragmented_message_is_lost",
        "The last fragment of a message is passed on without its FIN.",
        "frames",
        "frame_head(opcode, len(piece), fin=ends)",
        "frame_head(opcode, len(piece), fin=ends and not self._begun)",
    ),
    Defect(
        "the_rest_of_a_torn_frame_is_lost",
        "After a short write, the rest of the frame that was begun is forgotten.",
        "frames",
        "for part in torn: self.put(part)",
        "torn.clear()",
    ),
    Defect(
        "the_read_ahead_is_lost_at_the_close",
        "The read-ahead of a writer that closes behind a full pipe is thrown away.",
        "frames",
        "if self._ahead is not None: self._attached.pipe.push_all(self._ahead)",
        "if self._ahead is not None:",
    ),
    Defect(
        "the_rest_of_a_cut_batch_is_delivered_twice",
        "Where a batch is cut, the part that did not fit is the whole batch.",
        "frames",
        "return self._before(place), self._behind(place)",
        "return self._before(place), self",
    ),
)
