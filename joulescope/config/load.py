"""Settles every setting from flags, environment and file, and keeps where each value came from."""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from joulescope import urls
from joulescope.config.diagnosis import check_diagnosis
from joulescope.config.labels import check_tenants
from joulescope.config.ledger import check_ledger
from joulescope.config.links import check_link
from joulescope.config.surroundings import check_ages, check_mig, check_price
from joulescope.config.table import CONFIG_VARIABLE, ENVIRONMENT_PREFIX, TABLE, Settings
from joulescope.config.tasks import check_tasks
from joulescope.errors import ConfigError

FOREIGN_VARIABLES = frozenset(
    {
        CONFIG_VARIABLE,
        "JOULESCOPE_DISABLED",
        "JOULESCOPE_SAMPLER",
        "JOULESCOPE_ANSWER",
        "JOULESCOPE_ANSWER_DEADLINE_MS",
        "JOULESCOPE_ANSWER_URL",
        "JOULESCOPE_TENANT_HEADER",
        "JOULESCOPE_TASK_HEADER",
        "JOULESCOPE_TOP_URL",
    }
)
"""Known, but no settings: the path of the file, the switches of the hook and the middleware in vLLM, and what
``joulescope top`` looks at."""

_KUBERNETES_LINK = re.compile(
    r"JOULESCOPE(_[A-Z0-9_]+)?_"
    r"(SERVICE_HOST|SERVICE_PORT(_[A-Z0-9_]+)?|PORT(_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)?)"
)
"""Variables that Kubernetes sets in every pod for a Service whose name starts with ``joulescope``."""


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a value came from."""

    kind: str
    """``flag``, ``environment``, ``file`` or ``default``."""
    detail: str = ""
    """The flag, the variable, or ``path:line``."""

    def __str__(self) -> str:
        words = {"flag": "flag", "environment": "variable", "file": "file"}
        return f"{words[self.kind]} {self.detail}" if self.kind in words else self.kind


Origins = Mapping[str, Origin]


def load(
    flags: Mapping[str, str | None], environ: Mapping[str, str], path: str | None = None
) -> tuple[Settings, Origins]:
    """Settles every setting: flag before environment before file before default.

    ``flags`` holds the text of each flag by setting name, ``None`` where it was not given. ``path`` is
    the file of ``--config``; without it ``JOULESCOPE_CONFIG`` names one, or there is none. A variable
    that is set but empty counts as not set.

    Raises:
        ConfigError: for a name that no setting has and for a value that cannot be used; the message
            says which, where it came from and what would do.
    """
    found: dict[str, tuple[str, Origin]] = {}
    file = path or environ.get(CONFIG_VARIABLE) or None
    if file is not None:
        found.update(_from_file(file))
    found.update(_from_environment(environ))
    found.update(_from_flags(flags))
    values = {name: _parse(name, text, origin) for name, (text, origin) in found.items()}
    settings = Settings(**values)
    origins = {name: found[name][1] if name in found else Origin("default") for name in TABLE}
    _check_together(settings, origins)
    return settings, origins


def _from_flags(flags: Mapping[str, str | None]) -> dict[str, tuple[str, Origin]]:
    given = {name: text for name, text in flags.items() if text is not None}
    for name in given:
        if name not in TABLE:
            raise ConfigError(f"no setting is called {name!r}{_did_you_mean(name, TABLE)}")
    return {name: (text, Origin("flag", TABLE[name].flag)) for name, text in given.items()}


def _from_environment(environ: Mapping[str, str]) -> dict[str, tuple[str, Origin]]:
    names = {setting.variable: name for name, setting in TABLE.items()}
    found = {}
    for variable, text in environ.items():
        if not variable.startswith(ENVIRONMENT_PREFIX) or variable in FOREIGN_VARIABLES:
            continue
        if variable not in names:
            if _KUBERNETES_LINK.fullmatch(variable):
                continue
            guess = _did_you_mean(variable, [*names, *FOREIGN_VARIABLES])
            raise ConfigError(
                f"environment: no setting is called {variable}{guess}; unset it or mend its name"
            )
        if text != "":
            found[names[variable]] = (text, Origin("environment", variable))
    return found


def _from_file(path: str) -> dict[str, tuple[str, Origin]]:
    from joulescope.config.file import read_entries

    found: dict[str, tuple[str, Origin]] = {}
    for key, text, line in read_entries(os.path.expanduser(path)):
        if key not in TABLE:
            raise ConfigError(f"{path}:{line}: no setting is called {key!r}{_did_you_mean(key, TABLE)}")
        if text is not None:
            found[key] = (text, Origin("file", f"{path}:{line}"))
    return found


def _parse(name: str, text: str, origin: Origin) -> Any:
    try:
        return TABLE[name].kind.parse(text)
    except ValueError as problem:
        shown = "this" if getattr(TABLE[name].kind, "hidden", False) else repr(urls.shown(text))
        raise ConfigError(f"{origin}: {name} cannot be {shown}: {problem}") from None


def _check_together(settings: Settings, origins: Origins) -> None:
    """Conditions that hold between settings."""
    if settings.max_lag_seconds < settings.window_seconds:
        raise ConfigError(
            f"max_lag_seconds ({settings.max_lag_seconds:g}, {origins['max_lag_seconds']}) is shorter than "
            f"window_seconds ({settings.window_seconds:g}, {origins['window_seconds']}): "
            "a window must have time to fill; raise the first or lower the second"
        )
    check_ages(settings.carbon_refresh_seconds, settings.carbon_max_age_seconds, origins)
    check_price(settings.electricity_price, settings.currency, origins)
    check_tenants(settings.tenant_from, settings.tenants, origins)
    check_tasks(settings, origins)
    check_ledger(settings, origins)
    check_diagnosis(settings, origins)
    check_link(settings, origins)
    check_mig(settings.mig, settings.sensor, settings.max_lag_seconds, origins)


def _did_you_mean(wrong: str, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(wrong.replace("-", "_"), list(known), n=1, cutoff=0.6)
    return f", did you mean {close[0]}?" if close else ""
