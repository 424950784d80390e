"""Objects of the core as plain data, and back.

Only the classes that are listed here are written and read, so that a file can make no other objects. An object that
several others refer to is written once. Plain data holds numbers, texts, bytes, booleans, None, and lists of these. A list
is a node, which begins with one letter for its kind.
"""

from __future__ import annotations

import types
from collections import Counter, OrderedDict, deque
from collections.abc import Mapping
from enum import Enum
from typing import Any, Final, TypeAlias

import attrs
import msgspec
from msgspec import Raw
from msgspec.structs import force_setattr

from ..config import ChannelDefaults, FunctionFilter, Limits, RbacConfig, Timeouts
from ..core.access import Access, Grants
from ..core.admission import Credentials
from ..core.binding import BINDING, BindingState, Provider, TriggerBinding
from ..core.call import CALL, Call, CallState
from ..core.channel import CHANNEL, Channel, ChannelEvent, ChannelState
from ..core.channels import ChannelResult
from ..core.event_queue import WorkerEvent
from ..core.reattach import LostSession
from ..core.registry import FUNCTION, Function, FunctionState
from ..core.session import SESSION, SessionState, WorkerSession
from ..core.worker_info import WorkerInfo
from ..errors import IIIError
from ..observed import CallFacts, ChannelFacts
from ..state_machine import StateMachine, Table
from ..wire import (
    ABSENT,
    Action,
    Direction,
    Outcome,
    RegisterFunction,
    RegisterService,
    RegisterTrigger,
    RegisterTriggerType,
    UnregisterFunction,
    UnregisterTrigger,
    UnregisterTriggerType,
)

Plain: TypeAlias = Any
"""Plain data, as the text above describes it."""

CLASSES: Final[Mapping[str, type]] = {
    cls.__name__: cls
    for cls in (
        Access, Action, Call, CallFacts, Channel, ChannelFacts, ChannelDefaults, ChannelResult, Credentials, Function,
        FunctionFilter, Grants, Limits, LostSession, Provider, RbacConfig, RegisterFunction, RegisterService,
        RegisterTrigger, RegisterTriggerType, Timeouts, TriggerBinding, UnregisterFunction, UnregisterTrigger,
        UnregisterTriggerType, WorkerEvent, WorkerInfo, WorkerSession,
    )
}  # fmt: skip
_ENUMS: Final[Mapping[str, type[Enum]]] = {cls.__name__: cls for cls in (ChannelEvent, Direction, Outcome)}
_MACHINES: Final[Mapping[str, tuple[Table[Any, Any], type[Enum]]]] = {
    "session": (SESSION, SessionState),
    "channel": (CHANNEL, ChannelState),
    "call": (CALL, CallState),
    "function": (FUNCTION, FunctionState),
    "binding": (BINDING, BindingState),
}
_NAME_OF_TABLE: Final = {id(table): name for name, (table, _) in _MACHINES.items()}
_SCALARS: Final = frozenset({type(None), bool, int, float, str, bytes})
_LISTS: Final[Mapping[type, str]] = {list: "l", tuple: "t", set: "s", frozenset: "f", deque: "q"}
_MAPPINGS: Final[Mapping[type, str]] = {dict: "d", types.MappingProxyType: "d", OrderedDict: "o", Counter: "c"}
_MAKE: Final[Mapping[str, Any]] = {letter: cls for cls, letter in _LISTS.items()}


class NotPlain(IIIError):
    """A value cannot be written as plain data, or plain data cannot be read."""


def fields_of(cls: type) -> tuple[str, ...]:
    """Return the names of the fields of a class that plain data can hold."""
    if issubclass(cls, msgspec.Struct):
        return cls.__struct_fields__
    described: Any = cls
    return tuple(field.name for field in attrs.fields(described))


_FIELDS: Final = {cls: fields_of(cls) for cls in CLASSES.values()}


