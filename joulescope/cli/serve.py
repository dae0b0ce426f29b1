"""``joulescope serve``: the sidecar."""

from __future__ import annotations

import logging
import os
import sys
import threading
from contextlib import suppress
from typing import Protocol

import click

from joulescope.cli.logs import set_up_logging
from joulescope.cli.options import settings_options
from joulescope.cli.signals import on_ending, reap_strangers
from joulescope.cli.stay import FLAG, LAST_PAUSE_SECONDS
from joulescope.config import Settings
from joulescope.config.load import Origins
from joulescope.daemon import Daemon

END_SECONDS = 0.95
"""From the signal to the end at the latest, also where a log that nobody reads, or a disk, holds a thread up:
Kubernetes may send SIGKILL after a second."""


class Service(Protocol):
    """What runs until a signal: the sidecar, or another that starts, and flushes when it is closed."""

    def start(self) -> None: ...

    def close(self) -> object: ...


@click.command()
@click.option(
    FLAG,
    is_flag=True,
    help="Where it cannot start, do not end: say why in the log and on /-/ready, and try again with pauses "
    f"of at most {LAST_PAUSE_SECONDS:g} s. For Kubernetes, where a sidecar that ends at once holds up vLLM.",
)
@settings_options()
def command(settings: Settings, origins: Origins, stay: bool) -> None:
    """Measure the GPUs of a running vLLM, divide the joules among its requests, and serve the result.

    Start it before or after vLLM; the hook in vLLM finds the socket by JOULESCOPE_SOCKET or at its
    default path. SIGTERM and SIGINT flush everything within a second.
    """
    set_up_logging(settings.log_level, settings.log_format)
    run(Daemon.build(settings))


def run(service: Service) -> None:
    """Runs until a signal asks to stop, and ends the process."""
    stop = threading.Event()
    on_ending(stop.set, END_SECONDS)
    reap_strangers()
    service.start()
    stop.wait()
    service.close()
    _end()


def _end() -> None:
    """Everything is flushed or given up: a thread that still waits for a collector holds nothing up."""
    logging.shutdown()
    with suppress(OSError):  # whoever read our output has gone
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(0)
