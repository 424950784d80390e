"""The gate through which everything passes that other nodes have written to the store.

A node of another version, a person or a defect may have written anything. A row that cannot be used is left out, with the
reason why, and ends nothing else. A row that has passed can be read again without an error (`read_row`).

`read_nodes`, `read_offers` and `read_line` read the texts of the store. `find_odd` judges one row of a node.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Annotated, Any, Final, final

import msgspec

from ...errors import MisuseError
from ...wire import MAX_NAME, Description, Name, why_unreadable
from ...worker.http_method import check_binding
from .records import BINDING, FUNCTION, TRIGGER_TYPE, WORKER, Changes, Entry, EntryKind, Key, Node, Odd, Offer

MAX_ROW_BYTES: Final = 4 * 1024 * 1024
"""Bytes of a row. Longer ones would hold up every node, and are near the largest message that an engine takes."""
_NODE_NAME: Final = re.compile(r"[A-Za-z0-9_-]{1,64}")
"""As in `ClusterConfig.node`. The ids of channels end with such a name."""
_LONGEST: Final = 200
"""Characters of a text of another node in a log."""
_TOO_DEEP: Final = "nested too deeply"


class FunctionRow(msgspec.Struct):
    """The row of a function."""

    worker: str | None = None
    description: Description | None = None
    metadata: Any = None
    request_format: Any = None
    response_format: Any = None


class TriggerTypeRow(msgspec.Struct):
    """The row of a trigger type."""

    worker: str | None = None
    description: Description | None = None
    trigger_request_format: Any = None
    call_request_format: Any = None


class BindingRow(msgspec.Struct):
    """The row of a binding."""

    trigger_type: Name
    function_id: Name
    config: Any = None
    metadata: Any = None
    trigger_namespace: Name | None = None


class WorkerRow(msgspec.Struct):
    """The fields of a worker's row that every list of workers reads."""

    id: str
    name: str | None = None
    description: str | None = None
    runtime: str | None = None
    status: str | None = None


class NameRow(msgspec.Struct):
    """The row of a worker's name."""

    worker: str = "unknown"


_DECODERS: Final[dict[str, msgspec.json.Decoder[Any]]] = {
    FUNCTION: msgspec.json.Decoder(FunctionRow),
    TRIGGER_TYPE: msgspec.json.Decoder(TriggerTypeRow),
    BINDING: msgspec.json.Decoder(BindingRow),
    WORKER: msgspec.json.Decoder(WorkerRow),
}
_name: Final = msgspec.json.Decoder(NameRow)
_fields: Final = msgspec.json.Decoder(dict[str, Any])


def find_odd(node: str, key: Key, row: bytes) -> Odd | None:
    """Return the reason why a row of a node is left out, or None. Rows of unknown kinds are not read."""
    why = _why_odd(key, row)
    return _odd(node, key.text, why) if why else None


def _why_odd(key: Key, row: bytes) -> str:
    if len(row) > MAX_ROW_BYTES:
        return f"it has {len(row)} bytes; at most {MAX_ROW_BYTES} are read"
    if max(len(key.namespace), len(key.id)) > MAX_NAME:
        return f"its namespace or id is longer than {MAX_NAME} characters"
    if not key.namespace.strip():
        return "its namespace is empty"
    # Names are not among them, because whoever holds one is asked itself.
    decoder = _DECODERS.get(key.kind)
    if decoder is None:
        return ""
    try:
        read = decoder.decode(row)
        # Lists show all fields of a worker, also those that the struct does not have.
        if key.kind == WORKER:
            _fields.decode(row)
        if key.kind == BINDING:
            check_binding(read.trigger_type, read.config)
        return why_unreadable(row) or ""
    except RecursionError:
        return _TOO_DEEP
    except (ValueError, MisuseError) as error:
        return str(error)


def read_row(key: Key, row: bytes) -> Any:
    """Return the struct of a row that has passed the gate."""
    return _DECODERS[key.kind].decode(row)


def read_name(row: bytes) -> NameRow:
    """Return the struct of a name's row, or its defaults. That the name is taken does not depend on the row."""
    try:
        return _name.decode(row)
    except (ValueError, RecursionError):
        return NameRow()


def read_fields(row: bytes) -> dict[str, Any]:
    """Return all fields of a row that has passed the gate."""
    return _fields.decode(row)


# --- the texts of the store


class _NodeRecord(msgspec.Struct):
    address: Name
    fence: Annotated[int, msgspec.Meta(ge=1)]
    version: Name = ""
    links: tuple[int, int] = (1, 1)  # of a node that does not say so yet


_node: Final = msgspec.json.Decoder(_NodeRecord, strict=False)  # Lua writes some numbers as texts
_changes: Final = msgspec.json.Decoder(list[Any])


