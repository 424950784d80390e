"""`iii-trio replay`: which steps are shown, why something ended, and what is wrong with a file."""

from __future__ import annotations

import json
import re
import stat
from contextlib import closing
from pathlib import Path
from unittest import mock

import attrs
import pytest

from iii_trio.cli import main
from iii_trio.cli.exits import UsageError
from iii_trio.cli.files import Sink
from iii_trio.cli.record import read_duration
from iii_trio.core.channel import Channel, ChannelEvent
from iii_trio.recorder.plain import write_one
from iii_trio.recorder.recording import Recording, RecordingError
from iii_trio.testing import from_recording
from iii_trio.wire import Direction, Ref
from tests.helpers.recorded_world import Recorded, encoded


@pytest.fixture
def talk() -> Recorded:
    talk = Recorded()
    a, b = talk.join("a"), talk.join("b")
    a.offer("f")
    for number in range(1, 4):
        talk.now = float(number)
        talk.call(b, a, {"n": number}, number)
    b.ask("engine::channels::create", {}, 9)
    talk.now = 10.0
    talk.act(talk.hub.close_session(a.session, 4000, "it sent nothing for 90 s", talk.now))
    talk.act(talk.hub.disconnected(b.session, "it closed with 1000", 11.0))
    return talk


@pytest.fixture
def file(talk: Recorded, tmp_path: Path) -> str:
    place = tmp_path / "engine.recording"
    place.write_bytes(encoded(talk.recording()))
    return str(place)


def shown(capsys: pytest.CaptureFixture[str], *words: str) -> list[str]:
    assert main(["replay", *words]) == 0
    return capsys.readouterr().out.splitlines()


def steps(lines: list[str]) -> list[int]:
    return [int(match[1]) for line in lines if (match := re.match(r" {0,5}(\d+) +[\d.]+ s  ", line))]


def test_each_step_shows_what_came_in_what_moved_and_what_went_out(
    file: str, talk: Recorded, capsys: pytest.CaptureFixture[str]
) -> None:
    heading, *lines = shown(capsys, file)
    assert heading == "14 steps of 11.000 s, by iii-trio 1.2.3"
    assert steps(lines) == list(range(1, 15))
    a = next(peer for peer in talk.peers.values() if peer.session.info.name == "a")
    text = "\n".join(lines)
    assert f"     6     1.0000 s  b ({list(talk.peers)[1][:8]}) sends a call of f (" in text
    assert "call 7d6c2c1e-7c59-4a53-9d29-000000000001: new -> waiting" in text
    assert f"=> to a ({a.id[:8]}): a call of f (7d6c2c1e-7c59-4a53-9d29-000000000001)" in text
    assert f"session {a.id}: serving -> gone" in text
    assert f"=> closes the link of a ({a.id[:8]}) (4000): it sent nothing for 90 s" in text


def test_a_part_is_shown_by_number_time_session_and_channel(
    file: str, talk: Recorded, capsys: pytest.CaptureFixture[str]
) -> None:
    assert steps(shown(capsys, file, "--from", "3", "--to", "5")) == [3, 4, 5]
    assert steps(shown(capsys, file, "--from", "2.5s", "--to", "3s")) == [10, 11, 12]
    a, b = talk.peers
    assert steps(shown(capsys, file, "--session", a[:8], "--to", "5")) == [1, 2, 5]
    assert steps(shown(capsys, file, "--session", b, "--to", "5")) == [3, 4]
    (channel,) = [ended.id for ended in talk.hub.channels.ended()]
    assert steps(shown(capsys, file, "--channel", channel)) == [12, 14]


