"""All lanes: when one is made, found, looked at and dropped."""

from __future__ import annotations

from iii_trio import QueueConfig, QueueSettings
from iii_trio.triggers.queue.lane import Lane
from iii_trio.triggers.queue.lane_key import LaneKey
from iii_trio.triggers.queue.lanes import Lanes
from iii_trio.triggers.queue.states import JobState
from tests.queue.ledgers import in_lane

ORDERS = LaneKey("topic", "orders", "default", "f")
OTHERS = LaneKey("topic", "orders", "default", "g")


def lanes_of(**queues: QueueSettings) -> tuple[Lanes, list[Lane]]:
    lanes, dropped = Lanes(), list[Lane]()
    lanes.on_drop = dropped.append
    lanes.reconfigure(QueueConfig(queues))
    return lanes, dropped


def test_a_lane_is_made_once() -> None:
    lanes, _ = lanes_of()
    lane = lanes.open(ORDERS, QueueSettings(concurrency=3))
    assert lanes.open(ORDERS, QueueSettings()) is lane and lane.settings.concurrency == 3
    assert lanes.get(ORDERS.text) is lane and lanes.get("none") is None
    assert lanes.open(OTHERS).settings == QueueSettings()
    assert [one.key.name for one in lanes] == ["default", "orders", "orders"]


def test_a_name_is_looked_for_as_the_kind_that_was_asked_and_then_as_the_other() -> None:
    lanes, _ = lanes_of(both=QueueSettings(), mail=QueueSettings())
    both, mail = lanes.queue("both"), lanes.queue("mail")
    topic = lanes.remember(LaneKey("topic", "both", "default", "f"), QueueSettings(), None)
    orders = [lanes.remember(key, QueueSettings(), None) for key in (ORDERS, OTHERS)]
    assert lanes.find("both", None) == [both] and lanes.find(None, "both") == [topic]
    assert lanes.find("mail", None) == [mail] and lanes.find(None, "mail") == [mail]
    assert lanes.find("orders", None) == orders == lanes.find(None, "orders") == lanes.topic("orders")
    assert lanes.find("none", None) == lanes.find(None, None) == lanes.find("", "") == lanes.topic("none") == []
    assert lanes.find("mail", "orders") == [mail], "a queue, where both are given"


def test_a_queue_that_is_configured_no_more_stays_for_its_jobs_under_its_settings() -> None:
    lanes, dropped = lanes_of(mail=QueueSettings(concurrency=3), empty=QueueSettings())
    mail = lanes.queue("mail")
    assert mail is not None
    job = in_lane(mail, 1)
    lanes.reconfigure(QueueConfig())
    assert lanes.queue("mail") is None and lanes.queue("empty") is None
    assert [lane.key.name for lane in dropped] == ["empty"]
    assert lanes.find("mail", None) == [mail] and mail.settings.concurrency == 3 and not mail.known
    lanes.reconfigure(QueueConfig({"mail": QueueSettings(concurrency=4)}))
    assert lanes.queue("mail") is mail and mail.settings.concurrency == 4 and mail.known
    lanes.reconfigure(QueueConfig())
    mail.leave(job)
    mail.state_counts.clear()
    lanes.drop_if_empty(mail)
    lanes.drop_if_empty(mail)
    assert lanes.find("mail", None) == [] and dropped[1:] == [mail], "it is dropped once"


def test_a_subscriber_is_none_of_the_queues_that_are_configured_or_dropped() -> None:
    lanes, dropped = lanes_of(both=QueueSettings())
    both = lanes.queue("both")
    topic = lanes.remember(LaneKey("topic", "both", "default", "f"), QueueSettings(), None)
    orders = lanes.remember(ORDERS, QueueSettings(), None)
    lanes.reconfigure(QueueConfig({"both": QueueSettings()}))
    assert topic.known and orders.known and dropped == []
    lanes.forget(topic)
    assert dropped == [topic] and lanes.queue("both") is both and lanes.topic("both") == []


def test_a_configured_queue_is_looked_at_for_more_may_run_now() -> None:
    lanes, _ = lanes_of(mail=QueueSettings(concurrency=1))
    mail = lanes.queue("mail")
    assert mail is not None
    in_lane(mail, 1)
    mail.running = 1
    lanes.wake(mail)
    assert lanes.next_awake() is None
    lanes.reconfigure(QueueConfig({"mail": QueueSettings(concurrency=2)}))
    assert lanes.next_awake() is mail and lanes.next_awake() is None


