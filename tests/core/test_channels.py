"""The ledger of channels: who may attach what, what ends one, what is left behind."""

from __future__ import annotations

import itertools
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from iii_trio.config import ChannelDefaults, EngineConfig, Limits, Timeouts
from iii_trio.core.channel import Channel, ChannelEvent, ChannelState
from iii_trio.core.channels import Refused
from iii_trio.core.effects import EndChannel, Log, SealPipe
from iii_trio.wire import FEATURE, Direction, Outcome
from tests.helpers.conversation import Conversation, Peer


class Harbour(Conversation):
    """A conversation with a worker that makes channels, and one that uses them."""

    def __init__(self, config: EngineConfig | None = None) -> None:
        super().__init__(config)
        self.owner = self.join("owner")
        self.user = self.join("user")

    def create(self, by: Peer | None = None, **given: Any) -> Channel:
        refs = (by or self.owner).ask("engine::channels::create", given)
        assert refs["writer"]["channel_id"] == refs["reader"]["channel_id"]
        channel = self.hub.channels.get(refs["writer"]["channel_id"])
        assert channel is not None
        return channel

    def attach(self, channel: Channel, direction: Direction, holder: Peer | None = None) -> Channel | Refused:
        key = channel.read_key if direction is Direction.READ else channel.write_key
        session = holder.session if holder is not None else None
        return self.hub.attach(channel.id, key, direction, self.now, session)

    def take(self, channel: Channel, *cues: ChannelEvent, reason: str = "because") -> None:
        for cue in cues:
            self.act(self.hub.channel_event(channel.id, cue, reason, self.now))

    def outcomes(self) -> list[tuple[str, Outcome]]:
        return [(effect.channel, effect.outcome) for effect in self.effects if isinstance(effect, EndChannel)]


def flowing(harbour: Harbour, writer: Peer | None = None, reader: Peer | None = None) -> Channel:
    channel = harbour.create()
    assert harbour.attach(channel, Direction.WRITE, writer) is channel
    assert harbour.attach(channel, Direction.READ, reader) is channel
    return channel


# --- C1


def test_C1_2_the_two_refs_share_the_id_and_have_different_keys() -> None:
    harbour = Harbour()
    refs = harbour.owner.ask("engine::channels::create", {})
    assert refs["writer"].keys() == refs["reader"].keys() == {"channel_id", "access_key", "direction"}
    assert refs["writer"]["channel_id"] == refs["reader"]["channel_id"]
    assert refs["writer"]["access_key"] != refs["reader"]["access_key"]
    assert (refs["writer"]["direction"], refs["reader"]["direction"]) == ("write", "read")


@pytest.mark.parametrize(
    ("given_", "items"),
    [
        ({}, 64),
        ({"buffer_size": None}, 64),
        ({"buffer_size": 0}, 1),
        ({"buffer_size": 9}, 9),
        ({"buffer_size": 5000}, 1024),
    ],
)
def test_C1_4_the_pipe_is_bounded_by_items(given_: dict[str, Any], items: int) -> None:
    assert Harbour().create(**given_).buffer_size == items


@pytest.mark.parametrize(("given_", "size"), [(1, 1), (2, 2), (None, 1_048_576)])
def test_C1_4_the_pipe_is_bounded_by_bytes(given_: int | None, size: int) -> None:
    assert Harbour().create(max_bytes=given_).max_bytes == size


@pytest.mark.parametrize("size", [-1, 1.5, "64", [], True])
def test_C1_4_a_bound_that_is_none_is_refused(size: object) -> None:
    harbour = Harbour()
    error = harbour.owner.ask("engine::channels::create", {"buffer_size": size})
    assert error["code"] == "deserialization_error"
    assert error["message"].startswith("Failed to deserialize input for engine::channels::create: buffer_size: ")
    assert len(harbour.hub.channels) == 0