def test_json_has_a_line_for_each_step(file: str, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [json.loads(line) for line in shown(capsys, file, "--json")]
    assert [row["step"] for row in rows] == list(range(1, 15))
    assert rows[5]["input"] == "received" and rows[5]["moves"] == [
        {"kind": "call", "id": "7d6c2c1e-7c59-4a53-9d29-000000000001", "before": None, "after": "waiting"}
    ]
    assert rows[12]["effects"][0]["code"] == 4000


def test_F10_why_names_the_chain_of_causes(file: str, talk: Recorded, capsys: pytest.CaptureFixture[str]) -> None:
    a, b = talk.peers
    assert shown(capsys, file, "--why", "--session", a) == [
        f"step     13: session {a} ended as `gone`",
        f"step     13: because the engine closes a ({a[:8]}) (4000): it sent nothing for 90 s",
    ]
    (line,) = shown(capsys, file, "--why", "--json")
    last = json.loads(line)
    assert [cause["step"] for cause in last] == [14, 14]
    assert b in last[0]["text"] and "owner_lost" in last[0]["text"]
    assert main(["replay", file, "--why", "--channel", "nothing"]) == 2
    (channel,) = [ended.id for ended in talk.hub.channels.ended()]
    assert capsys.readouterr().err == (
        "iii-trio: nothing whose id begins with nothing ended in this recording; give the --channel or --session of one of "
        f"the last ends: step 13: a ({a[:8]}); step 14: b ({b[:8]}); step 14: channel {channel}\n"
    )


def test_F10_a_bare_why_explains_an_end_of_workers_and_not_of_commands(
    talk: Recorded, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    b = list(talk.peers)[1]
    command = talk.join("iii-trio-record-host-7")
    command.ask("engine::channels::create", {}, 20)
    talk.act(talk.hub.disconnected(command.session, "it closed with 1000", 12.0))
    place = tmp_path / "engine.recording"
    place.write_bytes(encoded(talk.recording()))
    assert b in shown(capsys, str(place), "--why")[0]
    assert command.id in shown(capsys, str(place), "--why", "--session", command.id)[0]
    # Only the command's own end is in this part.
    assert main(["replay", str(place), "--why", "--from", "15"]) == 2
    assert "nothing of a worker ended in this recording; give the --channel or --session" in capsys.readouterr().err


def test_an_end_that_was_meant_gives_way_to_one_that_was_not(
    talk: Recorded, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    c = talk.join("c")
    refs = c.ask("engine::channels::create", {}, 20)
    for ref, direction in (("writer", Direction.WRITE), ("reader", Direction.READ)):
        talk.hub.attach(refs[ref]["channel_id"], refs[ref]["access_key"], direction, 12.0, c.session)
    for event in (ChannelEvent.WRITER_CLOSED, ChannelEvent.READER_FINISHED):
        talk.act(talk.hub.channel_event(refs["writer"]["channel_id"], event, "", 13.0))
    place = tmp_path / "engine.recording"
    place.write_bytes(encoded(talk.recording()))
    assert "owner_lost" in shown(capsys, str(place), "--why")[0]
    assert "completed" in shown(capsys, str(place), "--why", "--channel", refs["writer"]["channel_id"])[0]


@pytest.mark.parametrize(
    "words", [["--from", "15"], ["--from", "5", "--to", "3"], ["--from", "11.5s", "--json"], ["--session", "nobody"]]
)
def test_a_part_without_steps_is_wrong_usage(file: str, words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["replay", file, *words]) == 2
    asked = " ".join(word for word in words if word != "--json")
    assert capsys.readouterr().err == (
        f"iii-trio: no step is within {asked}: the recording has the steps 1 to 14, from 0s to 11.0000s\n"
    )


def test_F3_a_difference_fails_with_one_sentence(file: str, capsys: pytest.CaptureFixture[str]) -> None:
    # The defect: both refs of a channel have the same key.
    with mock.patch.object(Channel, "ref", lambda self, direction: Ref(self.id, self.read_key, direction)):
        assert main(["replay", file]) == 1
    said = capsys.readouterr().err
    assert (
        said
        == f"iii-trio: {file}: step 12 (received) differs: effect 1 of 1, here Send, is not what the engine decided\n"
    )


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["nowhere"], "nowhere cannot be read: No such file or directory"),
        (["FILE", "--from", "soon"], "--from is 'soon'; give the number of a step, or a time such as 2.5s"),
        (["FILE", "--to", "-1"], "--to is '-1'; give the number of a step, or a time such as 2.5s"),
        (["TEXT"], "TEXT is not a recording of iii-trio: name a file that `iii-trio record` has written"),
    ],
)
def test_F7_wrong_usage_is_one_sentence(
    words: list[str], said: str, file: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "text").write_text("no recording")
    places = {"FILE": file, "TEXT": str(tmp_path / "text")}
    assert main(["replay", *(places.get(word, word) for word in words)]) == 2
    assert capsys.readouterr().err == f"iii-trio: {said.replace('TEXT', places['TEXT'])}\n"


