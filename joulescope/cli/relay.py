"""``joulescope relay``: for the other nodes of an engine that is spread over several."""

from __future__ import annotations

import threading

import click

from joulescope.cli.logs import set_up_logging
from joulescope.cli.options import settings_options
from joulescope.cli.serve import run, stay_option
from joulescope.config import Settings
from joulescope.config.load import Origins
from joulescope.daemon.relay_process import RelayProcess

TURN_SECONDS = 0.1


@click.command()
@stay_option
@settings_options()
def command(settings: Settings, origins: Origins, stay: bool) -> None:
    """Read the GPUs of a worker node and send the readings to the sidecar at the head of the engine.

    For engines that are spread over several nodes: joulescope serve runs where vLLM's engine is, with
    link_listen, and a relay on each other node, with link_connect. Nothing is accounted here.
    """
    set_up_logging(settings.log_level, settings.log_format)
    relay = RelayProcess.build(settings)

    def turn_until(stop: threading.Event) -> None:
        while not stop.is_set():
            relay.turn(TURN_SECONDS)

    run(relay, turn_until)
