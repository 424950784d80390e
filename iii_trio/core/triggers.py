"""The ledger of trigger types and bindings.

The engine never fires a worker's trigger type. It sends bindings to the provider, and a refusal to the worker that asked.
A binding is in the ledger before its provider is told, so that an answer always finds it.
"""

from __future__ import annotations

import heapq
import logging
from collections import Counter
from collections.abc import Callable, Iterator

from ..wire import FEATURE, WireError, encode, to_json
from .binding import BindingEvent, Provider, TriggerBinding
from .effects import Effect, Log, Send
from .peer_limits import why_unfit
from .session import WorkerSession


class Triggers:
    """All trigger types and bindings."""

    def __init__(self, emit: Callable[[Effect], None]) -> None:
        self._emit = emit
        self._providers: dict[tuple[str, str], Provider] = {}
        self._bindings: dict[str, TriggerBinding] = {}
        self._of_type: dict[str, dict[str, TriggerBinding]] = {}
        self._counts: Counter[tuple[str, str]] = Counter()
        """The number of bindings of each session to each type, by session id and type. The id of durable ones is empty."""
        self.last_number = 0
        """The number of the latest binding."""
        self.revision = 0
        """The number of changes so far."""
        self.durable = 0
        """The number of durable bindings."""
        self.durable_bytes = 0
        self.warned_types: set[str] = set()
        """The built-in types of iii that were bound here without a provider."""
        self.waits: list[tuple[float, str]] = []  # a heap with stale entries, which are checked when due

    def __iter__(self) -> Iterator[TriggerBinding]:
        return iter(self._bindings.values())

    def __len__(self) -> int:
        return len(self._bindings)

    def get(self, binding_id: str) -> TriggerBinding | None:
        return self._bindings.get(binding_id)

    def of_type(self, trigger_type: str) -> list[TriggerBinding]:
        """Return every binding to a type of this id, live or parked, oldest first."""
        return list(self._of_type.get(trigger_type, {}).values())

    def has_bindings(self, trigger_type: str) -> bool:
        """Return whether there is any binding to a type of this id."""
        return trigger_type in self._of_type

    def count(self, holder: str, trigger_type: str) -> int:
        """Return the number of a session's bindings to a type. `holder` is the session's id, or empty for durable ones."""
        return self._counts.get((holder, trigger_type), 0)

    def providers(self) -> list[Provider]:
        """Return all providers."""
        return list(self._providers.values())

    def provider(self, namespace: str, trigger_type: str) -> Provider | None:
        """Return the provider of this type in this namespace."""
        return self._providers.get((namespace, trigger_type))

    # --- trigger types

    def provide(self, provider: Provider) -> None:
        """Add a provider, or replace an earlier one of its type. Offer it the bindings that wait for the type."""
        self.revision += 1
        before = self._providers.get(provider.key)
        if before is not None and before.session is not None:
            before.session.trigger_types.discard(provider.key)
            before.session.registration_bytes -= before.size
        self._providers[provider.key] = provider
        if provider.session is not None:
            provider.session.trigger_types.add(provider.key)
            provider.session.registration_bytes += provider.size
        for binding in self.of_type(provider.type):
            if self.find_provider(binding) is provider:
                self._offer(binding, provider)

    def release(self, key: tuple[str, str], session: WorkerSession) -> None:
        """Remove a session's trigger type. Its bindings go to another provider, or are parked."""
        provider = self._providers.get(key)
        if provider is None or provider.session is not session:
            return
        self.revision += 1
        del self._providers[key]
        session.trigger_types.discard(key)
        session.registration_bytes -= provider.size
        for binding in self.of_type(provider.type):
            if binding.provider is provider:
                settle(binding)
                binding.state.advance(BindingEvent.PROVIDER_LEFT)
                binding.provider = None
                self._place(binding)

    # --- bindings

    def bind(self, binding: TriggerBinding) -> None:
        """Add a binding and offer it to a provider. It replaces an earlier one of the same id, of any owner."""
        before = self._bindings.get(binding.id)
        if before is not None:
            # The same provider takes the new offer as a replacement, so only another one needs the withdrawal.
            if before.provider is not self.find_provider(binding):
                self._tell_withdrawn(before)
            self._forget(before)
        self.last_number += 1
        binding.number = self.last_number
        self.revision += 1
        self._bindings[binding.id] = binding
        self._counts[binding.holder, binding.trigger_type] += 1
        self._of_type.setdefault(binding.trigger_type, {})[binding.id] = binding
        if binding.owner is not None:
            binding.owner.bindings.add(binding.id)
            binding.owner.registration_bytes += binding.size
        else:
            self.durable += 1
            self.durable_bytes += binding.size
        self._place(binding)

    def withdraw(self, binding: TriggerBinding, *, owner_gone: bool = False) -> None:
        """End a binding and tell its provider."""
        self._tell_withdrawn(binding, owner_gone=owner_gone)
        self._forget(binding)

    def refused(self, binding: TriggerBinding) -> None:
        """Park a binding that its provider refused."""
        binding.state.advance(BindingEvent.REFUSED)
        binding.provider = None

    def session_ended(self, session: WorkerSession) -> None:
        """End the bindings of a session (clause C4.5)."""
        for binding_id in sorted(session.bindings):
            self.withdraw(self._bindings[binding_id], owner_gone=True)

    def types_released(self, session: WorkerSession) -> None:
        """Remove the trigger types of a session (clause C4.5)."""
        for key in sorted(session.trigger_types):
            self.release(key, session)

    # --- waiting for a provider's answer

    def wait_for_answer(self, binding: TriggerBinding, until: float) -> None:
        """Answer the request for a binding at this time, if its provider has not answered by then."""
        heapq.heappush(self.waits, (until, binding.id))

    def next_due(self) -> float | None:
        """Return when `expire` has something to do, at the latest."""
        while self.waits:
            binding = self._bindings.get(self.waits[0][1])
            if binding is not None and binding.request is not None:
                return self.waits[0][0]
            heapq.heappop(self.waits)
        return None

    def expire(self, now: float) -> None:
        """Answer the requests that no provider refused in time. Silence counts as acceptance."""
        while self.waits and self.waits[0][0] <= now:
            _, binding_id = heapq.heappop(self.waits)
            binding = self._bindings.get(binding_id)
            if binding is not None:
                settle(binding)

    # --- inside

    def find_provider(self, binding: TriggerBinding) -> Provider | None:
        """Return the provider for a binding, whether or not it has accepted it."""
        for namespace in binding.provider_namespaces:
            provider = self._providers.get((namespace, binding.trigger_type))
            if provider is not None:
                return provider
        return None

    def _place(self, binding: TriggerBinding) -> None:
        provider = self.find_provider(binding)
        if provider is not None:
            self._offer(binding, provider)

    def _offer(self, binding: TriggerBinding, provider: Provider) -> None:
        before = binding.provider
        # Another provider had the binding until now.
        if before is not None and (before.session is not provider.session or before.key != provider.key):
            self._tell_withdrawn(binding)
        binding.provider = provider
        binding.state.advance(BindingEvent.OFFERED)
        if provider.session is None:
            # The engine itself provides the type and accepts every binding.
            binding.state.advance(BindingEvent.ACCEPTED)
            return
        offer = encode(binding.offer())
        unfit = why_unfit(provider.session, offer)
        if unfit is None:
            self._emit(Send(provider.session.id, offer))
        else:
            self._not_offered(binding, provider.session, unfit)

    def _not_offered(self, binding: TriggerBinding, provider: WorkerSession, unfit: WireError) -> None:
        """Refuse a binding in the name of its provider, which could not read it."""
        self.refused(binding)
        fields = {"session": provider.id, "binding": binding.id, "function": binding.function_id}
        text = f"the binding {binding.id} of {binding.function_id} was not offered: {unfit.message}"
        self._emit(Log(logging.WARNING, text, fields, peer_controlled=True))
        # The maker of a durable binding is answered by its request.
        if binding.owner is not None:
            self._emit(Send(binding.owner.id, encode(binding.refusal(to_json(unfit)))))

    def _forget(self, binding: TriggerBinding) -> None:
        self.revision += 1
        binding.state.advance(BindingEvent.WITHDRAWN)
        binding.provider = None
        del self._bindings[binding.id]
        counted = binding.holder, binding.trigger_type
        self._counts[counted] -= 1
        if not self._counts[counted]:
            del self._counts[counted]
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
        settle(binding)

    def _tell_withdrawn(self, binding: TriggerBinding, *, owner_gone: bool = False) -> None:
        provider = binding.provider
        if provider is None or provider.session is None or provider.session.state.is_final:
            return
        withdrawal = binding.withdrawal(owner_gone=owner_gone and FEATURE in provider.session.features)
        self._emit(Send(provider.session.id, encode(withdrawal)))


def settle(binding: TriggerBinding) -> None:
    """Answer the request for a durable binding with its id, if one waits."""
    request, binding.request = binding.request, None
    if request is not None:
        request.reply({"id": binding.id})
