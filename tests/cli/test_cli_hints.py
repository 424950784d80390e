"""What commands add to the errors of calls: near names, and values that were read as JSON."""

from __future__ import annotations

import pytest

import iii_trio
from iii_trio.cli.calling import Deadline
from iii_trio.cli.hints import call_named, tell_if_missing
from iii_trio.cli.payload import json_hint, make_payload
from iii_trio.errors import CallError


async def failed(function: str, *pairs: str, namespace: str | None = None) -> str:
    """The error of a command's call at an engine with some functions."""
    async with iii_trio.open_engine() as engine, engine.open_worker("files") as worker:

        @worker.function("files::count")
        async def count(name: str, least: int = 0) -> int:
            return await worker.trigger("files::missing")

        async with engine.open_worker("orders", namespace="orders") as other:
            other.register_function("orders::price", count)
            await other.wait_registered()
            with pytest.raises(CallError) as caught:
                payload = make_payload(None, pairs)
                await call_named(worker, function, payload, pairs, namespace=namespace, deadline=Deadline(5))
    return f"{caught.value.code}: {caught.value.message}"


LISTS = "`iii-trio functions` lists those that there are"


@pytest.mark.parametrize(
    ("function", "namespace", "problem"),
    [
        ("files::coun", None, f"files::coun not found in namespace default. Did you mean `files::count`? {LISTS}"),
        ("zzz", None, f"zzz not found in namespace default. {LISTS}"),
        ("files::coun", "orders", f"files::coun not found in namespace orders. {LISTS}"),
        (
            "orders::price",
            None,
            "orders::price not found in namespace default. It is registered in namespace(s): orders. Say --namespace orders",
        ),
    ],
)
async def test_a_misspelt_function_is_told_with_the_one_that_may_be_meant(
    function: str, namespace: str | None, problem: str
) -> None:
    assert await failed(function, namespace=namespace) == f"function_not_found: Function {problem}"


async def test_a_function_that_a_handler_misses_is_not_the_users_mistake() -> None:
    problem = await failed("files::count", "name=x")
    assert problem.startswith("function_not_found: Function files::missing not found")
    assert "iii-trio functions" not in problem


async def test_a_value_that_was_read_as_json_is_told_with_the_words_for_a_text() -> None:
    assert (await failed("files::count", "name=5")).endswith(
        """name: expected a string, got an integer; 5 was read as JSON, so write 'name="5"' for a string"""
    )
    assert (await failed("files::count", "name=x", "least=y")).endswith("least: expected an integer, got a string")


@pytest.mark.parametrize(
    ("problem", "pairs", "hint"),
    [
        ("to: expected a string", ["n=1", "to=null"], """; null was read as JSON, so write 'to="null"' for a string"""),
        ("f: to: expected a string", ["to=[1]"], """; [1] was read as JSON, so write 'to="[1]"' for a string"""),
        ("f: to: expected a number, got a string", ["to=true"], ""),
        ("f: address.to: expected a string, got an integer", ["to=5"], ""),
        ("f: to: expected a string, got an integer", ['to="5"'], ""),
        ("f: to: expected a string, got an integer", [], ""),
    ],
)  # fmt: skip
def test_only_the_pair_that_the_error_is_about_has_a_hint(problem: str, pairs: list[str], hint: str) -> None:
    assert json_hint(problem, pairs) == hint


async def test_a_job_without_a_function_is_told_and_one_with_it_is_not(capsys: pytest.CaptureFixture[str]) -> None:
    async with iii_trio.open_engine() as engine, engine.open_worker("post") as worker:
        worker.register_function("mail::send", lambda to: None)
        await worker.wait_registered()
        for function, namespace in (("mail::send", None), ("mail::sendd", None), ("mail::send", "orders")):
            await tell_if_missing(worker, function, namespace)
    assert capsys.readouterr().err == (
        "no worker offers mail::sendd now; the job waits for one\n"
        "no worker offers mail::send in namespace orders now; the job waits for one\n"
    )
