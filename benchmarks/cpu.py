"""CPU time of other processes."""

from __future__ import annotations

import time

_SCHEDULED = 2
"""Linux's CPUCLOCK_SCHED: the clock that the scheduler keeps, of all threads of a process, also of those that ended."""


def cpu_seconds(pid: int) -> float:
    """Return the user and system time of a process so far, exact to microseconds. /proc has it in steps of 10 ms.

    The clock's number is what clock_getcpuclockid(3) gives, which Python has no call for.
    """
    return time.clock_gettime((~pid << 3) | _SCHEDULED)