def test_C1_5_a_session_has_a_limit_of_channels_and_gets_room_again() -> None:
    harbour = Harbour(EngineConfig(limits=Limits(channels_per_session=2)))
    first, _ = harbour.create(), harbour.create()
    assert harbour.owner.ask("engine::channels::create")["code"] == "channel_limit_reached"
    harbour.create(harbour.user)
    harbour.attach(first, Direction.WRITE)
    harbour.take(first, ChannelEvent.WRITER_LOST)
    harbour.create()


def test_C1_5_the_engine_has_a_limit_of_channels_for_all() -> None:
    harbour = Harbour(EngineConfig(limits=Limits(channels_per_session=1, channels=3)))
    module = harbour.join("module", in_process=True)
    harbour.create(module)
    harbour.create(module)
    harbour.create()
    assert harbour.user.ask("engine::channels::create")["code"] == "channel_limit_reached"


def test_no_new_channels_while_the_engine_drains() -> None:
    harbour = Harbour()
    harbour.hub.drain()
    assert harbour.owner.ask("engine::channels::create")["code"] == "engine_draining"


# --- C2


def test_C2_1_a_second_claimant_is_refused_and_disturbs_nothing() -> None:
    harbour = Harbour()
    channel = flowing(harbour, writer=harbour.owner)
    for direction in Direction:
        refused = harbour.attach(channel, direction, harbour.user)
        assert isinstance(refused, Refused) and refused.status == 409
    assert channel.state.current is ChannelState.FLOWING
    assert channel.writer == harbour.owner.id and not harbour.user.session.held_readers


def test_C2_1_unknown_ids_and_keys_are_404_and_the_other_direction_403() -> None:
    harbour = Harbour()
    channel = harbour.create()
    attach = harbour.hub.attach

    def status(channel_id: str, key: str, direction: Direction) -> int:
        refused = attach(channel_id, key, direction, 0.0, None)
        assert isinstance(refused, Refused)
        return refused.status

    assert status("nope", channel.read_key, Direction.READ) == 404
    assert status(channel.id, "nope", Direction.READ) == 404
    assert status(channel.id, "", Direction.WRITE) == 404
    assert status(channel.id, "ключ", Direction.WRITE) == 404
    assert status(channel.id, channel.write_key, Direction.READ) == 403
    assert status(channel.id, channel.read_key, Direction.WRITE) == 403
    assert channel.state.current is ChannelState.ALLOCATED


def test_C2_1_a_late_comer_with_a_key_is_told_how_it_ended_until_that_is_forgotten() -> None:
    harbour = Harbour(EngineConfig(channels=ChannelDefaults(ended_remembered=2)))
    channel = flowing(harbour)
    harbour.take(channel, ChannelEvent.WRITER_ABORTED, reason="enough")
    for direction in Direction:
        refused = harbour.attach(channel, direction)
        assert isinstance(refused, Refused) and refused.status == 410
        assert json.loads(refused.body) == {"outcome": "aborted", "reason": "enough", "code": None}
    wrong = harbour.hub.attach(channel.id, "nope", Direction.READ, 0.0, None)
    assert isinstance(wrong, Refused) and wrong.status == 404
    for _ in range(2):
        harbour.take(flowing(harbour), ChannelEvent.WRITER_LOST)
    refused = harbour.attach(channel, Direction.READ)
    assert isinstance(refused, Refused) and refused.status == 404
    assert len(harbour.hub.channels.ended()) == 2


def test_C2_3_a_channel_whose_other_end_never_comes_expires() -> None:
    harbour = Harbour(EngineConfig(channels=ChannelDefaults(expires_after_seconds=10)))
    idle, waiting = harbour.create(), harbour.create()
    harbour.attach(waiting, Direction.READ)
    harbour.wait(9.9)
    assert not harbour.outcomes()
    harbour.wait(0.1)
    assert harbour.outcomes() == [(waiting.id, Outcome.EXPIRED)]
    assert harbour.hub.channels.ended()[0].reason == "no writer came within 10 s"
    assert harbour.hub.channels.get(idle.id) is idle


