"""``joulescope serve``: the sidecar."""

from __future__ import annotations

import logging
import os
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Protocol

import click

from joulescope.cli.logs import set_up_logging
from joulescope.cli.options import settings_options
from joulescope.cli.signals import end_at_once_on_sigterm, on_ending, reap_strangers
from joulescope.cli.stay import FLAG, LAST_PAUSE_SECONDS
from joulescope.config import Settings
from joulescope.config.load import Origins
from joulescope.daemon.daemon import Daemon

END_SECONDS = 0.95
"""From the signal to the end at the latest, also where a log that nobody reads, or a disk, holds a thread up:
Kubernetes may send SIGKILL after a second."""


class Service(Protocol):
    """What runs until a signal: the sidecar, or another that starts, and flushes when it is closed."""

    def start(self) -> None: ...

    def close(self) -> object: ...


stay_option = click.option(
    FLAG,
    is_flag=True,
    help="Where it cannot start, do not end: say why in the log and on /-/ready, and try again with pauses "
    f"of at most {LAST_PAUSE_SECONDS:g} s. For Kubernetes, where a sidecar that ends at once holds up vLLM.",
)


@click.command()
@stay_option
@settings_options()
def command(settings: Settings, origins: Origins, stay: bool) -> None:
    """Measure the GPUs of a running vLLM, divide the joules among its requests, and serve the result.

    Start it before or after vLLM; the hook in vLLM finds the socket by JOULESCOPE_SOCKET or at its
    default path. SIGTERM and SIGINT flush everything within a second.
    """
    set_up_logging(settings.log_level, settings.log_format)
    run(Daemon.build(settings))


def run(service: Service, wait: Callable[[threading.Event], None] | None = None) -> None:
    """Runs until a signal asks to stop, and ends the process.

    ``wait`` comes back when the event is set; a service without a thread of its own works in there.
    """
    stop = threading.Event()
    on_ending(stop.set, END_SECONDS)
    reap_strangers()
    try:
        service.start()
    except BaseException:
        end_at_once_on_sigterm()
        raise
    stop.wait() if wait is None else wait(stop)
    service.close()
    _end()


def _end() -> None:
    """Everything is flushed or given up: a thread that still waits for a collector holds nothing up."""
    logging.shutdown()
    with suppress(OSError):  # whoever read our output has gone
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(0)
