"""Pytest sessions that run the tests of one mutant after another, each in a forked child.

A session collects its tests once. A mutant of a function replaces the function's code in the child, so a mutant costs
its tests and a fork. A mutant of a table or a class body needs a session of its own, because its module is imported
anew.
"""

from __future__ import annotations

import gc
import importlib.abc
import importlib.machinery
import json
import os
import resource
import signal
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import CodeType, FunctionType, ModuleType
from typing import Final, Literal, TypeAlias

import attrs
import pytest

from tests.mutation.mutants import Mutant, changed_functions

Verdict: TypeAlias = Literal["noticed", "timed out", "survived"]

MAX_TEST_SECONDS: Final = 6.0
"""Processor time of the tests of one mutant. The longest tests are left out beyond it."""
MEMORY_BYTES: Final = 4 << 30


@attrs.define
class Reach:
    """Which tests run which lines, and how long each test takes."""

    seconds: dict[str, float] = attrs.Factory(dict)
    lines: dict[str, dict[int, list[str]]] = attrs.Factory(dict)

    def tests_of(self, mutant: Mutant) -> list[str]:
        """Return the tests that reach the line, or, for a line that runs at import, all tests of its file.

        A file that only runs at import is reached by all tests.
        """
        lines = self.lines.get(mutant.file, {})
        tests = (
            lines.get(mutant.line)
            or sorted({test for reached in lines.values() for test in reached})
            or sorted(self.seconds)
        )
        chosen: list[str] = []
        total = 0.0
        for test in sorted(tests, key=lambda test: self.seconds.get(test, 0.0)):
            total += self.seconds.get(test, 0.0)
            if total > MAX_TEST_SECONDS and chosen:
                break
            chosen.append(test)
        return chosen

    def save(self, path: Path) -> None:
        path.write_text(json.dumps(attrs.asdict(self)))

    @classmethod
    def load(cls, path: Path) -> Reach:
        raw = json.loads(path.read_text())
        lines = {file: {int(line): tests for line, tests in of.items()} for file, of in raw["lines"].items()}
        return cls(raw["seconds"], lines)


def run_pytest(arguments: Sequence[str], plugin: object) -> int:
    """Run pytest with few, fixed examples of Hypothesis."""
    from hypothesis import HealthCheck, Phase, settings

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
        "-x",
        "-q",
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
    deadline = None if seconds is None else time.monotonic() + 6 * seconds + 10
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


def measure(top: Path, package: str, folders: Sequence[str], saved: Path) -> Reach:
    """Run the tests once with coverage, in a child."""

    def run() -> int:
        import coverage

        watch = coverage.Coverage(data_file=None, source=[package], branch=False, config_file=False)
        plugin = _Measuring(watch)
        watch.start()
        code = run_pytest(folders, plugin)
        watch.stop()
        if code:
            return code
        data = watch.get_data()
        reach = Reach(seconds=plugin.seconds)
        for path in data.measured_files():
            contexts = data.contexts_by_lineno(path)
            reached = {line: sorted(filter(None, tests)) for line, tests in contexts.items() if any(tests)}
            reach.lines[str(Path(path).relative_to(top))] = reached
        reach.save(saved)
        return 0

    if (code := in_child(run)) != 0:
        raise SystemExit(f"the tests in {' '.join(folders)} do not pass without a mutant (pytest ended with {code})")
    return Reach.load(saved)


class _Measuring:
    def __init__(self, watch: object) -> None:
        self.watch = watch
        self.seconds: dict[str, float] = {}

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Iterator[None]:
        began = time.process_time()
        self.watch.switch_context(item.nodeid)  # type: ignore[attr-defined]
        result = yield
        self.watch.switch_context("")  # type: ignore[attr-defined]
        self.seconds[item.nodeid] = time.process_time() - began
        return result


# --- mutants


