"""Routes: a tree of path segments for each method, with parameters and a final wildcard.

A path is cut at its slashes, and each segment is percent-decoded by itself. So an encoded slash stays inside a parameter.
Where several routes match, a literal segment wins over a parameter, and a parameter over a wildcard, from left to right.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import unquote

import attrs

from ...errors import IIIError
from ...records import define, frozen
from ...worker.http_method import METHODS  # a route for any other method is accepted and never called

MAX_SEGMENTS: Final = 64


class RouteError(IIIError, ValueError):
    """A route that cannot be registered. The text says why, and how to mend it."""


@frozen(eq=False)
class Route:
    """One registered route. `template` is the path as its owner wrote it."""

    method: str
    template: str
    function_id: str
    namespace: str
    trigger_id: str
    condition: str | None = None
    middleware: tuple[str, ...] = ()
    metadata: Any = None
    channels: bool = True
    """Whether its function gets channels for the body and the response. Without them a small request costs a third less."""
    segments: tuple[str, ...] = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        object.__setattr__(self, "segments", segments_of(self.template))

    @classmethod
    def from_config(cls, config: Any, *, function_id: str, namespace: str, trigger_id: str, metadata: Any) -> Route:
        """Read a binding's configuration. Raises RouteError."""
        config = config if isinstance(config, dict) else {}
        path = config.get("api_path")
        if not isinstance(path, str):
            raise RouteError("api_path is required for http triggers")
        method = config.get("http_method") or "GET"
        if not isinstance(method, str):
            raise RouteError("http_method must be a string such as GET")
        middleware = config.get("middleware_function_ids") or []
        if not isinstance(middleware, list) or not all(isinstance(one, str) for one in middleware):
            raise RouteError("middleware_function_ids must be a list of function ids")
        condition = config.get("condition_function_id")
        if condition is not None and not isinstance(condition, str):
            raise RouteError("condition_function_id must be a function id")
        channels = config.get("channels", True)
        if not isinstance(channels, bool):
            raise RouteError("channels must be true or false")
        return cls(
            method.upper(), path, function_id, namespace, trigger_id, condition, tuple(middleware), metadata, channels
        )

    @property
    def name(self) -> str:
        """The route as it is shown, such as `GET /files/:name`."""
        return f"{self.method} /{self.template.lstrip('/')}"

    @property
    def identity(self) -> tuple[str, tuple[str, ...]]:
        """Two routes with the same identity are the same route, so the later one replaces the earlier."""
        return self.method, self.segments

    @property
    def shape(self) -> tuple[str, ...]:
        """The segments without the names of parameters."""
        return tuple(segment[:1] if segment[:1] in (":", "*") else f"={segment}" for segment in self.segments)


@frozen
class Match:
    """A route that serves a request, with the decoded values of its parameters."""

    route: Route
    parameters: Mapping[str, str]


@define(eq=False)
class _Node:
    literals: dict[str, _Node] = attrs.field(factory=dict)
    parameter: _Node | None = None
    wildcard: Route | None = None
    route: Route | None = None

    @property
    def is_empty(self) -> bool:
        return not (self.literals or self.parameter or self.wildcard or self.route)


def segments_of(template: str) -> tuple[str, ...]:
    """Cut a template into segments. Raises RouteError for one that could not be matched."""
    segments = tuple(template.lstrip("/").split("/"))
    if len(segments) > MAX_SEGMENTS:
        raise RouteError(f"api_path has {len(segments)} segments, and at most {MAX_SEGMENTS} are matched")
    names = [segment[1:] for segment in segments if segment[:1] in (":", "*")]
    for number, segment in enumerate(segments):
        if segment in (":", "*"):
            raise RouteError(f"api_path '{template}' has a parameter without a name: write ':name' or a final '*name'")
        if segment[:1] == "*" and number < len(segments) - 1:
            raise RouteError(f"api_path '{template}': the wildcard '{segment}' must be the last segment")
        if segment[:1] not in (":", "*") and any(letter in segment for letter in "{}*?#"):
            raise RouteError(
                f"api_path '{template}': '{segment}' is not a literal segment; write ':name' for a parameter and a final "
                "'*name' for the rest of the path"
            )
    if len(set(names)) < len(names):
        raise RouteError(f"api_path '{template}' names a parameter twice")
    return segments


