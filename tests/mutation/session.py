"""Pytest sessions that run the tests of one mutant after another, each in a forked child.

A session collects its tests once. A mutant of a function replaces the function's code in the child, so a mutant costs
its tests and a fork. A mutant of a table or a class body needs a session of its own, because its module is imported
anew.
"""

from __future__ import annotations

import difflib
import gc
import importlib.abc
import importlib.machinery
import json
import os
import re
import resource
import signal
import sys
import time
import traceback
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import CodeType, FunctionType, ModuleType
from typing import Final, Literal, TypeAlias

import attrs
import pytest

from tests.mutation.mutants import Mutant, changed_functions

Verdict: TypeAlias = Literal["noticed", "timed out", "survived", "not run"]

MAX_TEST_SECONDS: Final = 6.0
"""Processor time of the tests of one mutant. The longest tests are left out beyond it."""
REAL_SECONDS: Final = 20
"""Real time of one test that waits for a socket or a thread. A test with a virtual clock has no limit in real time."""
MEMORY_BYTES: Final = 4 << 30


@attrs.define
class Reach:
    """Which tests run which lines, and how long each test takes."""

    seconds: dict[str, float] = attrs.Factory(dict)
    lines: dict[str, dict[int, list[str]]] = attrs.Factory(dict)
    max_seconds: float = MAX_TEST_SECONDS
    texts: dict[str, str] = attrs.Factory(dict)
    """The source files that the lines are of."""
    digests: dict[str, str] = attrs.Factory(dict)
    """A digest of each test file that was run."""

    def forget(self, files: Iterable[str]) -> None:
        """Remove the tests of some files."""
        gone = set(files)
        self.digests = {file: digest for file, digest in self.digests.items() if file not in gone}
        self.forget_tests({test for test in self.seconds if test.partition("::")[0] in gone})

    def forget_tests(self, gone: set[str]) -> None:
        """Remove some tests."""
        self.seconds = {test: seconds for test, seconds in self.seconds.items() if test not in gone}
        self.lines = {
            file: {line: [test for test in tests if test not in gone] for line, tests in of.items()}
            for file, of in self.lines.items()
        }

    def follow(self, texts: Mapping[str, str]) -> None:
        """Renumber the lines of source files that have changed since they were measured."""
        for file, text in texts.items():
            before = self.texts.get(file)
            if before is not None and before != text and file in self.lines:
                old = self.lines[file]
                matcher = difflib.SequenceMatcher(None, before.splitlines(), text.splitlines(), autojunk=False)
                self.lines[file] = {
                    new_at + offset + 1: old[old_at + offset + 1]
                    for old_at, new_at, size in matcher.get_matching_blocks()
                    for offset in range(size)
                    if old_at + offset + 1 in old
                }
        self.texts = dict(texts)

    def add(self, other: Reach) -> None:
        """Add the tests of other files."""
        self.seconds |= other.seconds
        for file, of in other.lines.items():
            mine = self.lines.setdefault(file, {})
            for line, tests in of.items():
                mine[line] = [*mine.get(line, ()), *tests]

    def tests_of(self, mutant: Mutant, function: CodeType | None = None) -> list[str]:
        """Return the tests that reach the line, or, for a line that runs at import, all tests of its file.

        A file that only runs at import is reached by all tests. A line of a statement of several lines has the tests of
        its `function`.
        """
        lines = self.lines.get(mutant.file, {})
        tests = lines.get(mutant.line) or []
        if not tests and function is not None:
            own = {line for _, _, line in function.co_lines() if line is not None}
            tests = sorted({test for line in own for test in lines.get(line, ())})
        elif not tests:
            tests = sorted({test for reached in lines.values() for test in reached}) or sorted(self.seconds)
        return self._within_limit(tests, named_like(mutant.file))

    def fastest(self) -> list[str]:
        """Return as many of all tests as the limit allows, the fastest first."""
        return self._within_limit(self.seconds)

    def _within_limit(self, tests: Iterable[str], first: re.Pattern[str] | None = None) -> list[str]:
        chosen: list[str] = []
        total = 0.0

        def order(test: str) -> tuple[bool, float]:
            return first is None or first.search(test) is None, self.seconds.get(test, 0.0)

        for test in sorted(tests, key=order):
            total += self.seconds.get(test, 0.0)
            if total > self.max_seconds and chosen:
                break
            chosen.append(test)
        return chosen

    def save(self, path: Path) -> None:
        """Write the reach into a file. Each test is named there once, because most lines are reached by hundreds."""
        number = {test: index for index, test in enumerate(self.seconds)}
        lines = {
            file: {line: [number[test] for test in tests if test in number] for line, tests in of.items()}
            for file, of in self.lines.items()
        }
        path.write_text(json.dumps(attrs.asdict(self) | {"lines": lines}))

    @classmethod
    def load(cls, path: Path) -> Reach:
        """Read the reach from a file of `save`."""
        raw = json.loads(path.read_text())
        tests = list(raw["seconds"])
        lines = {
            file: {int(line): [tests[index] for index in indexes] for line, indexes in of.items()}
            for file, of in raw["lines"].items()
        }
        return cls(raw["seconds"], lines, texts=raw["texts"], digests=raw["digests"])