def test_C2_3_activity_puts_it_off_and_the_other_end_ends_it() -> None:
    harbour = Harbour(EngineConfig(channels=ChannelDefaults(expires_after_seconds=10)))
    channel = harbour.create()
    harbour.attach(channel, Direction.WRITE)
    for _ in range(3):
        harbour.wait(9)
        harbour.hub.channels.touch(channel.id, harbour.now)
    assert not harbour.outcomes()
    harbour.attach(channel, Direction.READ)
    harbour.wait(1000)
    assert not harbour.outcomes() and harbour.hub.next_due() is None


@pytest.mark.parametrize(
    ("given_", "seconds"), [({}, 300.0), ({"expires_after_ms": 1500}, 1.5), ({"expires_after_ms": None}, None)]
)
def test_C8_4_the_time_to_wait_is_said_by_the_creator(given_: dict[str, Any], seconds: float | None) -> None:
    harbour = Harbour()
    channel = harbour.create(**given_)
    assert channel.expires_after_seconds == seconds
    harbour.attach(channel, Direction.WRITE)
    harbour.wait(1e6)
    assert harbour.outcomes() == ([] if seconds is None else [(channel.id, Outcome.EXPIRED)])


def test_C2_4_a_writer_that_closes_before_any_reader_is_sealed_and_drains_to_its_reader() -> None:
    harbour = Harbour()
    channel = harbour.create()
    harbour.attach(channel, Direction.WRITE)
    harbour.take(channel, ChannelEvent.WRITER_CLOSED)
    assert SealPipe(channel.id) in harbour.effects and channel.state.current is ChannelState.SEALED
    harbour.attach(channel, Direction.READ)
    harbour.take(channel, ChannelEvent.READER_FINISHED)
    assert harbour.outcomes() == [(channel.id, Outcome.COMPLETED)]


# --- C4


def test_C4_5_a_sessions_end_ends_its_writers_then_its_readers_then_what_it_owns() -> None:
    harbour = Harbour()
    owned = harbour.create()
    writing = harbour.create(harbour.user)
    reading = harbour.create(harbour.user)
    harbour.attach(reading, Direction.READ, harbour.owner)
    harbour.attach(writing, Direction.WRITE, harbour.owner)
    harbour.owner.leave("it closed with 1000")
    assert harbour.outcomes() == [
        (writing.id, Outcome.WRITER_LOST),
        (reading.id, Outcome.READER_LOST),
        (owned.id, Outcome.OWNER_LOST),
    ]
    assert {ended.reason for ended in harbour.hub.channels.ended()} == {
        f"worker 'owner' ({owned.owner}) is gone: it closed with 1000"
    }
    assert not harbour.user.session.owned


@pytest.mark.parametrize("reader_there", [True, False])
def test_C4_5_a_stream_closed_by_its_writer_outlives_its_owner(reader_there: bool) -> None:
    harbour = Harbour()
    channel = harbour.create()
    harbour.attach(channel, Direction.WRITE, harbour.owner)
    if reader_there:
        harbour.attach(channel, Direction.READ, harbour.user)
    harbour.take(channel, ChannelEvent.WRITER_CLOSED)
    harbour.owner.leave()
    assert not harbour.outcomes() and channel.owner is None
    if not reader_there:
        harbour.attach(channel, Direction.READ, harbour.user)
    harbour.take(channel, ChannelEvent.READER_FINISHED)
    assert harbour.outcomes() == [(channel.id, Outcome.COMPLETED)]


def test_C4_5_the_channels_end_before_the_calls_fail() -> None:
    harbour = Harbour()
    harbour.owner.offer("tide::next")
    channel = harbour.create()
    harbour.user.call("tide::next")
    harbour.effects.clear()
    harbour.owner.leave()
    kinds = [type(effect).__name__ for effect in harbour.effects]
    assert kinds.index("EndChannel") < kinds.index("Send")
    assert harbour.outcomes() == [(channel.id, Outcome.OWNER_LOST)]