class Router:
    """The routes of all workers. `match` costs the length of the path, however many routes there are."""

    def __init__(self) -> None:
        self._trees: dict[str, _Node] = {}
        self._routes: dict[tuple[str, tuple[str, ...]], Route] = {}
        self._shapes: dict[tuple[str, tuple[str, ...]], Route] = {}

    def __len__(self) -> int:
        return len(self._routes)

    def add(self, route: Route) -> Route | None:
        """Register a route; return the route that it replaced.

        Raises RouteError if a route of the same method differs in the names of its parameters only.
        """
        replaced = self._routes.get(route.identity)
        other = self._shapes.get((route.method, route.shape))
        # The names of parameters reach the handler, so two routes of one shape cannot both be right.
        if replaced is None and other is not None:
            raise RouteError(
                f"Route '{route.name}' conflicts with already-registered route '{other.name}': routes of the same "
                "structure with different parameter names are not supported"
            )
        self._routes[route.identity] = self._shapes[route.method, route.shape] = route
        node = self._trees.setdefault(route.method, _Node())
        for segment in route.segments:
            if segment[:1] == "*":
                node.wildcard = route
                return replaced
            node = self._child(node, segment)
        node.route = route
        return replaced

    def remove(self, route: Route) -> None:
        """Remove a route, unless it was replaced meanwhile."""
        # A later binding may have replaced it, and that one stays.
        if self._routes.get(route.identity) is not route:
            return
        del self._routes[route.identity], self._shapes[route.method, route.shape]
        path = [self._trees[route.method]]
        for segment in route.segments:
            if segment[:1] == "*":
                path[-1].wildcard = None
                break
            path.append(self._child(path[-1], segment))
        else:
            path[-1].route = None
        # Prune the branch from its end, so that a server whose routes come and go does not grow.
        for parent, segment in zip(reversed(path[:-1]), reversed(route.segments[: len(path) - 1]), strict=True):
            if not self._child(parent, segment).is_empty:
                break
            if segment[:1] == ":":
                parent.parameter = None
            else:
                del parent.literals[segment]

    def match(self, method: str, path: str) -> Match | None:
        """Return the route that serves this path, whose query was cut off."""
        tree = self._trees.get(method)
        if tree is None:
            return None
        segments = [unquote(segment) for segment in path.removeprefix("/").split("/")]
        values: list[str] = []
        route = _find(tree, segments, 0, values)
        if route is None:
            return None
        names = (segment[1:] for segment in route.segments if segment[:1] in (":", "*"))
        return Match(route, dict(zip(names, values, strict=True)))

    def allowed(self, path: str) -> list[str]:
        """Return the methods that are served at this path."""
        found = [method for method in METHODS if self.match(method, path) is not None]
        return sorted({*found, "HEAD"}) if "GET" in found else found

    @staticmethod
    def _child(node: _Node, segment: str) -> _Node:
        if segment[:1] == ":":
            if node.parameter is None:
                node.parameter = _Node()
            return node.parameter
        return node.literals.setdefault(segment, _Node())


def _find(node: _Node, segments: list[str], at: int, values: list[str]) -> Route | None:
    """Walk down from `node`. Dead ends are left again, so the first choice that leads to a route wins."""
    # The whole path was walked, so only a route that ends here fits.
    if at == len(segments):
        return node.route
    segment = segments[at]
    literal = node.literals.get(segment)
    if literal is not None and (route := _find(literal, segments, at + 1, values)) is not None:
        return route
    # An empty segment is not a value, because a trailing slash is another path.
    if node.parameter is not None and segment:
        values.append(segment)
        if (route := _find(node.parameter, segments, at + 1, values)) is not None:
            return route
        values.pop()
    # The wildcard comes last, so that any more exact route wins.
    if node.wildcard is not None:
        values.append("/".join(segments[at:]))
        return node.wildcard
    return None
