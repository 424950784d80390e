"""The cluster's line in the table of modules. It loads the module itself only when one is opened."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING, Final

from ...transport.link import Address
from ..module import Command, Module, ModuleEnvironment, RunningModule

if TYPE_CHECKING:
    from .settings import ClusterConfig


def _open(
    address: Address, settings: ClusterConfig, environment: ModuleEnvironment
) -> AbstractAsyncContextManager[RunningModule]:
    from .module import open_cluster  # here, so that an engine without a cluster loads nothing of it

    return open_cluster(address, settings, environment=environment)


CLUSTER: Final = Module(
    name="cluster",
    settings="iii_trio.triggers.cluster.settings:ClusterConfig",
    open=_open,
    worker="iii-cluster",
    entries=frozenset({"iii-cluster", "cluster"}),
    runs_by_default=False,
    commands=(
        Command("nodes", "iii_trio.cli.nodes:nodes", "List the nodes of the mesh: their leases, links and functions."),
    ),
)
