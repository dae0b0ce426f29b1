"""From settings to the rules by which adapters, tenants and tasks are told apart, and joules paid."""

from __future__ import annotations

import re

from joulescope.attribution.labels import LabelRules
from joulescope.attribution.policy import Policy
from joulescope.config import Settings
from joulescope.units import ns_from_seconds


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


def policy_of(settings: Settings) -> Policy:
    """Who pays, and who is told apart."""
    return Policy(
        recompute_to=settings.recompute_to,
        rejected_to=settings.rejected_to,
        dummy_to=settings.dummy_to,
        idle_to=settings.idle_to,
        lost_to=settings.lost_to,
        max_lag_ns=ns_from_seconds(settings.max_lag_seconds),
        max_open_requests=settings.max_open_requests,
        labels=label_rules(settings),
    )
