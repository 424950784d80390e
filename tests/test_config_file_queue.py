"""The queue in the configuration file: what each word means, and the exact sentence for everything that cannot be used."""

from __future__ import annotations

from pathlib import Path

import attrs
import pytest

from iii_trio.cli.data import is_default, with_data
from iii_trio.config.file import ConfigFile, parse_config
from iii_trio.errors import ConfigError
from iii_trio.triggers.queue.settings import QueueConfig, QueueSettings
from iii_trio.triggers.table import MODULES

WRONG = {
    "an unknown key": (
        "config: { queues: {} }",
        "unknown key `queues` in `config` of iii-queue; did you mean `queue_configs`?",
    ),
    "an unknown key of ours": (
        "iii-trio: { date: x }",
        "unknown key `date` in `iii-trio` of iii-queue; did you mean `data`?",
    ),
    "a list of queues": ("config: { queue_configs: [] }", "`queue_configs` is a list; make it keys and values"),
    "a queue that is no keys": ("config: { queue_configs: { mail: 3 } }", "`mail` is 3; make it keys and values"),
    "an unknown key of a queue": (
        "config: { queue_configs: { mail: { concurency: 3 } } }",
        "unknown key `concurency` of queue 'mail'; did you mean `concurrency`?",
    ),
    "an unknown key of a queue of ours": (
        "iii-trio: { queues: { mail: { max_atempts: 3 } } }",
        "unknown key `max_atempts` of queue 'mail'; did you mean `max_attempts`?",
    ),
    "no concurrency": (
        "config: { queue_configs: { mail: { concurrency: 0 } } }",
        "Queue 'mail' has 'concurrency' 0; it must be at least 1",
    ),
    "half a job at a time": (
        "config: { queue_configs: { mail: { concurrency: 0.5 } } }",
        "`concurrency` is 0.5; give a whole number, at least 1",
    ),
    "a type that is none": (
        "config: { queue_configs: { mail: { type: lifo } } }",
        '`type` is "lifo"; give `standard` or `fifo`',
    ),
    "fifo without groups": (
        "config: { queue_configs: { mail: { type: fifo } } }",
        "FIFO queue 'mail' requires 'message_group_field' to be configured; name the member of its jobs' data that says "
        "their group (`group_by` under `iii-trio`)",
    ),
    "groups that are nowhere": (
        "iii-trio: { queues: { mail: { group_by: account } } }",
        "queue 'mail': 'group_by' says how a fifo queue is grouped: set 'fifo' too, or leave it out",
    ),
    "negative retries": (
        "config: { queue_configs: { mail: { max_retries: -1 } } }",
        "`max_retries` is -1; give a whole number, at least 0",
    ),
    "no attempts": (
        "iii-trio: { queues: { mail: { max_attempts: 0 } } }",
        "`queues.mail.max_attempts` is 0; it must be >= 1",
    ),
    "a delay that no clock has": (
        "iii-trio: { queues: { mail: { delay_seconds: 1e300 } } }",
        "`queues.mail.delay_seconds` is 1e+300; it must be <= 1000000000",
    ),
    "a back-off that no clock has": (
        "config: { queue_configs: { mail: { backoff_ms: 10000000000000 } } }",
        "`backoff_ms` is 10000000000000; give a whole number of milliseconds, at most 1000000000000",
    ),
    "a back-off that is none": (
        "iii-trio: { queues: { mail: { backoff: linear } } }",
        '`queues.mail.backoff` is "linear"; give `exponential` or `fixed`',
    ),
    "a pause in words": (
        "config: { queue_configs: { mail: { backoff_ms: soon } } }",
        '`backoff_ms` is "soon"; give a whole number of milliseconds, at least 0',
    ),
    "a flag in words": (
        "iii-trio: { queues: { mail: { fifo: 'yes' } } }",
        '`queues.mail.fifo` is "yes"; give true or false',
    ),
    "a name that is a number": (
        "config: { queue_configs: { 7: {} } }",
        "a queue's name is 7; give a string (in quotes, if it looks otherwise)",
    ),
    "a name that is empty": (
        "iii-trio: { queues: { '': {} } }",
        'a queue\'s name is ""; give a string (in quotes, if it looks otherwise)',
    ),
    "another adapter": (
        "config: { adapter: { name: redis } }",
        "the queue's adapter `redis` is not part of this engine; make it `builtin`, or leave `adapter` out",
    ),
    "an unknown key of the adapter": (
        "config: { adapter: { name: builtin, config: { redis_url: x } } }",
        "unknown key `redis_url` in `adapter.config`; known are store_method, file_path, save_interval_ms",
    ),
    "a store that is none": (
        "config: { adapter: { name: builtin, config: { store_method: disk } } }",
        '`store_method` is "disk"; give `file_based` or `in_memory`',
    ),
    "half enabled": ("iii-trio: { enabled: 1 }", "`enabled` is 1; give true or false"),
    "no place": ("iii-trio: { data: '' }", '`data` is ""; give a directory, `memory`, or `mesh`'),
    "hardly synchronous": (
        "iii-trio: { synchronous: sometimes }",
        '`synchronous` is "sometimes"; give `full`, `normal` or `off`',
    ),
    "room for nothing": ("iii-trio: { jobs: 0 }", "`jobs` is 0; it must be > 0"),
}