def test_C4_7_every_channel_has_one_outcome_and_is_forgotten() -> None:
    harbour = Harbour()
    channel = flowing(harbour, writer=harbour.owner, reader=harbour.user)
    harbour.take(
        channel,
        ChannelEvent.READER_CANCELLED,
        ChannelEvent.WRITER_LOST,
        ChannelEvent.READER_LOST,
        ChannelEvent.OWNER_LEFT,
        ChannelEvent.ENGINE_CLOSED,
    )
    harbour.owner.leave()
    harbour.user.leave()
    assert harbour.outcomes() == [(channel.id, Outcome.READER_CANCELLED)]
    assert len(harbour.hub.channels) == 0
    for session in (harbour.owner.session, harbour.user.session):
        assert not session.owned and not session.held_readers and not session.held_writers


def test_C4_8_a_late_cue_for_a_forgotten_channel_is_harmless() -> None:
    harbour = Harbour()
    channel = flowing(harbour)
    harbour.take(
        channel,
        ChannelEvent.WRITER_CLOSED,
        ChannelEvent.WRITER_CLOSED,
        ChannelEvent.WRITER_LOST,
        ChannelEvent.READER_FINISHED,
        ChannelEvent.WRITER_LOST,
    )
    assert harbour.outcomes() == [(channel.id, Outcome.COMPLETED)]
    assert harbour.hub.channel_event("nope", ChannelEvent.WRITER_LOST, "", 0.0) == []


def test_C4_7_an_engine_that_closes_ends_every_channel() -> None:
    harbour = Harbour()
    channels = [harbour.create(), flowing(harbour, harbour.owner, harbour.user)]
    harbour.act(harbour.hub.close("bye", harbour.now))
    assert harbour.outcomes() == [(channel.id, Outcome.ENGINE_CLOSED) for channel in channels]
    assert not harbour.hub.sessions
    assert {hang_up.code for hang_up in harbour.hung_up.values()} == {1012}


# --- C7 and C8


def test_C7_1_open_channels_are_listed_with_owner_holders_phase_and_age_and_without_keys() -> None:
    harbour = Harbour()
    channel = flowing(harbour, writer=harbour.user)
    harbour.wait(3)
    harbour.channel_io = {"bytes_passed": 17}
    listed = harbour.user.ask("engine::channels::list")
    assert listed == {
        "channels": [
            {
                "id": channel.id,
                "phase": "flowing",
                "owner": harbour.owner.id,
                "owner_name": "owner",
                "writer": harbour.user.id,
                "writer_name": "user",
                "reader": None,
                "reader_name": None,
                "age_seconds": 3.0,
                "idle_seconds": 3.0,
                "buffer_size": 64,
                "max_bytes": 1024 * 1024,
                "expires_after_seconds": 300.0,
                "invocations": [],
                "bytes_passed": 17,
            }
        ]
    }
    assert channel.read_key not in json.dumps(listed) and channel.write_key not in json.dumps(listed)


def test_C7_2_ended_channels_are_listed_latest_first_with_their_cause() -> None:
    harbour = Harbour()
    first, second = flowing(harbour), flowing(harbour)
    harbour.wait(2)
    harbour.take(first, ChannelEvent.WRITER_LOST, reason="the cable")
    harbour.wait(1)
    harbour.take(second, ChannelEvent.READER_CANCELLED, reason="enough")
    rows = harbour.user.ask("engine::channels::ended")["channels"]
    assert [(row["id"], row["outcome"], row["reason"]) for row in rows] == [
        (second.id, "reader_cancelled", "enough"),
        (first.id, "writer_lost", "the cable"),
    ]
    assert (rows[1]["lasted_seconds"], rows[1]["ended_seconds_ago"], rows[1]["owner"]) == (2.0, 1.0, harbour.owner.id)
    assert harbour.user.ask("engine::channels::ended", {"limit": 1})["channels"] == rows[:1]
    assert harbour.user.ask("engine::channels::ended", {"limit": -1})["code"] == "deserialization_error"


def _end(peer: Peer, channel: Channel, direction: Direction, **how: Any) -> Any:
    return peer.ask("engine::channels::end", {**channel.ref(direction).to_json(), **how})


