"""A listener's new policy, and the sessions that the old one had admitted."""

from __future__ import annotations

from typing import Final

import msgspec

from ..core.session import WorkerSession
from ..wire import Close
from .policy import AuthenticatedPeer, ListenerPolicy
from .shell import Shell

_OTHER_RULES: Final = "the listener has another auth function"
_WITHDRAWN: Final = "its token was withdrawn"


def update_policy(shell: Shell, old: ListenerPolicy, new: ListenerPolicy) -> None:
    """Replace a listener's policy. Close the sessions that the new one would not admit."""
    for session_id, output in list(shell.outputs.items()):
        if isinstance(output, AuthenticatedPeer) and output.policy is old:
            output.policy = new
            session = shell.hub.sessions.get(session_id)
            if session is not None:
                _change_rules(shell, session, new)
            if not new.knows(output.token):
                shell.close_session(session_id, Close.SERVICE_RESTART, _WITHDRAWN)


def _change_rules(shell: Shell, session: WorkerSession, policy: ListenerPolicy) -> None:
    """Give a session the changed rules of its listener. Another auth function has to admit it anew."""
    old, new = session.access, policy.access
    max_channels = policy.limits.channels_per_session
    if old == new:
        shell.hub.change_rules(session, max_channels, old)
    elif (old.auth_function if old else None) != (new.auth_function if new else None):
        shell.close_session(session.id, Close.SERVICE_RESTART, _OTHER_RULES)
    else:
        evolved = new if old is None or new is None else msgspec.structs.replace(new, grants=old.grants)
        shell.hub.change_rules(session, max_channels, evolved)