def judge(top: Path, mutants: Sequence[Mutant], reach: Reach, tell: Callable[[Mutant, Verdict], None]) -> None:
    """Judge each mutant and report its verdict."""
    swapped: list[tuple[Mutant, list[tuple[CodeType, CodeType]]]] = []
    for mutant in mutants:
        if not reach.tests_of(mutant):
            tell(mutant, "survived")
            continue
        name = str(top / mutant.file)
        old = compile((top / mutant.file).read_text(), name, "exec", dont_inherit=True)
        new = compile(mutant.text, name, "exec", dont_inherit=True)
        pairs = changed_functions(old, new)
        if pairs:
            swapped.append((mutant, pairs))
        elif pairs is None:
            tell(mutant, _alone(top, mutant, reach))
        else:
            tell(mutant, "survived")
    if swapped:
        files = sorted({test.partition("::")[0] for mutant, _ in swapped for test in reach.tests_of(mutant)})
        _together(swapped, reach, files, tell)


def _alone(top: Path, mutant: Mutant, reach: Reach) -> Verdict:
    """Import the changed module in a session of its own."""
    tests = reach.tests_of(mutant)
    wanted = set(tests)
    files = sorted({test.partition("::")[0] for test in tests})
    seconds = sum(reach.seconds.get(test, 0.0) for test in tests)

    def run() -> int:
        sys.meta_path.insert(0, _Replacing(mutant, str(top / mutant.file)))
        return run_pytest(files, _Only(wanted, reach))

    return _verdict(in_child(run, 4 * seconds + 15))


def _verdict(code: int | None) -> Verdict:
    return "survived" if code == 0 else "timed out" if code is None else "noticed"


class _Only:
    """Keep some tests of a session, the fastest first within a file."""

    def __init__(self, wanted: set[str], reach: Reach) -> None:
        self._wanted = wanted
        self._reach = reach

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        items[:] = [item for item in items if item.nodeid in self._wanted]
        items.sort(key=lambda item: (item.nodeid.partition("::")[0], self._reach.seconds.get(item.nodeid, 0.0)))


class _Replacing(importlib.abc.MetaPathFinder, importlib.abc.SourceLoader):
    """An importer that gives one module its changed text."""

    def __init__(self, mutant: Mutant, path: str) -> None:
        self._mutant = mutant
        self._path = path
        self._name = mutant.file.removesuffix(".py").replace("/", ".").removesuffix(".__init__")

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if fullname != self._name:
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
    tell: Callable[[Mutant, Verdict], None],
) -> None:
    """Judge mutants of functions in one session."""
    reading, writing = os.pipe()

    def run() -> int:
        os.close(reading)
        return run_pytest(files, _Looping(mutants, reach, writing))

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
    with os.fdopen(reading) as verdicts:
        for line in verdicts:
            index, _, verdict = line.strip().partition(" ")
            tell(mutants[int(index)][0], verdict)  # type: ignore[arg-type]
            count += 1
    os.waitpid(pid, 0)
    if count != len(mutants):
        raise SystemExit(f"the session ended after {count} of {len(mutants)} mutants")


class _Looping:
    """A pytest plugin that runs its tests for one mutant after another, instead of once."""

    def __init__(
        self, mutants: Sequence[tuple[Mutant, list[tuple[CodeType, CodeType]]]], reach: Reach, writing: int
    ) -> None:
        self._mutants = mutants
        self._reach = reach
        self._writing = writing
        self._caught: Counter[str] = Counter()

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
            verdict = self._judge(mutant, pairs, items, functions)
            os.write(self._writing, f"{index} {verdict}\n".encode())
        return True

    def _judge(
        self,
        mutant: Mutant,
        pairs: list[tuple[CodeType, CodeType]],
        items: dict[str, pytest.Item],
        functions: list[FunctionType],
    ) -> Verdict:
        names = [test for test in self._reach.tests_of(mutant) if test in items]
        # What caught a mutant of this file catches the next one, too.
        names.sort(key=lambda test: (-self._caught[test], self._reach.seconds.get(test, 0.0)))
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

        code = in_child(run, 4 * seconds + 5)
        os.close(writing)
        with os.fdopen(reading) as told:
            if caught := told.read():
                self._caught[caught] += 1
        if code == 71:
            raise SystemExit(f"{mutant.file}:{mutant.line}: no function has the code to replace")
        return _verdict(code)


def _frozen() -> list[object]:
    gc.unfreeze()
    found = gc.get_objects()
    gc.freeze()
    return found
