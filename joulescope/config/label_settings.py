"""Settings of labels: which adapters and tenants are told apart, and of which task class a request is."""

from __future__ import annotations

from dataclasses import dataclass

from joulescope.config.kinds import Choice, OrNone, Whole, setting
from joulescope.config.labels import LabelPattern, Names
from joulescope.config.tasks import LengthRules, TaskSources
from joulescope.label_model import TASK_GROUP, TENANT_GROUP, LengthRule


@dataclass(frozen=True, slots=True)
class LabelSettings:
    """Part of :class:`joulescope.config.table.Settings`, which inherits it."""

    adapters: tuple[str, ...] = setting(
        (),
        Names(),
        "LoRA adapters that have series of their own from the start, whatever others come before them.",
    )
    tenants: tuple[str, ...] = setting(
        (), Names(), "Tenants that have series of their own from the start, likewise."
    )
    max_label_values: int = setting(
        50,
        Whole(0, 1000, "names"),
        "How many adapters, and how many tenants, that are not listed get series of their own on each "
        "engine: those that come first. The rest is counted as other.",
    )
    tenant_from: str = setting(
        "off",
        Choice(("off", "request_id", "lora")),
        "Where the tenant of a request is found, if figures are to be told by tenant: in the X-Request-Id "
        "that the client or a gateway sent, or in the name of its LoRA adapter.",
    )
    tenant_pattern: str = setting(
        r"(?P<tenant>[A-Za-z0-9_.-]{1,63})~",
        LabelPattern(TENANT_GROUP),
        "Regular expression whose group named tenant is the tenant, matched from the beginning of what "
        "tenant_from names, without what vLLM puts before a client's id (chatcmpl- and the like). An id that "
        "it does not match is of no tenant; an adapter's name then is the tenant as it is.",
    )
    task_from: tuple[str, ...] = setting(
        (),
        TaskSources(),
        "What says of which task class a request is, in this order, the first that says anything: the header "
        "that the middleware in vLLM passes on (header), vLLM's route (route), the LoRA adapter (lora), "
        "task_pattern (request_id), task_lengths (lengths).",
    )
    tasks: tuple[str, ...] = setting(
        (),
        Names(),
        "Task classes that have series of their own from the start, whatever others come before them. Those "
        "of task_lengths have too.",
    )
    max_tasks: int = setting(
        8,
        Whole(0, 100, "names"),
        "How many task classes that are not listed are told apart on each engine: those that come first. The "
        "rest is other, in every export. Each costs 22 series.",
    )
    task_pattern: str | None = setting(
        None,
        OrNone(LabelPattern(TASK_GROUP)),
        "Regular expression whose group named task is the task class, matched from the beginning of the "
        "client's X-Request-Id, as tenant_pattern is.",
    )
    task_lengths: tuple[LengthRule, ...] = setting(
        (),
        LengthRules(),
        "Task classes by lengths in tokens, separated by semicolons, the first that holds: 'summarise: "
        "prompt >= 4096 and output < 512; long: output >= 2048'. Lengths are prompt, output, and "
        "max_output, which is what the client allows.",
    )
