"""From settings to the rules by which adapters and tenants are told apart."""

from __future__ import annotations

import re

from joulescope.attribution.labels import LabelRules
from joulescope.config import Settings


def label_rules(settings: Settings) -> LabelRules:
    """The operator's choice, its pattern compiled."""
    return LabelRules(
        adapters=settings.adapters,
        tenants=settings.tenants,
        most=settings.max_label_values,
        tenant_from=settings.tenant_from,
        tenant_pattern=re.compile(settings.tenant_pattern),
    )