@pytest.mark.parametrize(
    ("direction", "how", "outcome"),
    [
        (Direction.READ, {"reason": "enough"}, Outcome.READER_CANCELLED),
        (Direction.WRITE, {"reason": "no disk"}, Outcome.ABORTED),
    ],
)
def test_C8_4_an_end_is_ended_without_being_attached(direction: Direction, how: Any, outcome: Outcome) -> None:
    harbour = Harbour()
    channel = harbour.create()
    other = Direction.READ if direction is Direction.WRITE else Direction.WRITE
    assert harbour.attach(channel, other, harbour.user) is channel
    assert _end(harbour.user, channel, direction, **how) == {"ended": True}
    assert harbour.outcomes() == [(channel.id, outcome)]
    # A second time there is nothing to end.
    assert _end(harbour.user, channel, direction, **how) == {"ended": False}


def test_C8_4_a_writer_that_ends_cleanly_without_being_attached_leaves_an_empty_stream() -> None:
    harbour = Harbour()
    channel = harbour.create()
    assert _end(harbour.owner, channel, Direction.WRITE, clean=True) == {"ended": True}
    assert channel.state.current is ChannelState.SEALED
    assert harbour.attach(channel, Direction.READ, harbour.user) is channel
    harbour.take(channel, ChannelEvent.READER_FINISHED)
    assert harbour.outcomes() == [(channel.id, Outcome.COMPLETED)]


def test_C8_4_an_end_that_is_attached_and_one_without_its_key_are_left_alone() -> None:
    harbour = Harbour()
    channel = flowing(harbour)
    assert _end(harbour.user, channel, Direction.READ) == {"ended": False}
    ref = {**channel.ref(Direction.READ).to_json(), "access_key": "wrong"}
    assert harbour.user.ask("engine::channels::end", ref) == {"ended": False}
    ref = {**channel.ref(Direction.READ).to_json(), "direction": "both"}
    assert harbour.user.ask("engine::channels::end", ref)["code"] == "deserialization_error"
    assert harbour.outcomes() == []


def test_C8_3_owner_and_holders_are_told_once_if_they_understand_it() -> None:
    harbour = Harbour()
    ours = harbour.connect()
    ours.register("ours", features=[FEATURE])
    ours.hears()
    channel = harbour.create(ours)
    harbour.attach(channel, Direction.WRITE, ours)
    harbour.attach(channel, Direction.READ, harbour.user)
    harbour.take(channel, ChannelEvent.WRITER_ABORTED, reason="enough")
    assert ours.hears() == [
        {"type": "channelended", "channel_id": channel.id, "outcome": "aborted", "reason": "enough"}
    ]
    assert harbour.user.hears() == []


def test_C8_2_only_the_channel_secret_names_a_holder() -> None:
    harbour = Harbour()
    session = harbour.owner.session
    assert harbour.hub.by_secret(session.id, session.channel_secret) is session
    assert harbour.hub.by_secret(session.id, session.reattach_token) is None
    assert harbour.hub.by_secret("nobody", session.channel_secret) is None
    harbour.owner.leave()
    assert harbour.hub.by_secret(session.id, session.channel_secret) is None


# --- any history


STEPS = st.one_of(
    st.tuples(st.just("create"), st.integers(0, 1)),
    st.tuples(st.just("attach"), st.integers(0, 5), st.sampled_from(Direction), st.integers(0, 2)),
    st.tuples(
        st.just("cue"), st.integers(0, 5), st.sampled_from([cue for cue in ChannelEvent if "ATTACHED" not in cue.name])
    ),
    st.tuples(st.just("wait"), st.sampled_from([1.0, 100.0, 400.0])),
    st.tuples(st.just("leave"), st.integers(0, 1)),
)


