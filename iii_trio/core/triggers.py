"""The ledger of trigger types and bindings: who provides what, and who has asked for it.

The engine never fires for a worker's trigger type: it only tells the provider of the bindings, and the binder of a
refusal. A binding is in the ledger before its provider is told, so that an answer always finds it.
"""

from __future__ import annotations

import heapq
import logging
from collections.abc import Iterator

from ..wire import FEATURE, WireError, encode, to_json
from .binding import Binding, BindingEvent, Provider
from .effects import Effects, Log, Send
from .session import Session
from .unfit import why_unfit


class Triggers:
    """All trigger types and bindings."""

    def __init__(self) -> None:
        self._providers: dict[tuple[str, str], Provider] = {}
        self._bindings: dict[str, Binding] = {}
        self._of_type: dict[str, dict[str, Binding]] = {}
        self.durable = 0
        """How many bindings nobody owns."""
        self.durable_bytes = 0
        self._waits: list[tuple[float, str]] = []  # a heap, with stale entries: looked at again when due

    def __iter__(self) -> Iterator[Binding]:
        return iter(self._bindings.values())

    def __len__(self) -> int:
        return len(self._bindings)

    def get(self, binding_id: str) -> Binding | None:
        return self._bindings.get(binding_id)

    def of_type(self, trigger_type: str) -> list[Binding]:
        """Every binding to a type of this id, live or parked, the oldest first."""
        return list(self._of_type.get(trigger_type, {}).values())

    def asked_for(self, trigger_type: str) -> bool:
        """Whether there is any binding to a type of this id."""
        return trigger_type in self._of_type

    def providers(self) -> list[Provider]:
        """Whoever provides something."""
        return list(self._providers.values())

    def provider(self, namespace: str, trigger_type: str) -> Provider | None:
        """Who provides this type in this namespace."""
        return self._providers.get((namespace, trigger_type))

    # --- trigger types

    def provide(self, provider: Provider) -> Effects:
        """A trigger type is provided, by this one instead of an earlier one: whoever asked for it now has it here."""
        before = self._providers.get(provider.key)
        if before is not None and before.session is not None:
            before.session.trigger_types.discard(provider.key)
            before.session.registration_bytes -= before.size
        self._providers[provider.key] = provider
        if provider.session is not None:
            provider.session.trigger_types.add(provider.key)
            provider.session.registration_bytes += provider.size
        effects: Effects = []
        for binding in self.of_type(provider.type):
            if self._find(binding) is provider:
                effects += self._offer(binding, provider)
        return effects

    def release(self, key: tuple[str, str], session: Session) -> Effects:
        """A session no longer provides a type: its bindings go to another provider, or are parked."""
        provider = self._providers.get(key)
        if provider is None or provider.session is not session:
            return []
        del self._providers[key]
        session.trigger_types.discard(key)
        session.registration_bytes -= provider.size
        effects: Effects = []
        for binding in self.of_type(provider.type):
            if binding.provider is provider:
                effects += settle(binding)
                binding.state.advance(BindingEvent.PROVIDER_LEFT)
                binding.provider = None
                effects += self._place(binding)
        return effects

    # --- bindings

    def bind(self, binding: Binding) -> Effects:
        """A binding is asked for, instead of an earlier one of its id, whoever that was from."""
        before = self._bindings.get(binding.id)
        effects: Effects = []
        if before is not None:
            if before.provider is not self._find(binding):  # else its provider takes the new one for the old one's
                effects += _tell_withdrawn(before)
            effects += self._forget(before)
        self._bindings[binding.id] = binding
        self._of_type.setdefault(binding.trigger_type, {})[binding.id] = binding
        if binding.owner is not None:
            binding.owner.bindings.add(binding.id)
            binding.owner.registration_bytes += binding.size
        else:
            self.durable += 1
            self.durable_bytes += binding.size
        return effects + self._place(binding)

    def withdraw(self, binding: Binding, *, owner_gone: bool = False) -> Effects:
        """A binding is over; its provider is told."""
        return _tell_withdrawn(binding, owner_gone=owner_gone) + self._forget(binding)

    def refused(self, binding: Binding) -> None:
        """Its provider does not take it."""
        binding.state.advance(BindingEvent.REFUSED)
        binding.provider = None

    def session_ended(self, session: Session) -> Effects:
        """The bindings' part of clause C4.5."""
        effects: Effects = []
        for binding_id in sorted(session.bindings):
            effects += self.withdraw(self._bindings[binding_id], owner_gone=True)
        return effects

    def types_released(self, session: Session) -> Effects:
        """The trigger types' part of clause C4.5."""
        effects: Effects = []
        for key in sorted(session.trigger_types):
            effects += self.release(key, session)
        return effects

    # --- waiting for a provider's word

    def wait_for_word(self, binding: Binding, until: float) -> None:
        """Settle this binding's answer then, whatever its provider has said."""
        heapq.heappush(self._waits, (until, binding.id))

    def next_due(self) -> float | None:
        """When to look again, at the latest."""
        while self._waits:
            binding = self._bindings.get(self._waits[0][1])
            if binding is not None and binding.answer is not None:
                return self._waits[0][0]
            heapq.heappop(self._waits)
        return None

    def expire(self, now: float) -> Effects:
        """A provider that says nothing has accepted."""
        effects: Effects = []
        while self._waits and self._waits[0][0] <= now:
            _, binding_id = heapq.heappop(self._waits)
            binding = self._bindings.get(binding_id)
            if binding is not None:
                effects += settle(binding)
        return effects

    # --- inside

    def _find(self, binding: Binding) -> Provider | None:
        for namespace in binding.homes:
            provider = self._providers.get((namespace, binding.trigger_type))
            if provider is not None:
                return provider
        return None

    def _place(self, binding: Binding) -> Effects:
        provider = self._find(binding)
        return self._offer(binding, provider) if provider is not None else []

    def _offer(self, binding: Binding, provider: Provider) -> Effects:
        before = binding.provider
        effects: Effects = []
        if before is not None and (before.session is not provider.session or before.key != provider.key):
            effects += _tell_withdrawn(binding)
        binding.provider = provider
        binding.state.advance(BindingEvent.OFFERED)
        if provider.session is None:
            binding.state.advance(BindingEvent.ACCEPTED)
            return effects
        offer = encode(binding.offer())
        unfit = why_unfit(provider.session, offer)
        if unfit is None:
            return [*effects, Send(provider.session.id, offer)]
        return effects + self._unfit(binding, provider.session, unfit)

    def _unfit(self, binding: Binding, provider: Session, unfit: WireError) -> Effects:
        """A provider that cannot read this binding is not told of it: as if it had refused."""
        self.refused(binding)
        about = {"session": provider.id, "binding": binding.id, "function": binding.function_id}
        text = f"the binding {binding.id} of {binding.function_id} was not offered: {unfit.message}"
        effects: Effects = [Log(logging.WARNING, text, about, peer_controlled=True)]
        if binding.owner is not None:
            effects.append(Send(binding.owner.id, encode(binding.refusal(to_json(unfit)))))
        return effects

    def _forget(self, binding: Binding) -> Effects:
        binding.state.advance(BindingEvent.WITHDRAWN)
        binding.provider = None
        del self._bindings[binding.id]
        of_type = self._of_type[binding.trigger_type]
        del of_type[binding.id]
        if not of_type:
            del self._of_type[binding.trigger_type]
        if binding.owner is not None:
            binding.owner.bindings.discard(binding.id)
            binding.owner.registration_bytes -= binding.size
        else:
            self.durable -= 1
            self.durable_bytes -= binding.size
        return settle(binding)


def settle(binding: Binding) -> Effects:
    """Whoever waits for a durable binding has it."""
    answer, binding.answer = binding.answer, None
    return answer.settle({"id": binding.id}) if answer is not None else []


def _tell_withdrawn(binding: Binding, *, owner_gone: bool = False) -> Effects:
    provider = binding.provider
    if provider is None or provider.session is None or provider.session.state.is_final:
        return []
    withdrawal = binding.withdrawal(owner_gone=owner_gone and FEATURE in provider.session.features)
    return [Send(provider.session.id, encode(withdrawal))]
