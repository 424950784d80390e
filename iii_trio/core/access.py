"""What a session of a guarded listener may do. Every decision of the access rules is made here (protocol, section 8).

A session without an `Access` is not guarded and may do everything.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from enum import Enum, auto
from typing import Any, Final

import attrs
import msgspec
from msgspec import Raw

from ..config.rbac import FunctionFilter, RbacConfig, pattern_in
from ..records import frozen
from ..structure import BadShape, in_words, structure
from ..wire import ABSENT, DEFAULT_NAMESPACE, JsonValue, from_json

ALWAYS_ALLOWED: Final = frozenset(
    {
        "engine::channels::create",
        "engine::channels::end",
        "engine::workers::register",
        *(f"engine::log::{level}" for level in ("info", "warn", "error", "debug", "trace")),
        *(f"engine::baggage::{name}" for name in ("get", "set", "get_all")),
    }
)
"""The engine functions that every session may call, unless its auth function forbids them."""
_MAX_PREFIX: Final = 256
NO_RESULT: Final = "auth function returned no result"


class Decision(Enum):
    """The answer to whether a session may call a function."""

    ALLOWED = auto()
    FORBIDDEN = auto()  # the auth function's `forbidden_functions` names it
    NOT_EXPOSED = auto()  # no rule allows it


def _no_context() -> JsonValue:
    return {}


@frozen
class Grants:
    """What an auth function says about a session. The defaults are those for absent keys of its result."""

    namespaces: dict[str, list[str]] = attrs.field(factory=dict)
    """The grants of each namespace. If there are any, the session may declare no other namespace."""
    allowed_functions: list[str] = attrs.field(factory=list)
    forbidden_functions: list[str] = attrs.field(factory=list)
    allowed_trigger_types: list[str] | None = None
    """None: all."""
    allow_trigger_type_registration: bool = False
    allow_function_registration: bool = True
    function_registration_prefix: str | None = None
    context: Any = attrs.field(factory=_no_context)


WITHOUT_AUTH: Final = Grants(allow_trigger_type_registration=True)
"""The grants of a session where no auth function is configured."""


def read_grants(result: JsonValue) -> Grants:
    """Read the result of an auth function. Unknown keys are ignored. Raises BadShape, naming the field."""
    if result is None:
        raise BadShape("", NO_RESULT)
    # The structuring of mappings names no type in its error.
    namespaces = result.get("namespaces", {}) if isinstance(result, dict) else {}
    if not isinstance(namespaces, dict):
        raise BadShape("namespaces", f"expected an object, got {in_words(namespaces)}")
    grants: Grants = structure(result, Grants)
    prefix = grants.function_registration_prefix
    if prefix is not None and not 0 < len(prefix) <= _MAX_PREFIX:
        problem = f"expected a string of 1 to {_MAX_PREFIX} characters, got {len(prefix)}"
        raise BadShape("function_registration_prefix", problem)
    return grants


# --- patterns


def matches(pattern: str, text: str) -> bool:
    """Return whether a text fits a pattern, in which `*` stands for any characters."""
    # A peer chooses the text, so a regular expression with several `.*` could take very long.
    first, *rest = pattern.split("*")
    if not rest:
        return pattern == text
    *middle, last = rest
    if len(first) + len(last) > len(text) or not text.startswith(first) or not text.endswith(last):
        return False
    at, end = len(first), len(text) - len(last)
    for part in middle:
        found = text.find(part, at, end)
        if found < 0:
            return False
        at = found + len(part)
    return True


def _metadata_matches(wanted: Mapping[str, Any], metadata: Raw) -> bool:
    if not metadata:
        return False
    found = from_json(bytes(metadata))
    if not isinstance(found, dict):
        return False
    return all(key in found and _value_matches(value, found[key]) for key, value in wanted.items())


def _value_matches(wanted: Any, value: JsonValue) -> bool:
    pattern = pattern_in(wanted) if isinstance(wanted, str) else None
    if pattern is not None:
        return isinstance(value, str) and matches(pattern, value)
    # In Python True equals 1, and in JSON it does not.
    return value == wanted and isinstance(value, bool) == isinstance(wanted, bool)


def _filter_matches(each: FunctionFilter, call: Target) -> bool:
    if each.namespace != call.namespace:
        return False
    if each.match is not None:
        return matches(each.match, call.function_id)
    return each.metadata is not None and _metadata_matches(each.metadata, call.metadata)


# --- decisions


class Target(msgspec.Struct, frozen=True):
    """A function that a session wants to call, bind or see."""

    namespace: str
    function_id: str
    metadata: Raw = ABSENT
    """The function's metadata, absent if there is no such function."""


