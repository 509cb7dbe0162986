"""Pauses of the queue: what stands in the way of every observation, and when that is tried to be over."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass

from dsa110_contimg.pipeline.metrics import Metrics
from dsa110_contimg.pipeline.state import State
from dsa110_contimg.pipeline.trouble import Trouble

__all__ = ["Pauses"]

logger = logging.getLogger(__name__)

#: While nothing can be done an observation is tried again after so long, then after twice as long, up to
#: the longest, seconds.
FIRST_TRY_S, LONGEST_TRY_S = 10.0, 600.0


@dataclass
class _Pause:
    """Nothing is begun, but for one observation now and then that shows whether the trouble is over."""

    trouble: Trouble
    began: float
    wait_s: float
    try_after: float
    #: Where the driver sees for itself when it is over nothing has to be tried.
    seen: bool
    #: What it came on top of, and what holds again after it.
    under: _Pause | None = None


class Pauses:
    """Whether anything may be begun; whatever changes is told by state, metrics and log.

    Parameters
    ----------
    state : State
        The run state.
    metrics : Metrics
        Those of the driver.
    """

    def __init__(self, state: State, metrics: Metrics) -> None:
        self.state = state
        self.metrics = metrics
        self._pause: _Pause | None = None

    @property
    def kind(self) -> str | None:
        """What is away; None while work goes on."""
        return self._pause.trouble.kind if self._pause else None

    def see(self, trouble: Trouble | None) -> None:
        """Take what the driver sees, which looks for it every time: that something is away, or nothing."""
        last = self._pause
        if trouble is None:
            if last is not None and last.seen:
                self._end("what was away is back")
        elif last is None or last.trouble.kind != trouble.kind:
            if last is not None and last.seen:
                # It is no longer seen.
                self.metrics.paused.labels(last.trouble.kind).set(0)
            now = time.monotonic()
            self._begin(_Pause(trouble, now, FIRST_TRY_S, now, True, None if last and last.seen else last))

    def meet(self, trouble: Trouble) -> None:
        """Take what an observation has met; it is tried again later every time."""
        now, last = time.monotonic(), self._pause
        if last is not None and last.trouble.kind == trouble.kind:
            wait = min(2 * last.wait_s, LONGEST_TRY_S)
            self._pause = _Pause(trouble, last.began, wait, now + wait, False, last.under)
            return
        if last is not None and last.seen:
            self.metrics.paused.labels(last.trouble.kind).set(0)
            last = None
        self._begin(_Pause(trouble, now, FIRST_TRY_S, now + FIRST_TRY_S, False, last))

    def holds(self, *, busy: bool) -> bool:
        """Whether nothing may be begun now.

        Parameters
        ----------
        busy : bool
            Whether something is in work that will show whether the trouble is over.
        """
        pause = self._pause
        return pause is not None and (pause.seen or busy or time.monotonic() < pause.try_after)

    def tried(self) -> None:
        """Note that an observation is begun to see whether the trouble is over."""
        if self._pause is not None:
            self._pause.try_after = time.monotonic() + self._pause.wait_s

    def went_through(self, since: float) -> None:
        """Note that an observation begun at a monotonic time, seconds, was done: what it had met is over."""
        if self._pause is not None and not self._pause.seen and since >= self._pause.began:
            self._end("an observation went through")

    def _begin(self, pause: _Pause) -> None:
        self._pause, trouble = pause, pause.trouble
        self.metrics.paused.labels(trouble.kind).set(1)
        self.state.pause(trouble.text)
        fields = {"event": "paused", "trouble": trouble.kind}
        logger.error("paused until that is over: %s", trouble.text, extra=fields)
        self.metrics.write_file()

    def _end(self, why: str) -> None:
        assert self._pause is not None
        self.metrics.paused.labels(self._pause.trouble.kind).set(0)
        self._pause = self._pause.under
        if self._pause is not None:
            self.state.pause(self._pause.trouble.text)
            logger.warning("%s, but: %s", why, self._pause.trouble.text, extra={"event": "paused"})
            return
        self.state.go_on()
        logger.warning("goes on: %s", why, extra={"event": "continued"})
