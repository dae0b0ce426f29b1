"""The long run of an engine from its fitted laws: :func:`steady_state`."""

from joulescope.insight.steady.model import steady_state
from joulescope.insight.steady.values import LengthClass, Link, Operation, Parts, Service, Workload

__all__ = ["LengthClass", "Link", "Operation", "Parts", "Service", "Workload", "steady_state"]
