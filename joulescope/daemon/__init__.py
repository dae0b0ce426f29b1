"""The sidecar's process: builds all parts, runs them, and undoes half a start."""

from joulescope.daemon.daemon import Daemon

__all__ = ["Daemon"]
