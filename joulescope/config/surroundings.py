"""Kinds of settings that say what stands beside the accounts, and where it is found."""

from __future__ import annotations

import os
import re
import urllib.parse
from collections.abc import Mapping
from dataclasses import dataclass

from joulescope.config.kinds import Number
from joulescope.errors import ConfigError
from joulescope.factors.intensity import plausible

LARGE_CURRENCIES = frozenset({"CHF", "EUR", "GBP", "USD"})
MOST_LARGE_CURRENCY_PER_KWH = 5.0
"""No electricity is that dear: a higher price in one of these is one in cents."""

LEAST_MIG_LAG_SECONDS = 3.0
"""Joules that are split wait up to a second and a half for the activity of instances."""


@dataclass(frozen=True, slots=True)
class OptionalNumber:
    """A number within bounds, or ``none``."""

    number: Number
    hint: str = ""
    """What to say of a number out of bounds, beside the bounds."""

    @property
    def metavar(self) -> str:
        return f"{self.number.metavar}|none"

    def parse(self, text: str) -> float | None:
        if text == "none":
            return None
        try:
            return self.number.parse(text)
        except ValueError as problem:
            raise ValueError(f"{problem}{self.hint}") from None

    def text(self, value: float | None) -> str:
        return "none" if value is None else repr(value)


@dataclass(frozen=True, slots=True)
class Intensity:
    """A carbon intensity: gCO2e/kWh, or the URL or file where it is kept up to date."""

    metavar: str = "GRAMS|URL|PATH|none"

    def parse(self, text: str) -> float | str | None:
        if text == "none":
            return None
        if "://" in text:
            return http_url(text)
        if "/" in text and "\0" not in text:
            return os.path.expanduser(text)
        try:
            value = float(text)
        except ValueError:
            raise ValueError(
                "it is a number of gCO2e/kWh, a URL (http:// or https://), or the path of a file with a "
                "slash in it, such as ./intensity.json"
            ) from None
        return plausible(value)

    def text(self, value: float | str | None) -> str:
        if isinstance(value, float):
            return repr(value)
        return "none" if value is None else value


@dataclass(frozen=True, slots=True)
class Pointer:
    """A JSON pointer, RFC 6901."""

    metavar: str = "POINTER"

    def parse(self, text: str) -> str:
        if text and not text.startswith("/"):
            raise ValueError(f"it is a JSON pointer such as /carbonIntensity or /data/0/value: write /{text}")
        if re.search(r"~(?![01])", text):
            raise ValueError("in a JSON pointer ~0 stands for ~ and ~1 for /")
        return text

    def text(self, value: str) -> str:
        return value