@given(st.lists(STEPS, max_size=40))
def test_C4_7_after_any_history_nothing_is_left(steps: list[tuple[Any, ...]]) -> None:
    harbour = Harbour()
    peers = [harbour.owner, harbour.user]
    made: list[Channel] = []
    for step in steps:
        match step:
            case ("create", who) if peers[who].id in harbour.hub.sessions:
                made.append(harbour.create(peers[who]))
            case ("attach", which, direction, who) if which < len(made):
                holder = peers[who] if who < 2 and peers[who].id in harbour.hub.sessions else None
                harbour.attach(made[which], direction, holder)
            case ("cue", which, cue) if which < len(made):
                harbour.take(made[which], cue)
            case ("wait", seconds):
                harbour.wait(seconds)
            case ("leave", who):
                peers[who].leave()
        for session in harbour.hub.sessions.values():
            for channel_id in session.owned | session.held_readers | session.held_writers:
                channel = harbour.hub.channels.get(channel_id)
                assert channel is not None and session.id in (channel.owner, channel.reader, channel.writer)
        ended = [channel_id for channel_id, _ in harbour.outcomes()]
        assert len(set(ended)) == len(ended)
        assert {channel.id for channel in harbour.hub.channels} == {each.id for each in made} - set(ended)
    harbour.act(harbour.hub.close("bye", harbour.now))
    assert len(harbour.hub.channels) == 0
    assert {channel_id for channel_id, _ in harbour.outcomes()} == {channel.id for channel in made}
    assert {ended.id for ended in harbour.hub.channels.ended()} == {channel.id for channel in made}
    harbour.wait(1000)
    assert harbour.hub.next_due() is None


def test_C2_3_a_finished_stream_that_lost_its_owner_expires_even_if_it_never_should() -> None:
    harbour = Harbour()
    channel = harbour.create(expires_after_ms=None)
    harbour.attach(channel, Direction.WRITE, harbour.user)
    harbour.take(channel, ChannelEvent.WRITER_CLOSED)
    harbour.owner.leave()
    harbour.wait(299)
    assert not harbour.outcomes()
    harbour.wait(1)
    assert harbour.outcomes() == [(channel.id, Outcome.EXPIRED)]


# --- C4.6


def absent(harbour: Harbour, who: Peer) -> str:
    """Lose a worker's link; its reattach token."""
    harbour.act(harbour.hub.disconnected(who.session, "the connection was reset", harbour.now, may_come_back=True))
    return who.session.reattach_token


def graceful() -> Harbour:
    return Harbour(EngineConfig(timeouts=Timeouts(reattach_grace_seconds=10)))


def test_C4_6_during_the_grace_only_channels_wait_and_the_rest_ends_at_once() -> None:
    harbour = graceful()
    harbour.owner.offer("tide::next")
    channel = flowing(harbour, writer=harbour.owner, reader=harbour.user)
    harbour.user.call("tide::next")
    absent(harbour, harbour.owner)
    assert not harbour.outcomes()
    assert harbour.user.hears()[-1]["error"]["code"] == "invocation_stopped"
    assert harbour.hub.registry.find("default", "tide::next") is None
    harbour.wait(9.9)
    assert not harbour.outcomes()
    harbour.wait(0.1)
    assert harbour.outcomes() == [(channel.id, Outcome.WRITER_LOST)]
    assert not harbour.hub.state.lost_sessions


def test_C4_6_a_worker_that_comes_back_with_its_token_takes_over_what_it_owned_and_held() -> None:
    harbour = graceful()
    channel = flowing(harbour, writer=harbour.owner)
    other = harbour.create(by=harbour.user)
    harbour.attach(other, Direction.READ, harbour.owner)
    token = absent(harbour, harbour.owner)
    back = harbour.connect()
    back.say({"type": "reattach", "previous_worker_id": harbour.owner.id, "reattach_token": token})
    harbour.wait(60)
    assert not harbour.outcomes()
    assert channel.owner == channel.writer == other.reader == back.id
    back.leave()
    assert sorted(harbour.outcomes()) == sorted([(channel.id, Outcome.WRITER_LOST), (other.id, Outcome.READER_LOST)])


def test_C4_6_a_wrong_token_takes_over_nothing_and_the_right_one_still_may() -> None:
    harbour = graceful()
    channel = flowing(harbour, writer=harbour.owner)
    token = absent(harbour, harbour.owner)
    thief = harbour.connect()
    thief.say({"type": "reattach", "previous_worker_id": harbour.owner.id, "reattach_token": "guessed"})
    assert channel.owner == harbour.owner.id
    back = harbour.connect()
    back.say({"type": "reattach", "previous_worker_id": harbour.owner.id, "reattach_token": token})
    assert channel.owner == back.id


