"""Who may import whom, what is pure, how large a file may be: the rules of docs/architecture.md."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

PACKAGE = Path(__file__).parent.parent / "iii_trio"

LEAVES = {
    "errors", "lazy", "text", "config", "state_machine", "structure", "nursery", "report", "observed", "records", "tracing",
}  # fmt: skip
MAY_IMPORT = {
    "errors": set(),
    "lazy": set(),
    "ids": set(),
    "text": set(),
    "records": set(),
    "state_machine": {"errors", "records"},
    "config": {"errors", "records", "structure"},
    "structure": {"errors"},
    "report": {"records"},
    "observed": {"records"},
    "tracing": {"observed", "records", "report"},
    "nursery": {"errors"},
    "version": set(),
    "wire": LEAVES,
    "compat": {"transport", "wire", *LEAVES},
    "core": {"compat", "wire", *LEAVES},
    "transport": {"wire", *LEAVES},
    "engine": {"compat", "core", "recorder", "transport", "wire", "version", *LEAVES},
    "environment": {"ids", "records"},
    "lowlevel": {"worker"},
    "worker": {"transport", "wire", "environment", "version", *LEAVES},
    "http": {"worker", *LEAVES},
    "triggers": {"worker", "lowlevel", "environment", "transport", "wire", "ids", "version", *LEAVES},
    "modules": {"triggers", "transport", *LEAVES},
    "recorder": {"core", "wire", *LEAVES},
    "embed": {"modules", "triggers", "engine", "worker", "environment", "core", "transport", "wire", "ids", *LEAVES},
}
ANYTHING = {"__init__", "__main__", "cli", "conformance", "testing"}
PURE = (
    "wire/",
    "core/",
    "recorder/",
    "records.py",
    "state_machine.py",
    "structure.py",
    "config/settings.py",
    "config/section.py",
    "config/document.py",
    "transport/frames/",
    "compat/",
    "tracing.py",
    "observed.py",
)
IMPURE = {"trio", "time", "random", "uuid", "secrets", "socket", "threading", "asyncio", "os"}
HARMLESS = {("structure.py", "uuid")}  # for the class UUID, which makes none by itself
LONGEST_FILE = 600
KNOWN_CIRCLES: set[frozenset[str]] = set()
"""Circles of imports that are still to be mended. The list may only shrink."""


def imports(path: Path) -> Iterator[tuple[int, str, bool]]:
    """Every import of a file: its line, the top-level name it reaches, and whether that is one of ours."""
    inside = path.relative_to(PACKAGE).with_suffix("").parts
    for node in ast.walk(ast.parse(path.read_text())):
        match node:
            case ast.ImportFrom(module=module, level=level) if level:
                reached = (*inside[: len(inside) - level], *(module or "").split("."))
                names = [alias.name for alias in node.names] if reached == ("",) else [reached[0]]
                yield from ((node.lineno, name, True) for name in names)
            case ast.ImportFrom(module=str(module)):
                yield node.lineno, module.split(".")[0], False
            case ast.Import(names=aliases):
                yield from ((node.lineno, alias.name.split(".")[0], False) for alias in aliases)


def files() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def test_arrows_go_down_only() -> None:
    wrong = []
    for path in files():
        home = path.relative_to(PACKAGE).with_suffix("").parts[0]
        if home in ANYTHING:
            continue
        for line, name, ours in imports(path):
            if ours and name != home and name not in MAY_IMPORT[home]:
                wrong.append(f"{path.relative_to(PACKAGE)}:{line}: {home} may not import {name}")
    assert not wrong, "\n".join(wrong)


def module_imports() -> dict[str, set[str]]:
    """Each module of the package with the modules that it imports, for type checking or at run time.

    `__init__` files are left out: they gather names for users, and modules inside a package do not import them.
    """
    modules = {".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts): path for path in files()}
    modules = {name: path for name, path in modules.items() if path.name != "__init__.py"}
    graph = {}
    for name, path in modules.items():
        inside = name.split(".")
        reached = set()
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and node.level:
                base = ".".join(
                    [*inside[: len(inside) - node.level], *((node.module or "").split(".") * bool(node.module))]
                )
                reached |= {base, *(f"{base}.{alias.name}" for alias in node.names)}
        graph[name] = {each for each in reached if each in modules and each != name}
    return graph


def circles(graph: dict[str, set[str]]) -> set[frozenset[str]]:
    """The groups of modules that import each other, directly or through others."""

    def reachable(start: str) -> set[str]:
        found: set[str] = set()
        pending = [start]
        while pending:
            new = graph[pending.pop()] - found
            found |= new
            pending += new
        return found

    reached = {name: reachable(name) for name in graph}
    return {
        frozenset(other for other in reached[name] if name in reached[other]) for name in graph if name in reached[name]
    }


def test_a_circle_is_found() -> None:
    graph = {"a": {"b"}, "b": {"c"}, "c": {"b", "d"}, "d": set(), "e": {"e"}}
    assert circles(graph) == {frozenset("bc"), frozenset("e")}
    assert "iii_trio.core.hub" in module_imports()["iii_trio.engine.shell"]


def test_modules_import_each_other_in_no_circle() -> None:
    """Imports for type checking count too. The circles of `KNOWN_CIRCLES` may only become fewer and smaller."""
    found = {frozenset(name.removeprefix("iii_trio.") for name in circle) for circle in circles(module_imports())}
    new = [sorted(circle) for circle in found if not any(circle <= known for known in KNOWN_CIRCLES)]
    assert not new, f"a circle of imports: {new}"
    mended = [sorted(known) for known in KNOWN_CIRCLES if known not in found]
    assert not mended, f"smaller or gone: take it out of KNOWN_CIRCLES, or make it smaller there: {mended}"


def test_nothing_but_the_command_line_imports_the_testing_tools() -> None:
    wrong = [
        f"{path.relative_to(PACKAGE)}:{line}"
        for path in files()
        if path.relative_to(PACKAGE).parts[0] not in ("testing", "conformance", "cli")
        for line, name, ours in imports(path)
        if ours and name in ("testing", "conformance")
    ]
    assert not wrong, "\n".join(wrong)


def test_what_decides_is_pure() -> None:
    wrong = []
    for path in files():
        place = path.relative_to(PACKAGE).as_posix()
        if not place.startswith(PURE):
            continue
        wrong += [
            f"{place}:{line}: imports {name}"
            for line, name, ours in imports(path)
            if not ours and name in IMPURE - {module for at, module in HARMLESS if at == place}
        ]
        wrong += [
            f"{place}:{node.lineno}: awaits"
            for node in ast.walk(ast.parse(path.read_text()))
            if isinstance(node, ast.Await | ast.AsyncFor | ast.AsyncWith | ast.AsyncFunctionDef)
        ]
    assert not wrong, "\n".join(wrong)


def test_no_file_bursts() -> None:
    sizes = {path.relative_to(PACKAGE).as_posix(): len(path.read_text().splitlines()) for path in files()}
    assert not {place: size for place, size in sizes.items() if size > LONGEST_FILE}


def test_every_module_says_what_it_is() -> None:
    assert not [
        path for path in files() if path.read_text().strip() and not ast.get_docstring(ast.parse(path.read_text()))
    ]