def test_a_subscriber_has_the_settings_and_the_condition_of_its_last_binding() -> None:
    lanes, _ = lanes_of()
    lane = lanes.remember(ORDERS, QueueSettings(concurrency=2), "wanted")
    lane.known = False
    assert lanes.remember(ORDERS, QueueSettings(concurrency=3), None) is lane
    assert (lane.settings.concurrency, lane.condition, lane.known) == (3, None, True)


def test_a_subscriber_that_comes_is_looked_at_and_one_that_goes_is_not() -> None:
    lanes, _ = lanes_of()
    lane = lanes.remember(ORDERS, QueueSettings(), None)
    in_lane(lane, 1)
    lanes.wake(lane)
    assert lanes.next_awake() is None
    lanes.listen(lane, 1)
    assert lane.listeners == 1 and lanes.next_awake() is lane
    lanes.listen(lane, 1)
    lanes.listen(lane, -1)
    assert lane.listeners == 1
    lanes.listen(lane, -1)
    assert lane.listeners == 0 and lanes.get(lane.text) is lane, "it is remembered"


def test_a_forgotten_subscriber_goes_with_its_last_job_and_its_last_binding() -> None:
    lanes, dropped = lanes_of()
    lane, other = (lanes.remember(key, QueueSettings(), None) for key in (ORDERS, OTHERS))
    lanes.listen(lane, 1)
    lanes.forget(lane)
    assert not lane.known and dropped == []
    lanes.listen(lane, -1)
    assert dropped == [lane] and lanes.topic("orders") == [other] and lanes.get(lane.text) is None
    lanes.forget(other)
    assert lanes.topic("orders") == [] and dropped == [lane, other]
    assert list(lanes) == lanes.find("default", None)
    assert lanes._topics == {}  # a topic without subscribers is no memory that grows; nobody sees it otherwise


def test_a_lane_with_dead_letters_or_with_jobs_on_their_way_is_not_dropped() -> None:
    lanes, dropped = lanes_of()
    lane = lanes.remember(ORDERS, QueueSettings(), None)
    job = in_lane(lane, 1)
    lanes.forget(lane)
    lane.jobs.clear()
    lane.state_counts.clear()
    lane.dead[1] = job
    lanes.drop_if_empty(lane)
    lane.dead.clear()
    lane.state_counts[JobState.STORING] = 1
    lanes.drop_if_empty(lane)
    assert dropped == []
    lane.state_counts[JobState.STORING] = 0
    lanes.drop_if_empty(lane)
    assert dropped == [lane]


def test_a_dropped_lane_is_not_looked_at() -> None:
    lanes, dropped = lanes_of(mail=QueueSettings())
    mail = lanes.queue("mail")
    assert mail is not None
    job = in_lane(mail, 1)
    lanes.wake(mail)
    mail.leave(job)
    mail.state_counts.clear()
    lanes.reconfigure(QueueConfig())
    assert dropped == [mail] and lanes.next_awake() is None


def test_the_lanes_of_a_subscriber_are_looked_at_when_its_function_comes() -> None:
    lanes, _ = lanes_of(mail=QueueSettings())
    mail = lanes.queue("mail")
    assert mail is not None
    keys = (ORDERS, OTHERS, LaneKey("topic", "bills", "default", "f"), LaneKey("topic", "bills", "other", "f"))
    made = [lanes.remember(key, QueueSettings(), None) for key in keys]
    for number, lane in enumerate([mail, *made]):
        lane.listeners = 1
        in_lane(lane, number)
    lanes.wake_subscribers(("default", "f"))
    assert {lanes.next_awake(), lanes.next_awake()} == {made[0], made[2]} and lanes.next_awake() is None


def test_held_jobs_of_all_lanes_are_released() -> None:
    lanes, _ = lanes_of(mail=QueueSettings(), other=QueueSettings(), third=QueueSettings())
    mail, other = lanes.queue("mail"), lanes.queue("other")
    assert mail is not None and other is not None
    for lane in (mail, other):
        in_lane(lane, 1)
        job = lane.pop()
        assert job is not None
        lane.held.append(job)
    assert not mail.may_start
    lanes.release_held()
    assert {lanes.next_awake(), lanes.next_awake()} == {mail, other} and lanes.next_awake() is None
    assert mail.held == other.held == []
