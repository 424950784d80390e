"""The namespaces of a binding: where its provider is looked for, and which are left out of its messages."""

from __future__ import annotations

import pytest
from msgspec import Raw

from iii_trio.core.binding import Provider, TriggerBinding


def binding(namespace: str = "default", home: str = "default", trigger_namespace: str | None = None) -> TriggerBinding:
    return TriggerBinding("b", "t", "f", Raw(b"1"), Raw(), namespace, trigger_namespace, home, None)


@pytest.mark.parametrize("other", ["attic", "fleet"])
def test_a_provider_is_looked_for_at_home_and_then_in_default_or_in_the_one_namespace_that_is_named(other: str) -> None:
    assert binding().provider_namespaces == ("default",)
    assert binding(home=other).provider_namespaces == (other, "default")
    assert binding(home=other, trigger_namespace="x").provider_namespaces == ("x",)
    assert binding(home=other, trigger_namespace="default").provider_namespaces == ("default",)


@pytest.mark.parametrize("other", ["attic", "fleet"])
def test_an_offer_leaves_out_the_namespace_default_and_no_other(other: str) -> None:
    for namespace in ("default", other):
        for provider in ("default", other):
            offered = binding(namespace)
            offered.provider = Provider(provider, "t", None)
            message = offered.offer()
            assert (message.namespace or "default", message.trigger_namespace or "default") == (namespace, provider)
            assert "default" not in (message.namespace, message.trigger_namespace)


def test_what_costs_no_room_has_no_size() -> None:
    assert binding().size == Provider("default", "t", None).size == 0
