"""What is promised in the documents, and its tests, belong together."""

from __future__ import annotations

import importlib.util
from pathlib import Path

_spec = importlib.util.spec_from_file_location("clause_table", Path(__file__).parents[2] / "docs" / "clause_table.py")
assert _spec is not None and _spec.loader is not None
clause_table = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(clause_table)


def test_every_promise_has_a_test_and_every_test_a_promise() -> None:
    promises = [promise for page in clause_table.PAGES for promise in clause_table.promises(page)]
    tests = clause_table.tests_of_promises()
    assert len(promises) == len(set(promises)) == 41 + 8 + 37 + 16 + 8 + 34
    assert set(promises) - set(tests) <= set(clause_table.UNPROVEN)
    assert not set(clause_table.UNPROVEN) & set(tests), "it is proven by now"
    assert not set(tests) - set(promises)


def test_the_table_is_fresh() -> None:
    assert clause_table.TABLE.read_text() == clause_table.render(), "run: python docs/clause_table.py"
