"""The settings: one table for flags, environment variables and the YAML file, and how a value is settled."""

from joulescope.config.table import (
    CONFIG_VARIABLE,
    ENVIRONMENT_PREFIX,
    TABLE,
    Setting,
    Settings,
)

__all__ = ["CONFIG_VARIABLE", "ENVIRONMENT_PREFIX", "TABLE", "Setting", "Settings"]
