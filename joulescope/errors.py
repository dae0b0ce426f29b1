"""The error tree. Every message names what is wrong, where, and how to mend it.

An error that reaches the command line carries the process exit code with which the command ends.
"""

from __future__ import annotations


class JoulescopeError(Exception):
    """Base of all errors raised on purpose by joulescope."""

    exit_code = 1


class ConfigError(JoulescopeError):
    """A flag, environment variable or configuration file holds something that cannot be used."""

    exit_code = 2


class SensorError(JoulescopeError):
    """A sensor cannot be opened or read."""

    exit_code = 3


class SensorLost(SensorError):
    """A sensor that used to answer is gone; trying again later may help."""


class SensorChanged(SensorLost):
    """Other devices are there than when the sensor was opened: it is to be opened again, at once."""


class ProtocolError(JoulescopeError):
    """A peer sent bytes that are not a valid frame or record."""

    exit_code = 4


class TraceError(JoulescopeError):
    """A trace file cannot be read or written; the message names the line."""

    exit_code = 4


class BaselineError(JoulescopeError):
    """A baseline cannot be read, written or used; the message names the file and the field."""

    exit_code = 4


class MinuteError(JoulescopeError):
    """A minute of an engine cannot be read or written; the message names the place and the column."""

    exit_code = 4


class ComparisonError(JoulescopeError):
    """What was given cannot be read or compared; the message names the file, the field and what mends it."""

    exit_code = 4


class QueryError(JoulescopeError):
    """A question that a ledger cannot answer: it holds nothing of it, or a file cannot be read."""

    exit_code = 4


class LedgerError(JoulescopeError):
    """A ledger cannot be opened; the message names the place, and how to mend it."""

    exit_code = 4


class PlanError(JoulescopeError):
    """Minutes do not tell enough to foresee anything, or what is asked for makes no sense."""

    exit_code = 4


class FetchError(JoulescopeError):
    """A figure that others publish, in a file or on the network, cannot be had now.

    It is counted and tried again; it never ends the process. ``reason`` is one word, for the counter;
    ``retry_seconds`` is how long the other side asks to be left alone, if it does.
    """

    def __init__(self, reason: str, message: str, retry_seconds: float | None = None) -> None:
        super().__init__(message)
        self.reason = reason
        self.retry_seconds = retry_seconds


class ConservationError(JoulescopeError):
    """The ledger does not add up. It is a bug in joulescope, never the user's fault."""

    exit_code = 70


class MissingExtra(JoulescopeError):
    """A command needs a package that the base install leaves out."""

    exit_code = 69