def named_like(file: str) -> re.Pattern[str]:
    """Return a pattern for the ids of tests in files that are named like a file of the package, or test units."""
    return re.compile(rf"/test_(objects|\w*_units|\w*{Path(file).stem})\w*\.py::")


def run_pytest(arguments: Sequence[str], plugin: object, *, stop_at_first: bool = True) -> int:
    """Run pytest with few, fixed examples of Hypothesis and a short limit for a test that hangs."""
    from hypothesis import HealthCheck, Phase, settings

    # Imported first, because it loads a profile of its own.
    conftest = importlib.import_module("tests.conftest")
    conftest.SECONDS = REAL_SECONDS
    settings.register_profile(
        "mutation",
        max_examples=25,
        derandomize=True,
        database=None,
        deadline=None,
        phases=(Phase.explicit, Phase.generate),
        suppress_health_check=list(HealthCheck),
    )
    settings.load_profile("mutation")
    base = f"--basetemp=/tmp/iii-trio-mutation-{os.getpid()}"
    options = [
        *(["-x"] if stop_at_first else []),
        "-q",
        "--tb=no",
        "-p",
        "no:cacheprovider",
        "-W",
        "ignore::pytest.PytestAssertRewriteWarning",
        "-m",
        "not slow and not sdk",
        base,
    ]
    return int(pytest.main([*options, *arguments], plugins=[plugin]))


