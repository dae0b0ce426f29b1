"""One server that is looked at again and again, in a thread of its own."""

from __future__ import annotations

import logging

from joulescope import __version__, web
from joulescope.clock import Clock, WallAnchor
from joulescope.errors import FetchError
from joulescope.periodic import Periodic
from joulescope.scraping.counts import TokenCount
from joulescope.scraping.page import Page, read_page
from joulescope.surroundings_model import ServerTotals
from joulescope.units import NANOSECONDS_PER_SECOND, ns_from_seconds, seconds_from_ns

_logger = logging.getLogger(__name__)

TIMEOUT_SECONDS = 5.0
MAX_BYTES = 8 << 20
FRESH_PERIODS = 3
"""A page is shown so many periods, and once the timeout, unless a later look failed."""

START_SLACK_SECONDS = 1.0
"""Processes tell when they started to a hundredth of a second, by a boot time that clocks agree on less."""

HEADERS = {"Accept": "text/plain;version=0.0.4", "User-Agent": f"joulescope/{__version__}"}


class ScrapedServer:
    """Looks at one ``/metrics`` page each period, and knows what it said."""

    def __init__(
        self,
        url: str,
        clock: Clock,
        wall: WallAnchor,
        *,
        period_seconds: float,
        timeout_seconds: float = TIMEOUT_SECONDS,
    ) -> None:
        self.url = url
        self._clock = clock
        self._wall = wall
        self._period_seconds = period_seconds
        self._timeout_seconds = timeout_seconds
        self._fresh_ns = ns_from_seconds(FRESH_PERIODS * period_seconds + timeout_seconds)
        self._generated, self._prompt = TokenCount(), TokenCount()
        self._start_seconds: float | None = None
        self._complaint = ""
        self._told: tuple[ServerTotals, int] = ServerTotals(url), 0
        """What is known, and since when; replaced as a whole, since another thread reads it."""
        self._thread = Periodic(
            "scrape", self.step, failed=lambda: self._down("internal_error"), pause_seconds=period_seconds
        )

    def start(self) -> None:
        """Starts the thread; nothing is waited for."""
        self._thread.start()

    def stop(self, timeout_seconds: float) -> None:
        """Ends the thread, or leaves it behind if the server holds it."""
        self._thread.stop(timeout_seconds)

    def step(self) -> float:
        """One look; returns the pause until the next, seconds."""
        asked_ns = self._clock.now_ns()
        try:
            page = read_page(
                web.get(
                    self.url,
                    self._clock,
                    headers=HEADERS,
                    timeout_seconds=self._timeout_seconds,
                    max_bytes=MAX_BYTES,
                    direct=True,
                )
            )
        except FetchError as error:
            return self._failed(error)
        self._take(page, asked_ns)
        return max(self._period_seconds - seconds_from_ns(self._clock.now_ns() - asked_ns), 0.0)

    def totals(self, now_ns: int) -> ServerTotals:
        """What is known now; may be called from any thread. Of a server that is down only that."""
        told, time_ns = self._told
        if told.up and now_ns - time_ns > self._fresh_ns:
            return _only_down(told)
        return told

    def _take(self, page: Page, time_ns: int) -> None:
        if self._complaint:
            _logger.info("%s answers again", self.url)
        self._complaint = ""
        told, seen_ns = self._told
        restarted, swapped = self._compare_starts(page.start_seconds, seen_ns)
        resets = [swapped]
        for count, values in (
            (self._generated, page.generated_tokens),
            (self._prompt, page.prompt_tokens),
        ):
            if swapped:
                count.start_over()
            resets.append(count.take({} if page.kind is None else values, restarted=restarted))
        self._told = (
            ServerTotals(
                server=self.url,
                kind="" if page.kind is None else page.kind.name,
                up=True,
                generated_tokens=None if page.generated_tokens is None else self._generated.tokens,
                prompt_tokens=None if page.prompt_tokens is None else self._prompt.tokens,
                running=page.running,
                waiting=page.waiting,
                kv_usage_ratio=page.kv_usage_ratio,
                resets=told.resets + any(resets),
                failures=told.failures,
            ),
            time_ns,
        )

    def _compare_starts(self, start_seconds: float | None, seen_ns: int) -> tuple[bool, bool]:
        """Whether the process is a new one, and whether it was there before we last saw the old one.

        Then it did not follow it: a load balancer stands between, or the clock was set. All that it counted
        in its life is not to be added to what the other did.
        """
        before, self._start_seconds = self._start_seconds, start_seconds
        if before is None or start_seconds is None or start_seconds == before:
            return False, False
        seen_seconds = self._wall.wall_of(seen_ns) / NANOSECONDS_PER_SECOND
        return True, start_seconds < seen_seconds - START_SLACK_SECONDS

    def _failed(self, error: FetchError) -> float:
        """Tries again after the usual pause and not later: tokens that a server makes before it is first
        seen are not counted."""
        self._down(error.reason)
        message = str(error) if str(error).startswith(self.url) else f"{self.url}: {error}"
        if message != self._complaint:  # once for each trouble, not once for each try
            self._complaint = message
            _logger.warning("no figures of a server: %s", message)
        return self._period_seconds

    def _down(self, reason: str) -> None:
        told, time_ns = self._told
        failures = {**told.failures, reason: told.failures.get(reason, 0) + 1}
        self._told = (_only_down(told, failures), time_ns)


def _only_down(told: ServerTotals, failures: dict[str, int] | None = None) -> ServerTotals:
    """Without all that the server would have to say anew. Its counters too: joules go on meanwhile, and a
    counter that stands still would make each token look dear."""
    return ServerTotals(told.server, resets=told.resets, failures=failures or told.failures)
