"""How many calls run at a time: as many as the endpoint takes."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

SLOWER = 0.7  # share of the calls that stay allowed after a 429
LONGEST_PAUSE = 60.0  # seconds, where the endpoint does not say how long


class AdaptiveLimit:
    """Fewer calls after a refusal, one more after each answer, and a pause for all when the
    endpoint asks one to wait.

    Args:
        most: calls at a time, at the start and at most.
        backoff: seconds of the first pause where the endpoint names none; doubled while it goes on
            refusing.

    Attributes:
        refusals: in a row, those of calls that were in flight together counted once.
        paused: seconds that calls were asked to wait since the last that was answered.
        halted: set where no call is to be made any more, so that nobody waits to make one.
    """

    def __init__(self, most: int, backoff: float) -> None:
        self.most, self.backoff = most, backoff
        self.allowed = float(most)
        self.active = 0
        self.refusals, self.paused = 0, 0.0
        self.halted = asyncio.Event()
        self._resume = self._slowed = 0.0
        self._changed = asyncio.Condition()

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[float]:
        """Wait for a turn and hold it; gives the time at which it began."""
        async with self._changed:
            await self._changed.wait_for(lambda: self.active < max(int(self.allowed), 1))
            self.active += 1
        try:
            while (pause := self._resume - time.monotonic()) > 0 and not self.halted.is_set():
                await self.sleep(pause)
            yield time.monotonic()
        finally:
            async with self._changed:
                self.active -= 1
                self._changed.notify(2)  # one for this turn, one in case more are allowed now

    async def sleep(self, seconds: float) -> None:
        """Wait, unless nobody is to wait any more."""
        with suppress(TimeoutError):
            await asyncio.wait_for(self.halted.wait(), seconds)

    def refused(self, began: float, seconds: float) -> float:
        """A call was refused for its rate; gives the seconds to wait.

        Args:
            began: when it began. Calls that were in flight together are refused together: that
                counts once.
            seconds: that the endpoint asks to wait; 0 where it does not say.
        """
        if began >= self._slowed:
            self.allowed = max(1.0, self.allowed * SLOWER)
            self._slowed = time.monotonic()
            self.refusals += 1
        pause = seconds or min(self.backoff * 2 ** (self.refusals - 1), LONGEST_PAUSE)
        resume = max(self._resume, time.monotonic() + pause)
        self.paused += resume - max(self._resume, time.monotonic())
        self._resume = resume
        return pause

    def accepted(self) -> None:
        """A call was answered."""
        self.refusals, self.paused = 0, 0.0
        self.allowed = min(float(self.most), self.allowed + 1)