def parse(said: str, name: str = "iii-queue") -> ConfigFile:
    return parse_config(f"workers:\n  - name: {name}\n    {said}\n", "c.yaml", {}, modules=MODULES)


def queues(said: str) -> dict[str, QueueSettings]:
    """The queues that are configured so, without the one that is always there."""
    config = parse(said).config.modules["queue"]
    assert config is not None
    return {name: settings for name, settings in config.queues.items() if name != "default"}


@pytest.mark.parametrize(("said", "sentence"), WRONG.values(), ids=WRONG)
def test_what_cannot_be_used_is_named_with_its_line_and_its_mend(said: str, sentence: str) -> None:
    with pytest.raises(ConfigError) as raised:
        parse(said)
    assert str(raised.value) == f"c.yaml:3: {sentence}"


def test_the_line_is_that_of_the_key() -> None:
    with pytest.raises(ConfigError, match=r"^c\.yaml:6: `backoff_ms`"):
        parse("config:\n      queue_configs:\n        mail:\n          backoff_ms: x")


@pytest.mark.parametrize("name", ["iii-queue", "queue"])
def test_an_entry_that_says_nothing_is_the_default(name: str) -> None:
    found = parse("config:", name)
    assert found == ConfigFile(found.config) and found.config.modules["queue"] == QueueConfig()


def test_the_words_of_the_wire() -> None:
    assert queues(
        "config: { queue_configs: { ledger: { type: fifo, message_group_field: account, max_retries: 5 }, "
        "mail: { message_group_field: , concurrency: '4', backoff_ms: 2000, type: standard, max_retries: } } }"
    ) == {
        "ledger": QueueSettings(max_attempts=5, fifo=True, group_by="account"),
        "mail": QueueSettings(concurrency=4, backoff_seconds=2.0),
    }


@pytest.mark.parametrize(("retries", "calls"), [(0, 1), (1, 1), (2, 2), (3, 3)])
def test_max_retries_are_calls_in_all_and_at_least_one(retries: int, calls: int) -> None:
    found = queues(f"config: {{ queue_configs: {{ mail: {{ max_retries: {retries} }} }} }}")
    assert found["mail"].max_attempts == calls


def test_everything_of_a_queue_can_be_said_in_our_words() -> None:
    settings = QueueSettings(
        max_attempts=9, concurrency=2, fifo=True, group_by="account", backoff_seconds=0.5, backoff="fixed",
        max_backoff_seconds=60.0, visibility_timeout_seconds=30.0, delay_seconds=1.0, max_lost_deliveries=1,
        missing_function_seconds=60.0, max_jobs=5, overrun_factor=3.0, dead_letters=0,
    )  # fmt: skip
    lines = [
        f"{key}: {'null' if value is None else str(value).lower()}" for key, value in attrs.asdict(settings).items()
    ]
    assert all(getattr(settings, field.name) != field.default for field in attrs.fields(QueueSettings)), (
        "a new setting?"
    )
    assert queues(f"iii-trio: {{ queues: {{ mail: {{ {', '.join(lines)} }} }} }}") == {"mail": settings}


