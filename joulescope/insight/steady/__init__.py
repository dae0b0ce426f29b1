"""The long run of an engine from its fitted laws: :func:`steady_state`, and :func:`latencies`."""

from joulescope.insight.steady.latency import Latencies, latencies
from joulescope.insight.steady.model import flight_chances, steady_state
from joulescope.insight.steady.values import Clocks, LengthClass, Link, Operation, Parts, Service, Workload

__all__ = [
    "Clocks",
    "Latencies",
    "LengthClass",
    "Link",
    "Operation",
    "Parts",
    "Service",
    "Workload",
    "flight_chances",
    "latencies",
    "steady_state",
]
