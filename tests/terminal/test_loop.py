"""What the loop does around the frames."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest

from joulescope.terminal.loop import logs_held_back


class Collector(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.messages: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.messages.append(record.getMessage())


@pytest.fixture
def collector() -> Iterator[Collector]:
    """A handler of the root logger, as the demo has one on standard error."""
    root, collector = logging.getLogger(), Collector()
    handlers, root.handlers = root.handlers, [collector]
    yield collector
    root.handlers = handlers


def test_log_lines_do_not_cross_the_frame(collector: Collector) -> None:
    """They are kept, the view knows the last, and all come in order when the terminal is given back."""
    lines: list[str] = []
    logger = logging.getLogger("joulescope.test")
    with logs_held_back(lines):
        logger.warning("first %d", 1)
        logger.warning("second")
        assert collector.messages == []
        assert lines == ["first 1", "second"]
    assert collector.messages == ["first 1", "second"]
    logger.warning("third")
    assert collector.messages[-1] == "third"


def test_lines_are_kept_after_an_error_too_and_are_bounded(collector: Collector) -> None:
    """A thousand are kept at most, the latest."""

    def fail_after_many_lines() -> None:
        with logs_held_back([]):
            for number in range(1500):
                logging.getLogger("joulescope.test").warning("%d", number)
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail_after_many_lines()
    assert len(collector.messages) == 1000
    assert collector.messages[-1] == "1499"