class Writer:
    """Writes values as plain data. `objects` holds the objects that were met, in the order of their numbers."""

    def __init__(self) -> None:
        self.objects: list[Plain] = []
        self._numbers: dict[int, int] = {}
        self._kept: list[object] = []  # so that no number is given to a second object at the same address

    def write(self, value: Any) -> Plain:
        """Return a value as plain data. Raises NotPlain."""
        cls = type(value)
        if cls in _SCALARS:
            return value
        if (letter := _LISTS.get(cls)) is not None:
            # Sets have no order, and the same state has to be written alike.
            items = sorted(value, key=repr) if letter in "sf" else value
            return [letter, *map(self.write, items)]
        if (letter := _MAPPINGS.get(cls)) is not None:
            return [letter, *(self.write(part) for pair in value.items() for part in pair)]
        if cls in _FIELDS:
            return ["&", self._number_of(value)]
        if cls is Raw:
            return ["r", bytes(value)]
        # The table is known by its name, because it is a constant of the code.
        if cls is StateMachine:
            return ["m", _NAME_OF_TABLE[id(value.table)], value.current.name]
        if cls.__name__ in _ENUMS and isinstance(value, Enum):
            return ["e", cls.__name__, value.name]
        if isinstance(value, bytearray):
            return bytes(value)
        # A tuple with names is as good as one without, for a comparison.
        if isinstance(value, tuple):
            return self.write(tuple(value))
        # Subclasses of int and str come from enumerations of codes.
        for base in (str, int):
            if isinstance(value, base):
                return base(value)
        raise NotPlain(f"{cls.__name__} cannot be written as plain data")

    def _number_of(self, value: Any) -> int:
        number = self._numbers.get(id(value))
        # Objects that refer to each other would be written without end.
        if number is None:
            number = self._numbers[id(value)] = len(self.objects)
            self._kept.append(value)
            cls = type(value)
            self.objects.append(None)  # it may refer to itself
            self.objects[number] = [cls.__name__, *(self.write(getattr(value, name)) for name in _FIELDS[cls])]
        return number


class Reader:
    """Reads plain data. Raises NotPlain for what no Writer has written."""

    def __init__(self, objects: list[Plain]) -> None:
        self._made: list[Any] = []
        try:
            # All of them are made before they are filled, because they refer to each other.
            self._made = [_made_empty(CLASSES[node[0]]) for node in objects]
            for made, node in zip(self._made, objects, strict=True):
                fill = force_setattr if isinstance(made, msgspec.Struct) else object.__setattr__
                for name, value in zip(_FIELDS[type(made)], node[1:], strict=True):
                    fill(made, name, self.read(value))
        except NotPlain:
            raise
        except Exception as error:
            raise NotPlain(f"it holds an object that cannot be read ({type(error).__name__})") from None

    def read(self, node: Plain) -> Any:
        """Return the value that plain data stands for. Raises NotPlain."""
        # Everything but a list stands for itself.
        if not isinstance(node, list):
            return node
        try:
            letter, *rest = node
            match letter:
                case "&":
                    return self._made[rest[0]]
                case "d" | "o" | "c":
                    values = list(map(self.read, rest))
                    pairs = dict(zip(values[::2], values[1::2], strict=True))
                    return {"d": dict, "o": OrderedDict, "c": Counter}[letter](pairs)
                case "r":
                    # An absent field is one object, by which the encoder of messages knows it.
                    return Raw(rest[0]) if rest[0] else ABSENT
                case "m":
                    table, states = _MACHINES[rest[0]]
                    return StateMachine(table, states[rest[1]])
                case "e":
                    return _ENUMS[rest[0]][rest[1]]
                case _:
                    return _MAKE[letter](map(self.read, rest))
        except NotPlain:
            raise
        except Exception as error:
            raise NotPlain(f"it holds a value that cannot be read ({type(error).__name__})") from None


def _made_empty(cls: Any) -> Any:
    # msgspec makes no struct without its fields. The cycle collector looks at a struct only if a field of it might refer to
    # other objects when it is made, as a dict might, and `force_setattr` does not change that.
    return cls(**{name: {} for name in _FIELDS[cls]}) if issubclass(cls, msgspec.Struct) else cls.__new__(cls)


def write_one(value: Any) -> Plain:
    """Return a single value as plain data, with the objects that it refers to."""
    writer = Writer()
    node = writer.write(value)
    return [node, writer.objects] if writer.objects else [node]


def read_one(data: Plain) -> Any:
    """Return the value that `write_one` has written. Raises NotPlain."""
    if not isinstance(data, list) or not 1 <= len(data) <= 2:
        raise NotPlain("it holds no value")
    return Reader(data[1] if len(data) == 2 else []).read(data[0])
