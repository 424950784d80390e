"""`iii-trio serve` as the parser knows it: the options, and the help."""

from __future__ import annotations

from typing import Annotated

from cyclopts import Parameter

from . import serve as engine
from .exits import Exit
from .logs import Level
from .serve import DEFAULT_GRACE_SECONDS, DEFAULT_LEVEL


async def serve(
    *,
    config: Annotated[str | None, Parameter(name=["--config", "-c"], help="iii's YAML configuration file.")] = None,
    host: Annotated[str | None, Parameter(help="The address to listen at; 127.0.0.1 if nothing else is said.")] = None,
    port: Annotated[int | None, Parameter(help="The port; 49134 if nothing else is said. 0: a free one.")] = None,
    data: Annotated[
        str | None,
        Parameter(
            help="The directory that jobs are kept in, or `memory`. If nothing else is said: iii-trio/PORT in "
            "$XDG_STATE_HOME (~/.local/state), and memory for port 0."
        ),
    ] = None,
    cluster: Annotated[
        str | None, Parameter(help="The store in which the nodes of a mesh meet: valkey://host:port/NAME.")
    ] = None,
    advertise: Annotated[
        str | None, Parameter(help="The address by which the other nodes reach this one: ws://10.0.0.5:49134.")
    ] = None,
    node: Annotated[
        str | None, Parameter(help="The name of this node. If nothing else is said: one of its own.")
    ] = None,
    grace: Annotated[float, Parameter(help="Seconds that a drain leaves to what still runs.")] = DEFAULT_GRACE_SECONDS,
    log_level: Annotated[Level, Parameter(help="The least that is logged, on stderr.")] = DEFAULT_LEVEL,
) -> Exit:
    """Run an engine. This is also what iii-trio does without a command.

    Prints one line when it is ready. SIGINT (Ctrl-C) and SIGTERM drain it: nothing new is begun, what runs may finish.
    A second one stops at once. SIGHUP reads the configuration again, and keeps every session that it does not forbid.
    """
    return await engine.serve(
        config=config,
        host=host,
        port=port,
        data=data,
        cluster=cluster,
        advertise=advertise,
        node=node,
        grace=grace,
        log_level=log_level,
    )
