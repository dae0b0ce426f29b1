"""``joulescope serve``: the sidecar."""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
from contextlib import suppress

import click

from joulescope.cli.logs import set_up_logging
from joulescope.cli.options import settings_options
from joulescope.config import Settings
from joulescope.config.load import Origins
from joulescope.daemon import Daemon


@click.command()
@settings_options()
def command(settings: Settings, origins: Origins) -> None:
    """Measure the GPUs of a running vLLM, divide the joules among its requests, and serve the result.

    Start it before or after vLLM; the hook in vLLM finds the socket by JOULESCOPE_SOCKET or at its
    default path. SIGTERM and SIGINT flush everything within a second.
    """
    set_up_logging(settings.log_level, settings.log_format)
    run(Daemon.build(settings))


def run(daemon: Daemon) -> None:
    """Runs until a signal asks to stop, and ends the process."""
    stop = signalled()
    daemon.start()
    stop.wait()
    daemon.close()
    end()


def signalled() -> threading.Event:
    """Is set when a signal asks to stop."""
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    return stop


def end() -> None:
    """Everything is flushed or given up: a thread that still waits for a collector holds nothing up."""
    logging.shutdown()
    with suppress(OSError):  # whoever read our output has gone
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(0)
