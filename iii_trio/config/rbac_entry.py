"""Reads the access rules in the `config` of a listener's entry, in the words of iii's configuration."""

from __future__ import annotations

from typing import Any, Final

import attrs

from .rbac import FunctionFilter, RbacConfig, pattern_in
from .section import Section, kind_of, shown

_FILTER: Final = 'write `match("svc::*")`, `{ match: "svc::*" }` or `{ metadata: { key: value } }`'
_FUNCTIONS: Final = tuple(field.name for field in attrs.fields(RbacConfig) if field.name.endswith("function_id"))


def read_access_rules(config: Section) -> dict[str, Any]:
    """Return the fields of `Listener` that `rbac` and `middleware_function_id` set. Raises ConfigError."""
    # A key without a value is not an absent key, because the listener would be open where rules were meant.
    for key in ("rbac", "middleware_function_id"):
        if key in config and config.get(key) is None:
            config.fail(key, f"`{key}` is empty; give its value, or remove the key")
    settings: dict[str, Any] = {}
    if "middleware_function_id" in config:
        settings["middleware_function_id"] = config.text("middleware_function_id", "the id of a function")
    if "rbac" in config:
        settings["rbac"] = _read_rbac(config.section("rbac"))
    return settings


def _read_rbac(section: Section) -> RbacConfig:
    section.only((*_FUNCTIONS, "expose_functions"), "in `rbac`")
    values: dict[str, Any] = {key: section.text(key, "the id of a function") for key in _FUNCTIONS}
    for key in _FUNCTIONS:
        if key in section and values[key] is None:
            section.fail(key, f"`{key}` is empty; give the id of a function, or remove the key")
    filters = section.get("expose_functions")
    if filters is not None and not isinstance(filters, list):
        section.fail("expose_functions", f"`expose_functions` is {kind_of(filters)}; make it a list of filters")
    each = Section(section.document, (*section.path, "expose_functions"), dict(enumerate(filters or ())))
    values["expose_functions"] = [_read_filter(each, index) for index in each]
    return RbacConfig(**values)


def _read_filter(filters: Section, index: int) -> FunctionFilter:
    value = filters.get(index)
    if isinstance(value, str):
        pattern = pattern_in(value)
        if pattern is None:
            filters.fail(index, f"the filter {shown(value)} cannot be used; {_FILTER}")
        value = {"match": pattern}
    elif not isinstance(value, dict):
        filters.fail(index, f"a filter is {kind_of(value)}; {_FILTER}")
    else:
        filters.section(index).only(("match", "metadata", "namespace"), "in a filter of `expose_functions`")
    if value.get("metadata") is not None and not isinstance(value["metadata"], dict):
        filters.fail(index, f"`metadata` is {kind_of(value['metadata'])}; make it keys and values")
    # Users also put `match(...)` under the key `match`, and mean the pattern in it.
    if isinstance(value.get("match"), str):
        value = {**value, "match": pattern_in(value["match"]) or value["match"]}
    if "namespace" in value and value["namespace"] is None:
        value = {key: each for key, each in value.items() if key != "namespace"}
    try:
        return FunctionFilter(**value)
    except (TypeError, ValueError) as error:
        filters.fail(index, f"the filter cannot be used: {error}; {_FILTER}")
