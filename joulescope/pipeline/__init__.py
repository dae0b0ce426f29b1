"""From records and readings to accounts: sessions, meters and the accountant, wired."""

from joulescope.pipeline.pipeline import Pipeline
from joulescope.pipeline.scope import Scope

__all__ = ["Pipeline", "Scope"]
