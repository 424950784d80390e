"""The reasons for which a node of another version is refused."""

from __future__ import annotations

from ...version import installed_version
from .records import LINKS, Node
from .store import OtherLayout


def layout_refused(other: OtherLayout) -> str:
    """Return why this node may not join nodes that keep their data in another layout."""
    return (
        f"the mesh has nodes of version {other.version or 'unknown'}, which keep their data in another layout "
        f"({other.layout}) than this one (version {installed_version() or 'unknown'}): start this node with their version, "
        "or after the last of them has left"
    )


def links_refused(node: Node) -> str:
    """Return why there is no link to a node whose links this engine does not understand."""
    theirs, ours = (f"{oldest} to {newest}" for oldest, newest in (node.links, LINKS))
    return (
        f"it is of version {node.version or 'unknown'}, which understands links of versions {theirs}, and this one "
        f"({installed_version() or 'unknown'}) those of {ours}: update the older node"
    )