def with_argument(recording: Recording, kind: str, at: int, value: object) -> tuple[Recording, int]:
    """Return a recording whose last step of a kind has another argument, and the number of the step."""
    steps = list(recording.steps)
    number = max(number for number, step in enumerate(steps, 1) if step.kind.name == kind)
    arguments = [*steps[number - 1].arguments]
    arguments[at] = write_one(value)
    steps[number - 1] = attrs.evolve(steps[number - 1], arguments=arguments)
    return attrs.evolve(recording, steps=tuple(steps)), number


@pytest.mark.parametrize("words", [[], ["--why"], ["--json"], ["--why", "--channel", "x"]])
@pytest.mark.parametrize(
    ("kind", "at", "value"),
    [
        ("received", 0, 1e308),
        ("received", 1, 1e308),
        ("received", 1, None),
        ("received", 1, "text"),
        ("close_session", 0, 5),
        ("disconnected", 0, 1.5),
    ],
)
def test_F7_a_step_with_an_odd_value_is_one_sentence_that_names_it(
    kind: str,
    at: int,
    value: object,
    words: list[str],
    talk: Recorded,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    recording, number = with_argument(talk.recording(), kind, at, value)
    place = tmp_path / "odd.recording"
    place.write_bytes(encoded(recording))
    assert main(["replay", str(place), *words]) == 2
    said = capsys.readouterr().err
    assert said.startswith(f"iii-trio: {place}: ") and said.count("\n") == 1
    assert said.endswith(
        f"the recording is damaged at step {number} ({kind}): it has values of other types than a step has (TypeError); "
        "copy it again, or record anew\n"
    )
    with pytest.raises(RecordingError, match=f"step {number} "):
        str(from_recording(place))


@pytest.mark.parametrize("words", [[], ["--why"]])
def test_F7_a_snapshot_with_an_odd_session_is_one_sentence(
    words: list[str], talk: Recorded, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recording = talk.recording()
    settings, _, plain, ledgers = recording.snapshot[0]
    odd = [[settings, ["d", "a", 1.5], plain, ledgers], recording.snapshot[1]]
    place = tmp_path / "odd.recording"
    place.write_bytes(encoded(attrs.evolve(recording, snapshot=odd)))
    assert main(["replay", str(place), *words]) == 2
    assert capsys.readouterr().err == (
        f"iii-trio: {place}: the recording cannot be replayed: its snapshot is damaged (AttributeError): "
        "copy it again, or record anew\n"
    )


def test_F3_an_end_that_is_attached_otherwise_is_a_difference(
    talk: Recorded, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    talk.hub.attach("nothing", "key", Direction.READ, 11.0, None, None)
    recording, number = with_argument(talk.recording(), "attach", -1, 0)
    place = tmp_path / "attached.recording"
    place.write_bytes(encoded(recording))
    assert main(["replay", str(place)]) == 1
    assert capsys.readouterr().err == (
        f"iii-trio: {place}: step {number} (attach) differs: the end of channel nothing was refused with 404, "
        "and the engine had it attached\n"
    )


def test_a_duration_has_a_unit_or_is_in_seconds() -> None:
    durations = {"60s": 60, "5m": 300, "1.5h": 5400, "250ms": 0.25, "7": 7, " 2 s ": 2}
    assert {text: read_duration(text) for text in durations} == durations
    for text in ("", "0", "-1s", "1d", "s", "1e9s", "99999999999h"):
        with pytest.raises(UsageError, match="give a time such as 60s"):
            read_duration(text)


async def test_F8_the_file_of_a_recording_is_private_and_there_once_it_is_whole(tmp_path: Path) -> None:
    new, old = tmp_path / "new.recording", tmp_path / "old.recording"
    old.write_bytes(b"the one before")
    old.chmod(0o644)
    for place in (new, old):
        with closing(await Sink.open(str(place), private=True)) as sink:
            await sink.write(b"a recording")
            assert not new.exists() or place is old
            assert old.read_bytes() == b"the one before"
            await sink.keep()
        assert place.read_bytes() == b"a recording" and stat.S_IMODE(place.stat().st_mode) == 0o600
    assert sorted(each.name for each in (tmp_path / ".").iterdir()) == ["new.recording", "old.recording"]
