"""What a carbon intensity looks like: a plausible number, alone or somewhere in a JSON document."""

from __future__ import annotations

import json
import math

from joulescope.errors import FetchError

LEAST_GRAMS_PER_KWH = 1.0
MOST_GRAMS_PER_KWH = 2000.0
"""Grids lie between about 10 (hydro, nuclear) and 1,000 gCO2e/kWh (coal); the worst oil shale and lignite
plants stay below 1,800."""


def plausible(grams_per_kwh: float) -> float:
    """The figure, if a grid can have it. 0 is one: some contracts claim it.

    Raises:
        ValueError: if not; the message says which unit was probably meant.
    """
    if grams_per_kwh == 0 or LEAST_GRAMS_PER_KWH <= grams_per_kwh <= MOST_GRAMS_PER_KWH:
        return abs(grams_per_kwh)
    if 0 < grams_per_kwh < LEAST_GRAMS_PER_KWH:
        hint = f"{grams_per_kwh:g} looks like kilograms: write {1000 * grams_per_kwh:g}"
    elif MOST_GRAMS_PER_KWH < grams_per_kwh <= 1000 * MOST_GRAMS_PER_KWH:
        hint = f"{grams_per_kwh:g} looks like milligrams, or grams per MWh: write {grams_per_kwh / 1000:g}"
    else:
        hint = "a grid's is usually between 10 and 1000"
    raise ValueError(
        f"it is 0 or lies between {LEAST_GRAMS_PER_KWH:g} and {MOST_GRAMS_PER_KWH:g} gCO2e/kWh; {hint}"
    )


def read_intensity(body: bytes, field: str) -> float:
    """gCO2e/kWh from a text: a bare number, or a JSON document in which ``field`` is a JSON pointer.

    Raises:
        FetchError: if there is no such number, or none that a grid can have.
    """
    try:
        document = json.loads(body.decode("utf-8-sig"))
    except (ValueError, RecursionError):
        raise FetchError("malformed", "it holds neither a number nor JSON") from None
    if isinstance(document, dict | list):
        document = pointed_at(document, field)
    if isinstance(document, bool) or not isinstance(document, int | float):
        raise FetchError("not_a_number", f"{_place(field)} holds {_kind(document)}, not a number")
    try:
        if not math.isfinite(value := float(document)):
            raise FetchError("not_a_number", f"{_place(field)} holds no finite number")
        return plausible(value)
    except OverflowError:
        raise FetchError("out_of_range", f"{_place(field)} holds an absurdly large number") from None
    except ValueError as problem:
        raise FetchError("out_of_range", f"{_place(field)} cannot be {value:g}: {problem}") from None


def pointed_at(document: object, pointer: str) -> object:
    """The value at a JSON pointer, RFC 6901: ``/data/0/value``; the empty one is the document itself.

    Raises:
        FetchError: if there is nothing; the message says how far it came.
    """
    path = ""
    for step in pointer.split("/")[1:]:
        key = step.replace("~1", "/").replace("~0", "~")
        if isinstance(document, dict) and key in document:
            document = document[key]
        elif isinstance(document, list) and key.isascii() and key.isdigit() and int(key) < len(document):
            document = document[int(key)]
        else:
            there = f"{_kind(document)} at {path or 'its top'}"
            raise FetchError("missing_field", f"it has no {pointer}: nothing at {step!r} in {there}")
        path += "/" + step
    return document


def _place(field: str) -> str:
    return field or "it"


def _kind(value: object) -> str:
    """What JSON calls a value; the value itself is not repeated."""
    names = {dict: "an object", list: "a list", str: "a text", bool: "true or false", type(None): "null"}
    return names.get(type(value), "a number")