def _read_node(name: bytes, record: bytes) -> Node:
    """Read one node. Raises ValueError."""
    try:
        read = _node.decode(record)
    except RecursionError:
        raise ValueError(_TOO_DEEP) from None
    text = name.decode()
    if not _NODE_NAME.fullmatch(text):
        raise ValueError("the name of a node has 1 to 64 letters, digits, `-` and `_`")
    return Node(text, read.address, read.fence, read.version, read.links)


def read_nodes(pairs: Iterable[tuple[bytes, bytes]]) -> tuple[dict[str, Node], list[Odd]]:
    """Read the nodes of a mesh, and the odd ones."""
    nodes: dict[str, Node] = {}
    odd: list[Odd] = []
    for name, record in pairs:
        try:
            node = _read_node(name, record)
        except ValueError as error:
            odd.append(_odd(name, "its record", error))
        else:
            nodes[node.name] = node
    return nodes, odd


def read_offers(node: str, pairs: Iterable[tuple[bytes, bytes]]) -> tuple[dict[Key, Offer], list[Odd]]:
    """Read the rows of one node with their keys, and those that have no key or place. The rows are judged by `why_odd`."""
    offers: dict[Key, Offer] = {}
    odd: list[Odd] = []
    for key, stored in pairs:
        since, space, row = stored.partition(b" ")
        try:
            if not space:
                raise ValueError("it has no number of a line")
            offers[Key.parse(key)] = Offer(int(since), row)
        except ValueError as error:
            odd.append(_odd(node, key, error))
    return offers, odd


def read_line(line_id: bytes, fields: Iterable[Iterable[bytes]]) -> Entry:
    """Read a line of the log. One that cannot be read has the kind UNREADABLE, and its number if it has one."""
    try:
        values: dict[bytes, bytes] = dict(fields)  # type: ignore[arg-type]
    except (TypeError, ValueError) as error:
        return _unreadable(0, line_id, error)
    try:
        number = int(values[b"number"])
    except (KeyError, ValueError):
        return _unreadable(0, line_id, "it has no number")
    try:
        return _read_line(number, values)
    except KeyError as missing:
        return _unreadable(number, line_id, f"it has no {missing}")
    except RecursionError:
        return _unreadable(number, line_id, _TOO_DEEP)
    except ValueError as error:
        return _unreadable(number, line_id, error)


def _read_line(number: int, values: dict[bytes, bytes]) -> Entry:
    """Read a line. Raises KeyError and ValueError."""
    name, body = values[b"node"], values[b"body"]
    kind = EntryKind(values[b"kind"].decode())
    if kind is EntryKind.JOINED:
        return Entry(number, kind, _read_node(name, body))
    fence = int(values[b"fence"])
    if kind is EntryKind.UNREADABLE or fence < 1:
        raise ValueError(f"a line of kind {kind.value} with the fencing number {fence}")
    node = Node(name.decode(), "", fence)
    if kind is not EntryKind.OFFERS:
        return Entry(number, kind, node)
    changes, odd = _read_changes(node.name, _changes.decode(body))
    return Entry(number, kind, node, changes, odd)


def _read_changes(node: str, pairs: list[Any]) -> tuple[Changes, list[Odd]]:
    """Read the changes of one line. The others count where one is odd."""
    changes: dict[Key, bytes | None] = {}
    odd: list[Odd] = []
    for pair in pairs:
        try:
            text, row = pair
            key = Key.parse(text)
            if row is not False and not isinstance(row, str):
                raise ValueError("the row is not text")
            changes[key] = None if row is False else row.encode()
        except (TypeError, ValueError) as error:
            odd.append(_odd(node, str(pair), error))
    return changes, odd


def _unreadable(number: int, line_id: bytes, why: object) -> Entry:
    return Entry(number, EntryKind.UNREADABLE, Node("", "", 0), odd=[_odd("", b"line " + line_id, why)])


def _odd(node: str | bytes, key: str | bytes, why: object) -> Odd:
    return Odd(_shown(node), _shown(key), _shown(str(why)))


def _shown(text: str | bytes) -> str:
    """Return a text of anybody's in a form and length that fit into a log."""
    text = text[:_LONGEST]
    return ascii(text if isinstance(text, str) else text.decode(errors="backslashreplace"))[1:-1]


# --- what is said of them


@final
class OddRows:
    """Remembers which odd rows were told of, so that each is told of once."""

    def __init__(self, max_remembered: int = 1_000) -> None:
        self._told: dict[tuple[str, str], None] = {}
        self._max = max_remembered

    def new(self, odd: Iterable[Odd]) -> list[Odd]:
        """Return those that are new."""
        found = []
        for each in odd:
            if (each.node, each.key) not in self._told:
                found.append(each)
                self._told[each.node, each.key] = None
        while len(self._told) > self._max:
            del self._told[next(iter(self._told))]
        return found
