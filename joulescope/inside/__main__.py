"""``python -m joulescope.inside``: started by the hook, not by people."""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Sequence

from joulescope import __version__
from joulescope.clock import SystemClock
from joulescope.errors import MissingExtra
from joulescope.hook.environment import is_disabled
from joulescope.hook.sampler import CANNOT
from joulescope.hook.wire import SAMPLER, Hello, SamplerFacts
from joulescope.inside.process import LastWords, be_polite, die_with_parent, orphaned
from joulescope.inside.station import GivenUpError, Station, link_to
from joulescope.sensors.nvml import NvmlSensor
from joulescope.sensors.nvml_binding import load


def main(arguments: Sequence[str] | None = None) -> int:
    """Reads GPUs for the sidecar at ``--socket``; 0 if it or the engine had enough."""
    parser = argparse.ArgumentParser(prog="python -m joulescope.inside", description=__doc__)
    parser.add_argument("--socket", required=True, help="where the sidecar listens")
    parser.add_argument("--instance", default="", help="instance id of the engine")
    parser.add_argument("--index", type=int, default=0, help="data-parallel index of the engine")
    parser.add_argument("--parent", type=int, required=True, help="process id of the engine")
    options = parser.parse_args(arguments)
    die_with_parent()
    be_polite()
    if is_disabled(os.environ) or orphaned(options.parent):
        return 0
    last_words = LastWords()
    try:
        _run(
            options.socket,
            SamplerFacts(instance_id=options.instance, data_parallel_index=options.index),
            options.parent,
        )
    except MissingExtra as error:
        last_words.say(str(error))
        return CANNOT
    except GivenUpError as error:
        last_words.say(str(error))
        return error.exit_code
    except Exception as error:
        last_words.say(f"internal error, please report it: {error!r}")
        return 70
    return 0


def _run(socket_path: str, facts: SamplerFacts, parent_pid: int) -> None:
    load()
    clock = SystemClock()
    station = Station(
        link_to(socket_path),
        lambda: _hello(facts),
        lambda gpus: NvmlSensor.open(clock, gpus),
        clock,
        lambda: orphaned(parent_pid),
    )
    station.run()


def _hello(facts: SamplerFacts) -> Hello:
    return Hello(
        time_ns=time.monotonic_ns(),
        wall_ns=time.time_ns(),
        role=SAMPLER,
        pid=os.getpid(),
        ppid=os.getppid(),
        hook_version=__version__,
        sampler=facts,
    )


if __name__ == "__main__":
    sys.exit(main())