def in_child(run: Callable[[], int], seconds: float | None = None) -> int | None:
    """Run a function in a forked child and return its exit code, or None where it took too long or died."""
    pid = os.fork()
    if pid == 0:
        code = 70
        try:
            os.setsid()
            if seconds is not None:
                resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
                resource.setrlimit(resource.RLIMIT_CPU, (int(seconds) + 2, int(seconds) + 4))
                _be_silent()
            code = run()
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    deadline = None if seconds is None else time.monotonic() + 12 * seconds + 20
    pause = 0.002
    while True:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return os.WEXITSTATUS(status) if os.WIFEXITED(status) else None
        if deadline is not None and time.monotonic() > deadline:
            os.killpg(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            return None
        time.sleep(pause)
        pause = min(0.05, pause * 1.5)


def _be_silent() -> None:
    null = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(null, descriptor)


# --- which tests reach which lines


def measure(top: Path, areas: Sequence[str], tests: Sequence[str], saved: Path) -> Reach:
    """Run the tests once with coverage of some folders, in a child."""

    def run() -> int:
        import coverage

        watch = coverage.Coverage(
            data_file=None, source=[str(top / area) for area in areas], branch=False, config_file=False
        )
        plugin = _Measuring(watch)
        watch.start()
        code = run_pytest(tests, plugin, stop_at_first=False)
        watch.stop()
        if code not in (0, 1):
            return code
        data = watch.get_data()
        reach = Reach(seconds=plugin.seconds)
        for path in data.measured_files():
            contexts = data.contexts_by_lineno(path)
            reached = {line: sorted(filter(None, tests)) for line, tests in contexts.items() if any(tests)}
            reach.lines[str(Path(path).relative_to(top))] = reached
        # A test that fails without a mutant says nothing about mutants.
        for test in plugin.failed:
            print(f"left out, because it fails without a mutant: {test}", flush=True)
        reach.forget_tests(plugin.failed)
        reach.save(saved)
        return 0

    if (code := in_child(run)) != 0:
        raise SystemExit(f"the tests in {' '.join(tests)} do not pass without a mutant (pytest ended with {code})")
    measured = Reach.load(saved)
    saved.unlink()
    return measured


class _Measuring:
    def __init__(self, watch: object) -> None:
        self.watch = watch
        self.seconds: dict[str, float] = {}
        self.failed: set[str] = set()

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed:
            self.failed.add(report.nodeid)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Iterator[None]:
        began = time.process_time()
        self.watch.switch_context(item.nodeid)  # type: ignore[attr-defined]
        result = yield
        self.watch.switch_context("")  # type: ignore[attr-defined]
        self.seconds[item.nodeid] = time.process_time() - began
        return result


# --- mutants


def judge(
    top: Path,
    mutants: Sequence[Mutant],
    reach: Reach,
    tell: Callable[[Mutant, Verdict, str], None],
    caught_by: Mapping[str, str],
) -> None:
    """Judge each mutant and report its verdict with the test that noticed it.

    `caught_by` says which test noticed a mutant last time. It runs first.
    """
    swapped: list[tuple[Mutant, list[tuple[CodeType, CodeType]]]] = []
    alone: list[Mutant] = []
    for mutant in mutants:
        name = str(top / mutant.file)
        old = compile((top / mutant.file).read_text(), name, "exec", dont_inherit=True)
        new = compile(mutant.text, name, "exec", dont_inherit=True)
        pairs = changed_functions(old, new)
        if pairs == [] or not reach.tests_of(mutant, pairs[0][0] if pairs else None):
            tell(mutant, "survived", "")
        elif pairs is None:
            alone.append(mutant)
        else:
            swapped.append((mutant, pairs))
    if swapped:
        files = sorted(
            {test.partition("::")[0] for mutant, pairs in swapped for test in reach.tests_of(mutant, pairs[0][0])}
        )
        alone += _together(swapped, reach, files, tell, caught_by)
    for mutant in alone:
        tell(mutant, *_alone(top, mutant, reach, caught_by.get(mutant.digest)))


def _alone(top: Path, mutant: Mutant, reach: Reach, last: str | None) -> tuple[Verdict, str]:
    """Import the changed module in a session of its own."""
    for package in ("trio.testing", "hypothesis.stateful", "pytest_trio", "_pytest.assertion.rewrite", "trustme"):
        importlib.import_module(package)  # once, in the parent of all sessions
    replacing = _Replacing(mutant, str(top / mutant.file))

    def import_alone() -> int:
        sys.meta_path.insert(0, replacing)
        importlib.import_module(replacing.name)
        return 0

    if in_child(import_alone, 20) != 0:
        return "noticed", "(its import)"
    tests = reach.tests_of(mutant)
    # A session that collects few files begins soon, so the likeliest tests have one of their own.
    named = named_like(mutant.file)
    near = [test for test in reach.seconds if named.search(test)]
    # A number or a table may be used anywhere, so that in the end all tests are asked, the fastest first.
    for names in ([last] if last in reach.seconds else [], near, tests, reach.fastest()):
        if not names:
            continue
        verdict, test = _session(mutant, reach, replacing, [name for name in names if name is not None])
        if verdict != "survived":
            break
    return verdict, test


def _session(mutant: Mutant, reach: Reach, replacing: _Replacing, names: list[str]) -> tuple[Verdict, str]:
    files = sorted({test.partition("::")[0] for test in names})
    seconds = sum(reach.seconds.get(test, 0.0) for test in names)
    reading, writing = os.pipe()

    def run() -> int:
        sys.meta_path.insert(0, replacing)
        return run_pytest(files, _Only(set(names), reach, writing))

    code = in_child(run, 2 * seconds + 10)
    os.close(writing)
    with os.fdopen(reading) as told:
        return _verdict(code), told.read()


def _verdict(code: int | None) -> Verdict:
    if code in (4, 5, 70):  # of pytest: it was called wrongly, or found no test
        raise SystemExit(f"the tests could not be run ({code})")
    return "survived" if code == 0 else "timed out" if code is None else "noticed"


class _Only:
    """Keep some tests of a session, the fastest first within a file."""

    def __init__(self, wanted: set[str], reach: Reach, writing: int) -> None:
        self._wanted = wanted
        self._reach = reach
        self._writing = writing

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        items[:] = [item for item in items if item.nodeid in self._wanted]
        items.sort(key=lambda item: (item.nodeid.partition("::")[0], self._reach.seconds.get(item.nodeid, 0.0)))

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed:
            os.write(self._writing, report.nodeid.encode())


class _Replacing(importlib.abc.MetaPathFinder, importlib.abc.SourceLoader):
    """An importer that gives one module its changed text."""

    def __init__(self, mutant: Mutant, path: str) -> None:
        self._mutant = mutant
        self._path = path
        self.name = mutant.file.removesuffix(".py").replace("/", ".").removesuffix(".__init__")

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if fullname != self.name:
            return None
        spec = importlib.machinery.ModuleSpec(fullname, self, origin=self._path)
        spec.has_location = True
        if self._path.endswith("__init__.py"):
            spec.submodule_search_locations = [str(Path(self._path).parent)]
        return spec

    def get_filename(self, fullname: str) -> str:
        return self._path

    def get_data(self, path: str) -> bytes:
        if path == self._path:
            return self._mutant.text.encode()
        raise OSError(f"{path} is not read here")


def _together(
    mutants: Sequence[tuple[Mutant, list[tuple[CodeType, CodeType]]]],
    reach: Reach,
    files: Sequence[str],
    tell: Callable[[Mutant, Verdict, str], None],
    caught_by: Mapping[str, str],
) -> list[Mutant]:
    """Judge mutants of functions in one session. Return those whose code could not be replaced there."""
    reading, writing = os.pipe()

    def run() -> int:
        os.close(reading)
        return run_pytest(files, _Looping(mutants, reach, writing, caught_by))

    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            _be_silent()
            code = run()
        finally:
            os._exit(code)
    os.close(writing)
    count = 0
    left: list[Mutant] = []
    with os.fdopen(reading) as verdicts:
        for line in verdicts:
            index, verdict, test = json.loads(line)
            if verdict == "not run":
                left.append(mutants[index][0])
            else:
                tell(mutants[index][0], verdict, test)
            count += 1
    os.waitpid(pid, 0)
    if count != len(mutants):
        raise SystemExit(f"the session ended after {count} of {len(mutants)} mutants")
    return left


class _Looping:
    """A pytest plugin that runs its tests for one mutant after another, instead of once."""

    def __init__(
        self,
        mutants: Sequence[tuple[Mutant, list[tuple[CodeType, CodeType]]]],
        reach: Reach,
        writing: int,
        caught_by: Mapping[str, str],
    ) -> None:
        self._mutants = mutants
        self._reach = reach
        self._writing = writing
        self._last = caught_by
        self._caught: dict[str, Counter[str]] = defaultdict(Counter)

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        items = {item.nodeid: item for item in session.items}
        gc.collect()
        gc.freeze()
        files = {pair[0].co_filename for _, pairs in self._mutants for pair in pairs}
        functions = [
            one
            for one in gc.get_objects() + _frozen()
            if isinstance(one, FunctionType) and one.__code__.co_filename in files
        ]
        for index, (mutant, pairs) in enumerate(self._mutants):
            verdict, test = self._judge(mutant, pairs, items, functions)
            os.write(self._writing, f"{json.dumps([index, verdict, test])}\n".encode())
        return True

    def _judge(
        self,
        mutant: Mutant,
        pairs: list[tuple[CodeType, CodeType]],
        items: dict[str, pytest.Item],
        functions: list[FunctionType],
    ) -> tuple[Verdict, str]:
        names = [test for test in self._reach.tests_of(mutant, pairs[0][0]) if test in items]
        # What caught a mutant of this file catches the next one, too. Then come the tests that are named like the file.
        last, named, caught_here = self._last.get(mutant.digest), named_like(mutant.file), self._caught[mutant.file]
        names.sort(
            key=lambda test: (
                test != last,
                -caught_here[test],
                named.search(test) is None,
                self._reach.seconds.get(test, 0.0),
            )
        )
        seconds = sum(self._reach.seconds.get(test, 0.0) for test in names)
        reading, writing = os.pipe()

        def run() -> int:
            replaced = 0
            for function in functions:
                for old, new in pairs:
                    if function.__code__ == old:
                        function.__code__ = new
                        replaced += 1
                        break
            if not replaced:
                return 71  # a function that nothing holds yet is made by one that was replaced
            session = next(iter(items.values())).session
            for place, name in enumerate(names):
                following = items[names[place + 1]] if place + 1 < len(names) else None
                session.config.hook.pytest_runtest_protocol(item=items[name], nextitem=following)
                if session.testsfailed:
                    os.write(writing, name.encode())
                    return 1
            return 0

        code = in_child(run, 2 * seconds + 1)
        os.close(writing)
        with os.fdopen(reading) as told:
            if caught := told.read():
                caught_here[caught] += 1
        if code in (70, 71):
            return "not run", ""
        return _verdict(code), caught


def _frozen() -> list[object]:
    gc.unfreeze()
    found = gc.get_objects()
    gc.freeze()
    return found
