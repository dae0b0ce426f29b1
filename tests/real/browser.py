"""A real Chromium, driven by playwright, that notes what a user of developer tools would see."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from tests.requirements import need_package, need_program

ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--disable-background-networking"]
PATIENCE_MS = 30_000
POLL_MS = 50


@dataclass
class Tab:
    """One page of the browser, and what it said and asked for."""

    page: Any
    complaints: list[str] = field(default_factory=list)
    """Errors and warnings of the console, uncaught errors, requests that failed."""
    asked: list[str] = field(default_factory=list)
    """Addresses of all requests."""

    def watch(self) -> None:
        self.page.set_default_timeout(PATIENCE_MS)
        self.page.on("console", self._console)
        self.page.on("pageerror", lambda error: self.complaints.append(f"uncaught: {error}"))
        self.page.on("requestfailed", self._failed)
        self.page.on("request", lambda request: self.asked.append(request.url))

    def _failed(self, request: Any) -> None:
        self.complaints.append(f"failed ({request.failure}): {request.url}")

    def _console(self, message: Any) -> None:
        if message.type in ("error", "warning"):
            self.complaints.append(f"{message.type}: {message.text}")

    def text(self, selector: str) -> str:
        """The visible text of one element, its white space as single blanks."""
        return " ".join(str(self.page.inner_text(selector)).split())

    def value(self, expression: str) -> Any:
        """What an expression of JavaScript yields."""
        return self.page.evaluate(expression)

    def wait(self, expression: str) -> None:
        """Until an expression of JavaScript holds.

        Not by playwright's own waiting, which makes code of text inside the page: its policy forbids that.
        """
        self.until(lambda: self.value(expression), expression)

    def until(self, true: Callable[[], object], what: str) -> None:
        """Until a condition holds; what the browser reports is heard meanwhile."""
        deadline = time.monotonic() + PATIENCE_MS / 1e3
        while not true():
            if time.monotonic() > deadline:
                raise AssertionError(f"waited {PATIENCE_MS} ms in vain for {what}")
            self.page.wait_for_timeout(POLL_MS)


@contextmanager
def browser() -> Iterator[Any]:
    """Chromium as the system has it; without it or playwright the test is skipped by name."""
    need_package("playwright")
    program = need_program("chromium")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=program, args=ARGUMENTS)
        try:
            yield chromium
        finally:
            chromium.close()


@contextmanager
def tab(chromium: Any, **options: Any) -> Iterator[Tab]:
    """A fresh profile with one page; ``options`` are those of playwright's ``new_context``."""
    context = chromium.new_context(**options)
    try:
        opened = Tab(context.new_page())
        opened.watch()
        yield opened
    finally:
        context.close()