def test_our_words_win_over_the_wires() -> None:
    both = "config: { queue_configs: { mail: { max_retries: 5, concurrency: 4 } } }\n    "
    assert queues(both + "iii-trio: { queues: { mail: { max_attempts: 7 }, more: } }") == {
        "mail": QueueSettings(max_attempts=7, concurrency=4),
        "more": QueueSettings(),
    }
    group = "config: { queue_configs: { mail: { message_group_field: a } } }\n    "
    found = queues(group + "iii-trio: { queues: { mail: { fifo: true } } }")
    assert found == {"mail": QueueSettings(fifo=True, group_by="a")}


def test_the_whole_queue_can_be_bounded_or_be_none() -> None:
    found = parse("iii-trio: { synchronous: off, jobs: 7, memory_bytes: 0, disk_bytes: 9 }").config.modules["queue"]
    assert found == QueueConfig(synchronous="off", jobs=7, memory_bytes=0, disk_bytes=9)
    found = parse("iii-trio: { max_away_seconds: null, max_away_jobs: 8 }").config.modules["queue"]
    assert found == QueueConfig(max_away_seconds=None, max_away_jobs=8)
    assert parse("iii-trio: { enabled: false }").config.modules["queue"] is None


@pytest.mark.parametrize(
    ("said", "place"),
    [
        ("config: {}", None),
        ("config: { adapter: { name: builtin } }", None),
        ("config: { adapter: { config: { store_method: in_memory } } }", "memory"),
        ("config: { adapter: { config: { store_method: file_based } } }", "kv_store_data.db"),
        ("config: { adapter: { config: { store_method: file_based, file_path: ./q } } }", "./q"),
        ("iii-trio: { data: memory }", "memory"),
        ("iii-trio: { data: /var/q }", "/var/q"),
        ("config: { adapter: { config: { store_method: in_memory } } }\n    iii-trio: { data: /var/q }", "/var/q"),
    ],
)
def test_where_jobs_are_kept(said: str, place: str | None) -> None:
    found = parse(said)
    assert found.data.get("queue") == place
    assert found.config.modules["queue"].directory == (None if place == "memory" else place)


def test_a_home_directory_may_be_written_short(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    found = parse("iii-trio: { data: ~/jobs }").config.modules["queue"]
    assert found is not None and found.directory == str(tmp_path / "jobs")


@pytest.mark.parametrize(
    ("said", "warning"),
    [
        (
            "config: { queue_configs: { mail: { poll_interval_ms: 10 } } }",
            "`poll_interval_ms` of queue 'mail' has no effect: nothing is polled here; remove it",
        ),
        (
            "config: { queue_configs: { mail: { max_priority: 3 } } }",
            "`max_priority` of queue 'mail' has no effect: `enqueue` gives each job its priority; remove it",
        ),
        (
            "config: { queue_configs: { mail: { priority_field: p } } }",
            "`priority_field` of queue 'mail' has no effect: `enqueue` gives each job its priority; remove it",
        ),
        (
            "config: { queue_configs: { mail: { message_group_field: account } } }",
            "`message_group_field` of queue 'mail' has no effect without `type: fifo`; set the type, or remove it",
        ),
        (
            "config: { adapter: { config: { save_interval_ms: 10 } } }",
            "`save_interval_ms` has no effect: each job is saved before it is acknowledged; remove it",
        ),
        (
            "config: { adapter: { config: { file_path: q } } }",
            "`file_path` has no effect without `store_method: file_based`; set it, too",
        ),
    ],
)
def test_what_has_no_effect_is_a_warning(said: str, warning: str) -> None:
    assert parse(said).warnings == (f"c.yaml:3: {warning}",)


def test_there_is_one_entry_of_the_queue() -> None:
    with pytest.raises(ConfigError) as raised:
        parse_config("workers:\n  - name: queue\n  - name: iii-queue\n", "c.yaml", {}, modules=MODULES)
    assert str(raised.value) == "c.yaml:3: `iii-queue` is the queue a second time; put all its settings at line 2"


@pytest.mark.parametrize("option", [None, "memory", "/var/lib/elsewhere"])
def test_the_queues_of_a_mesh_stay_there_whatever_the_directory(option: str | None) -> None:
    found = parse("iii-trio: { data: mesh }")
    config = with_data(found.config, option, found.data)
    assert config.modules["queue"] == QueueConfig(in_mesh=True)
    assert not is_default(config)


def test_the_command_line_puts_the_queues_into_the_mesh() -> None:
    config = with_data(parse("iii-trio: { data: /var/lib/elsewhere }").config, "mesh", {})
    assert config.modules["queue"] == QueueConfig(in_mesh=True)
