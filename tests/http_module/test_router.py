"""The router against a model that looks at every route."""

from __future__ import annotations

from urllib.parse import quote, unquote

from hypothesis import given
from hypothesis import strategies as st

from iii_trio.triggers.http.routes import Route, RouteError, Router

WORDS = ["a", "b", "", "é", "a/b", "%2f", ":x", "*", "..", "a b"]
LITERALS = st.sampled_from(["a", "b", "", "é", ".."])
SEGMENT = st.one_of(LITERALS, st.sampled_from([":x", ":y", ":z"]))
TEMPLATE = st.builds(
    lambda segments, rest: "/" + "/".join([*segments, *rest]),
    st.lists(SEGMENT, max_size=4),
    st.sampled_from([[], [], ["*rest"]]),
)
PATH = st.builds(
    lambda segments: "/" + "/".join(quote(one, safe="") for one in segments),
    st.lists(st.sampled_from(WORDS), max_size=5),
)


def _rank(route: Route, path: list[str]) -> tuple[int, ...] | None:
    """Return how well a route fits, segment by segment, or None. Smaller is better."""
    rank = []
    for number, segment in enumerate(route.segments):
        if segment[:1] == "*":
            return (*rank, 2) if number < len(path) else None
        if number >= len(path):
            return None
        if segment[:1] == ":":
            if not path[number]:
                return None
            rank.append(1)
        elif segment == path[number]:
            rank.append(0)
        else:
            return None
    return tuple(rank) if len(route.segments) == len(path) else None


def _values(route: Route, path: list[str]) -> dict[str, str]:
    found = {}
    for number, segment in enumerate(route.segments):
        if segment[:1] == "*":
            found[segment[1:]] = "/".join(path[number:])
        elif segment[:1] == ":":
            found[segment[1:]] = path[number]
    return found


@given(st.lists(st.tuples(st.sampled_from(["GET", "POST"]), TEMPLATE, st.booleans()), max_size=12), st.lists(PATH))
def test_H11_the_best_route_that_is_there_serves_a_path(changes: list[tuple[str, str, bool]], paths: list[str]) -> None:
    router, there = Router(), dict[tuple[str, tuple[str, ...]], Route]()
    for number, (method, template, stays) in enumerate(changes):
        try:
            route = Route(method, template, "f", "default", str(number))
            assert router.add(route) is there.get(route.identity)
        except RouteError:
            continue
        there[route.identity] = route
        if not stays:
            router.remove(route)
            del there[route.identity]
        assert len(router) == len(there)
    for path in paths:
        # Each segment is decoded by itself, so an encoded slash stays inside it.
        segments = [unquote(one) for one in path.removeprefix("/").split("/")]
        for method in ("GET", "POST"):
            fitting = [
                (rank, route)
                for route in there.values()
                if route.method == method and (rank := _rank(route, segments)) is not None
            ]
            match = router.match(method, path)
            if not fitting:
                assert match is None
                continue
            best = min(fitting, key=lambda one: one[0])[1]
            assert match is not None and match.route is best
            assert match.parameters == _values(best, segments)


@given(st.text(max_size=30), st.text(max_size=30))
def test_any_template_is_served_or_refused_and_any_path_is_answered(template: str, path: str) -> None:
    router = Router()
    try:
        router.add(Route("GET", template, "f", "default", "1"))
    except RouteError:
        assert len(router) == 0
    router.match("GET", path)
    router.allowed(path)
