"""From settings to the rules by which adapters, tenants and tasks are told apart."""

from __future__ import annotations

import re

from joulescope.attribution.labels import LabelRules
from joulescope.config import Settings


def label_rules(settings: Settings) -> LabelRules:
    """The operator's choice, its patterns compiled."""
    return LabelRules(
        adapters=settings.adapters,
        tenants=settings.tenants,
        most=settings.max_label_values,
        tenant_from=settings.tenant_from,
        tenant_pattern=re.compile(settings.tenant_pattern),
        tasks=settings.tasks,
        most_tasks=settings.max_tasks,
        task_from=settings.task_from,
        task_pattern=None if settings.task_pattern is None else re.compile(settings.task_pattern),
        task_lengths=settings.task_lengths,
    )