class Access(msgspec.Struct, frozen=True):
    """The rules of a guarded listener together with the grants of one session.

    `rules` is None for a listener that has a middleware function only.
    """

    rules: RbacConfig | None
    middleware: str | None = None
    grants: Grants = WITHOUT_AUTH

    @property
    def auth_function(self) -> str | None:
        """The function that decides whether a connection comes in."""
        return self.rules.auth_function_id if self.rules is not None else None

    def decide(self, target: Target) -> Decision:
        """Return whether the session may call this function. The first rule that applies decides."""
        for applies, decision in _DECISIONS:
            if applies(self, target):
                return decision
        return Decision.NOT_EXPOSED

    def guards_with(self, function_id: str) -> bool:
        """Return whether the rules themselves call this function, which no guarded session may register."""
        rules = self.rules
        named = (
            {self.middleware}
            if rules is None
            else {
                self.middleware,
                rules.auth_function_id,
                rules.on_function_registration_function_id,
                rules.on_trigger_registration_function_id,
                rules.on_trigger_type_registration_function_id,
            }
        )
        return function_id in named

    def allows(self, namespace: str, function_id: str, metadata: Raw = ABSENT) -> bool:
        """Return whether the session may call this function."""
        return self.decide(Target(namespace, function_id, metadata)) is Decision.ALLOWED

    def allows_trigger_type(self, trigger_type: str) -> bool:
        """Return whether the session may bind functions to this trigger type, and see it."""
        allowed = self.grants.allowed_trigger_types
        return allowed is None or trigger_type in allowed

    def allows_namespace(self, namespace: str) -> bool:
        """Return whether the session may register in this namespace."""
        return not self.grants.namespaces or namespace in self.grants.namespaces

    def prefixed(self, function_id: str) -> str:
        """Return the id under which the engine keeps a function of the session."""
        prefix = self.grants.function_registration_prefix
        return function_id if prefix is None else f"{prefix}::{function_id}"


def refusal(decision: Decision, function_id: str) -> str:
    """Return the text of the error `FORBIDDEN` for a call."""
    if decision is Decision.FORBIDDEN:
        return f"function '{function_id}' not allowed (remove from rbac.forbidden_functions)"
    return f"function '{function_id}' not allowed (add to rbac.expose_functions)"


def _is_forbidden(access: Access, target: Target) -> bool:
    return target.function_id in access.grants.forbidden_functions


def _is_granted(access: Access, target: Target) -> bool:
    grants = access.grants.namespaces.get(target.namespace, ())
    return any(matches(pattern_in(grant) or grant, target.function_id) for grant in grants)


def _is_allowed_by_name(access: Access, target: Target) -> bool:
    return target.namespace == DEFAULT_NAMESPACE and target.function_id in access.grants.allowed_functions


def _is_always_allowed(access: Access, target: Target) -> bool:
    return target.function_id in ALWAYS_ALLOWED


def _has_no_rules(access: Access, target: Target) -> bool:
    return access.rules is None


def _is_exposed(access: Access, target: Target) -> bool:
    rules = access.rules
    return rules is not None and any(_filter_matches(each, target) for each in rules.expose_functions)


_DECISIONS: Final[tuple[tuple[Callable[[Access, Target], bool], Decision], ...]] = (
    (_is_forbidden, Decision.FORBIDDEN),
    (_is_granted, Decision.ALLOWED),
    (_is_allowed_by_name, Decision.ALLOWED),
    (_is_always_allowed, Decision.ALLOWED),
    (_has_no_rules, Decision.ALLOWED),
    (_is_exposed, Decision.ALLOWED),
)
"""The rules in the order of section 8.3 of the protocol. Whatever no rule decides is not allowed."""
