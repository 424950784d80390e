"""The callers that wait for the ends of jobs."""

from __future__ import annotations

from typing import final

import trio


@final
class Waiters:
    """Callers by the ids of their jobs."""

    def __init__(self) -> None:
        self._parked: dict[str, trio.lowlevel.ParkingLot] = {}

    async def wait(self, job_id: str) -> None:
        """Wait until `wake` is called for this job. If cancelled: nothing changes."""
        parked = self._parked.setdefault(job_id, trio.lowlevel.ParkingLot())
        try:
            await parked.park()
        finally:
            if not parked and self._parked.get(job_id) is parked:
                del self._parked[job_id]

    def wake(self, job_id: str) -> None:
        """Wake the callers that wait for the end of a job."""
        if self._parked and (parked := self._parked.pop(job_id, None)) is not None:
            parked.unpark_all()

    def wake_all(self) -> None:
        """Wake all callers, because no job ends any more."""
        for job_id in list(self._parked):
            self.wake(job_id)