def test_C4_6_a_worker_that_says_goodbye_is_not_waited_for() -> None:
    harbour = graceful()
    channel = flowing(harbour, writer=harbour.owner)
    harbour.owner.leave()
    assert harbour.outcomes() == [(channel.id, Outcome.WRITER_LOST)]


def test_C4_6_a_worker_back_before_its_loss_was_noticed_keeps_its_channels() -> None:
    harbour = graceful()
    channel = flowing(harbour, writer=harbour.owner)
    back = harbour.connect()
    token = harbour.owner.session.reattach_token
    back.say({"type": "reattach", "previous_worker_id": harbour.owner.id, "reattach_token": token})
    assert not harbour.outcomes() and channel.owner == channel.writer == back.id
    assert harbour.owner.id not in harbour.hub.sessions


def test_C4_6_a_worker_that_comes_back_is_told_of_the_ends_that_it_missed_if_it_understands_them() -> None:
    for features in ([FEATURE], []):
        harbour = graceful()
        harbour.owner.register("owner", features=features)
        gone, kept = flowing(harbour), flowing(harbour)
        token = absent(harbour, harbour.owner)
        harbour.take(gone, ChannelEvent.READER_CANCELLED, reason="enough")
        back = harbour.connect()
        back.hears()
        back.say({"type": "reattach", "previous_worker_id": harbour.owner.id, "reattach_token": token})
        told = {"type": "channelended", "channel_id": gone.id, "outcome": "reader_cancelled", "reason": "enough"}
        assert back.hears() == [told] * len(features)
        assert back.session.owned == {kept.id}


# --- the limits, against a model


def refusal(channels: int, per_session: int, sessions: int, opened: int, owned: int) -> str | None:
    """Why a worker with so many channels gets no other one (clause C1.5)."""
    kept, share = channels // 8, channels // sessions
    if owned >= per_session:
        return f"this worker owns {owned} open channels, as many as one may"
    if opened >= channels:
        return f"this engine has {opened} open channels, as many as it may"
    if opened >= channels - kept and owned >= share:
        return (
            f"{opened} of this engine's {channels} channels are open. The last {kept} are kept for workers that own "
            f"fewer than {share}; this one owns {owned}"
        )
    return None


@pytest.mark.parametrize(
    ("channels", "per_session", "sessions"),
    [(16, 99, 1), (16, 99, 2), (16, 3, 2), (16, 99, 3), (7, 99, 2), (24, 99, 4), (8, 8, 2), (27, 99, 2)],
)
def test_C1_5_a_worker_gets_a_channel_at_every_count_at_which_the_limits_allow_it(
    channels: int, per_session: int, sessions: int
) -> None:
    for owned in range(channels + 1):
        harbour = Harbour(EngineConfig(limits=Limits(channels=channels, channels_per_session=per_session)))
        # Modules take no share of a worker.
        module = harbour.join("module", in_process=True)
        harbour.user.leave()
        workers = [harbour.owner, *(harbour.join(f"more {number}") for number in range(sessions - 1))]
        filled = 0
        while filled < owned and harbour.owner.ask("engine::channels::create").get("writer"):
            filled += 1
        while True:
            opened, mine = len(harbour.hub.channels), [len(worker.session.owned) for worker in workers]
            for worker, count in zip(workers, mine, strict=True):
                expected = refusal(channels, per_session, sessions, opened, count)
                if expected is not None:
                    error = worker.ask("engine::channels::create")
                    assert error["message"] == f"{expected}: end some first"
                    assert error["code"] == "channel_limit_reached"
            if opened == channels:
                break
            harbour.create(module)
        assert filled == owned or refusal(channels, per_session, sessions, filled, filled) is not None


def test_C1_5_a_limit_that_a_reload_lowered_holds_for_the_next_channel() -> None:
    for limits in (Limits(channels=8), Limits(channels_per_session=2), Limits(channels=1)):
        harbour = Harbour()
        for _ in range(9):
            harbour.create()
        harbour.hub.reconfigure(EngineConfig(limits=limits))
        assert harbour.owner.ask("engine::channels::create")["code"] == "channel_limit_reached"
        assert harbour.user.ask("engine::channels::create").get("code") == (
            "channel_limit_reached" if limits.channels < 9 else None
        )


