"""``joulescope relay``: for the other nodes of an engine that is spread over several."""

from __future__ import annotations

import click

from joulescope.cli.logs import set_up_logging
from joulescope.cli.options import settings_options
from joulescope.cli.serve import end, signalled
from joulescope.config import Settings
from joulescope.config.load import Origins
from joulescope.daemon.relay_process import RelayProcess

CLOSE_SECONDS = 0.5
TURN_SECONDS = 0.1


@click.command()
@settings_options()
def command(settings: Settings, origins: Origins) -> None:
    """Read the GPUs of a worker node and send the readings to the sidecar at the head of the engine.

    For engines that are spread over several nodes: joulescope serve runs where vLLM's engine is, with
    link_listen, and a relay on each other node, with link_connect. Nothing is accounted here.
    """
    set_up_logging(settings.log_level, settings.log_format)
    relay = RelayProcess.build(settings)
    stop = signalled()
    relay.start()
    while not stop.is_set():
        relay.turn(TURN_SECONDS)
    relay.close(CLOSE_SECONDS)
    end()