@dataclass(frozen=True, slots=True)
class HeaderName:
    """Name of an HTTP header, RFC 9110."""

    metavar: str = "NAME"

    def parse(self, text: str) -> str:
        if not re.fullmatch(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+", text):
            raise ValueError("it is the name of an HTTP header, such as auth-token, without colon and value")
        return text

    def text(self, value: str) -> str:
        return value


@dataclass(frozen=True, slots=True)
class SecretPlace:
    """Where a secret is: never the secret itself, which ``config show`` would print."""

    metavar: str = "env:VARIABLE|file:PATH|none"
    hidden: bool = True
    """Errors do not repeat the text: it may be the secret after all."""

    def parse(self, text: str) -> str | None:
        if text == "none":
            return None
        kind, colon, place = text.partition(":")
        if not colon or kind not in ("env", "file") or not place or "\0" in place:
            raise ValueError("it says where the token is and is not the token: env:VARIABLE or file:PATH")
        return f"file:{os.path.expanduser(place)}" if kind == "file" else text

    def text(self, value: str | None) -> str:
        return "none" if value is None else value


@dataclass(frozen=True, slots=True)
class Currency:
    """Three letters of ISO 4217."""

    metavar: str = "CODE"

    def parse(self, text: str) -> str:
        if not re.fullmatch("[A-Z]{3}", text):
            raise ValueError("it is a code of ISO 4217 in capitals, such as EUR")
        return text

    def text(self, value: str) -> str:
        return value


@dataclass(frozen=True, slots=True)
class Servers:
    """URLs of ``/metrics`` pages, separated by commas, or ``none``."""

    most: int
    metavar: str = "URL,...|none"

    def parse(self, text: str) -> tuple[str, ...]:
        if text == "none":
            return ()
        parts = [part.strip() for part in text.split(",") if part.strip()]
        urls = tuple(dict.fromkeys(map(self._page, parts)))
        if not urls:
            raise ValueError("it is one or more URLs such as http://127.0.0.1:8000/metrics, or none")
        if len(urls) > self.most:
            raise ValueError(f"it names {len(urls)} servers, {self.most} are the most")
        return urls

    def text(self, value: tuple[str, ...]) -> str:
        return ",".join(value) or "none"

    def _page(self, text: str) -> str:
        """The page of a server: ``/metrics`` unless another is named. The URL becomes a label."""
        parts = urllib.parse.urlsplit(http_url(text))
        if parts.query or parts.fragment:
            raise ValueError(
                f"{text!r}: a page of metrics has no query; leave out what follows {parts.path!r}"
            )
        return parts._replace(path="/metrics" if parts.path in ("", "/") else parts.path).geturl()


def http_url(text: str) -> str:
    """The URL, if it can be fetched.

    Raises:
        ValueError: if not, or if it holds a password: messages show URLs.
    """
    try:
        parts = urllib.parse.urlsplit(text)
        port = parts.port
    except ValueError as problem:
        raise ValueError(f"it is no URL: {problem}") from None
    if parts.scheme not in ("http", "https") or not parts.hostname or port == 0:
        raise ValueError("its URL begins with http:// or https:// and names a host")
    if parts.username is not None or parts.password is not None:
        raise ValueError("its URL holds a user name or a password; leave them out")
    if not (text.isascii() and text.isprintable()) or " " in text:
        raise ValueError("its URL has spaces or characters outside ASCII; write them as %XX")
    return text


def check_ages(refresh_seconds: float, max_age_seconds: float, origins: Mapping[str, object]) -> None:
    """Raises ConfigError if a carbon intensity would vanish before each refresh."""
    if max_age_seconds < refresh_seconds:
        raise ConfigError(
            f"carbon_max_age_seconds ({max_age_seconds:g}, {origins['carbon_max_age_seconds']}) is shorter "
            f"than carbon_refresh_seconds ({refresh_seconds:g}, {origins['carbon_refresh_seconds']}): the "
            "figure would vanish before each refresh; raise the first or lower the second"
        )


def check_mig(mig: str, sensor: str, max_lag_seconds: float, origins: Mapping[str, object]) -> None:
    """Raises ConfigError if MIG instances are to be told apart by a sensor that knows none, or too soon."""
    if mig == "gpm" and sensor == "amd":
        raise ConfigError(
            f"mig is gpm ({origins['mig']}) and sensor is amd ({origins['sensor']}): MIG instances are "
            "NVIDIA's; leave mig at refuse"
        )
    if mig == "gpm" and sensor == "engine":
        raise ConfigError(
            f"mig is gpm ({origins['mig']}) and sensor is engine ({origins['sensor']}): samplers inside "
            "engines read whole GPUs only; leave mig at refuse, or let the sidecar see the GPUs, with nvml"
        )
    if mig == "gpm" and max_lag_seconds < LEAST_MIG_LAG_SECONDS:
        raise ConfigError(
            f"max_lag_seconds ({max_lag_seconds:g}, {origins['max_lag_seconds']}) is less than "
            f"{LEAST_MIG_LAG_SECONDS:g} and mig is gpm ({origins['mig']}): joules wait for the activity of "
            "instances, which is read once a second; raise it"
        )


def check_price(price: float | None, currency: str | None, origins: Mapping[str, object]) -> None:
    """Raises ConfigError if a price has no currency, a currency no price, or a price is one in cents."""
    if (price is None) != (currency is None):
        names = ("electricity_price", "currency")
        given, missing = names if currency is None else reversed(names)
        raise ConfigError(f"{given} is set ({origins[given]}) and {missing} is not: set both, or none")
    if price is not None and currency in LARGE_CURRENCIES and price > MOST_LARGE_CURRENCY_PER_KWH:
        raise ConfigError(
            f"electricity_price ({price:g}, {origins['electricity_price']}) is more than any kWh costs in "
            f"{currency}: if it is in cents, write {price / 100:g}"
        )