def test_an_embedding_program_may_bound_the_channels_of_one_session() -> None:
    harbour = Harbour()
    bounded = harbour.connect(max_channels=1)
    harbour.create(bounded)
    assert bounded.ask("engine::channels::create")["code"] == "channel_limit_reached"


def test_a_session_holds_an_end_until_that_end_is_over() -> None:
    harbour = Harbour()
    channel = flowing(harbour, writer=harbour.user, reader=harbour.user)
    session = harbour.user.session
    assert (session.held_writers, session.held_readers) == ({channel.id}, {channel.id})
    harbour.take(channel, ChannelEvent.WRITER_CLOSED)
    assert (session.held_writers, session.held_readers) == (set(), {channel.id})
    harbour.take(channel, ChannelEvent.READER_FINISHED)
    assert (session.held_writers, session.held_readers, harbour.owner.session.owned) == (set(), set(), set())


def test_a_channel_that_is_used_for_long_leaves_few_entries_in_the_timetable() -> None:
    harbour = Harbour(EngineConfig(channels=ChannelDefaults(expires_after_seconds=1000)))
    for _ in range(500):
        ended = harbour.create()
        harbour.attach(ended, Direction.WRITE)
        harbour.take(ended, ChannelEvent.WRITER_LOST)
        assert len(harbour.hub.channels.due) <= 64 + 4
    waiting = harbour.create()
    harbour.attach(waiting, Direction.WRITE)
    for _ in range(200):
        ended = harbour.create()
        harbour.attach(ended, Direction.WRITE)
        harbour.take(ended, ChannelEvent.WRITER_LOST)
    harbour.wait(1000)
    assert harbour.outcomes()[-1] == (waiting.id, Outcome.EXPIRED)


@pytest.mark.parametrize("roles", [*itertools.product(["before", "lost", "after"], repeat=3)], ids="-".join)
def test_C4_6_a_worker_that_comes_back_takes_over_its_own_roles_and_no_others(roles: tuple[str, str, str]) -> None:
    harbour = graceful()
    peers = {name: harbour.join(name) for name in ("before", "lost", "after")}
    owner, writer, reader = (peers[role] for role in roles)
    channel = harbour.create(by=owner)
    harbour.attach(channel, Direction.WRITE, writer)
    harbour.attach(channel, Direction.READ, reader)
    token = absent(harbour, peers["lost"])
    back = harbour.connect()
    back.say({"type": "reattach", "previous_worker_id": peers["lost"].id, "reattach_token": token})
    now = {**peers, "lost": back}
    assert (channel.owner, channel.writer, channel.reader) == tuple(now[role].id for role in roles)
    for name, peer in now.items():
        held = (peer.session.owned, peer.session.held_writers, peer.session.held_readers)
        assert held == tuple({channel.id} if role == name else set() for role in roles)


@pytest.mark.parametrize("known", ["connected", "lost", "wrong token", "unknown"])
def test_a_worker_that_comes_back_as_nobody_known_is_a_line_in_the_log(known: str) -> None:
    harbour = graceful()
    flowing(harbour)
    owner = harbour.owner.session
    if known in ("lost", "wrong token"):
        absent(harbour, harbour.owner)
    token = "guessed" if known == "wrong token" else owner.reattach_token
    harbour.effects.clear()
    back = harbour.connect()
    worker_id = "nobody" if known == "unknown" else owner.id
    back.say({"type": "reattach", "previous_worker_id": worker_id, "reattach_token": token})
    said = [each.message for each in harbour.effects if isinstance(each, Log)]
    is_unknown = known in ("unknown", "wrong token")
    assert any("comes back as one that is gone already, or has another token" in line for line in said) is is_unknown
    assert any("is back as" in line for line in said) is (known in ("connected", "lost"))
    assert bool(back.session.owned) is not is_unknown
