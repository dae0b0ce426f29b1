"""Parameters as a document of plain values (YAML, JSON), whole, and back; a preset fills what is left out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import fields, replace
from typing import Any, TypeVar

from joulescope.errors import ConfigError
from joulescope.insight.estimate.distributions import Distribution, Fixed, parse_distribution
from joulescope.insight.estimate.files import empirical_from_file
from joulescope.insight.estimate.parameters import Lever, Model, Parameters, Query, Scenario
from joulescope.insight.estimate.presets import PRESETS
from joulescope.insight.estimate.throughput import Law, Table, Throughput, constant

_Part = TypeVar("_Part")

EMPTY = Parameters(models=(), queries=())


def to_document(parameters: Parameters) -> dict[str, Any]:
    """Everything that a run depends on; :func:`from_document` makes the same parameters of it."""
    return {
        "preset": parameters.preset,
        "samples": parameters.samples,
        "seed": parameters.seed,
        "pue": _value(parameters.pue),
        "node_power_ratio": _value(parameters.node_power_ratio),
        "models": {model.name: _model(model) for model in parameters.models},
        "queries": {
            query.name: {
                "weight": query.weight,
                "input_tokens": _value(query.input_tokens),
                "output_tokens": _value(query.output_tokens),
                "paired": query.paired,
            }
            for query in parameters.queries
        },
        "trim_quantiles": None if parameters.trim_quantiles is None else list(parameters.trim_quantiles),
        "fleet": {
            "queries_per_day": parameters.queries_per_day,
            "factors": dict(parameters.fleet_factors),
        },
        "carbon_grams_per_kwh": _value(parameters.carbon_grams_per_kwh),
        "price_per_kwh": _value(parameters.price_per_kwh),
        "currency": parameters.currency,
        "levers": {
            scenario.name: {
                lever.name: {"factor": _value(lever.factor), "queries": list(lever.queries)}
                for lever in scenario.levers
            }
            for scenario in parameters.scenarios
        },
    }


def _value(distribution: Distribution | None) -> float | str | None:
    if distribution is None or isinstance(distribution, Fixed):
        return None if distribution is None else distribution.value
    return distribution.text()


def _model(model: Model) -> dict[str, Any]:
    return {
        "weight": model.weight,
        "node_max_watts": _value(model.node_max_watts),
        "gpus_per_node": model.gpus_per_node,
        "throughput": _throughput(model.throughput),
    }


def _throughput(throughput: Throughput) -> dict[str, Any]:
    if not isinstance(throughput, Law | Table):
        raise TypeError(f"{type(throughput).__name__} has no form in a document")
    return {each.name: _plain(getattr(throughput, each.name)) for each in fields(throughput)}


def _plain(value: Any) -> Any:
    return [_plain(each) for each in value] if isinstance(value, tuple) else value


# ---------------------------------------------------------------------------------------------- reading


def from_document(document: object, where: str, base: Parameters | None = None) -> Parameters:
    """Parameters of a document; what it leaves out is as in ``base``, or in the preset that it names.

    A part with a name (a model, a kind of query) may leave out what the same part of the base has. Where
    models, queries or levers are given, those that are not named are not there.

    Args:
        where: the file, for messages.

    Raises:
        ConfigError: something cannot be used; the message says what and where.
    """
    given = _mapping(document, where)
    version = given.pop("preset", None) or ""
    if version and version not in PRESETS:
        raise ConfigError(f"{where}: preset: {version!r} is not known; there is {', '.join(PRESETS)}")
    start = base or (PRESETS[version].parameters if version else EMPTY)
    fleet = _mapping(given.pop("fleet", None), f"{where}: fleet")
    changes: dict[str, Any] = {"preset": version or start.preset}
    for section in (given, fleet):
        for key, value in section.items():
            place = f"{where}: {'fleet.' if section is fleet else ''}{key}"
            readers = _FLEET if section is fleet else _TOP
            if key not in readers:
                raise ConfigError(f"{place} is not known; there is {', '.join(['preset', *_TOP, 'fleet'])}")
            name, read = readers[key]
            changes[name] = read(value, place, start)
    return replace(start, **changes)


def _mapping(value: object, where: str) -> dict[str, Any]:
    if value is None:
        return {}
    if not isinstance(value, dict) or not all(isinstance(key, str) for key in value):
        raise ConfigError(f"{where}: a mapping of names to values is expected, not {value!r:.60}")
    return dict(value)


def _number(value: object, where: str, _: object = None) -> float:
    try:
        if isinstance(value, bool) or not isinstance(value, int | float | str):
            raise ValueError
        return float(value)
    except ValueError:
        raise ConfigError(f"{where}: {value!r} is no number") from None


def _whole(value: object, where: str, _: object = None) -> int:
    number = _number(value, where)
    if not number.is_integer():
        raise ConfigError(f"{where}: {value!r} is no whole number")
    return int(number)


def _flag(value: object, where: str, _: object = None) -> bool:
    if not isinstance(value, bool):
        raise ConfigError(f"{where}: {value!r} is neither true nor false")
    return value


def _text(value: object, where: str, _: object = None) -> str:
    if not isinstance(value, str):
        raise ConfigError(f"{where}: {value!r} is no text")
    return value


def _distribution(value: object, where: str, _: object = None) -> Distribution:
    return parse_distribution(value, where, read_file=empirical_from_file)


def _maybe_distribution(value: object, where: str, _: object = None) -> Distribution | None:
    return None if value is None else _distribution(value, where)


def _numbers(value: object, where: str) -> tuple[float, ...]:
    if not isinstance(value, list):
        raise ConfigError(f"{where}: {value!r} is no list of numbers")
    return tuple(_number(each, where) for each in value)


def _trim(value: object, where: str, _: object = None) -> tuple[float, float] | None:
    if value is None:
        return None
    numbers = _numbers(value, where)
    if len(numbers) != 2:
        raise ConfigError(f"{where}: two quantiles are expected, such as [0.05, 0.95]")
    return numbers[0], numbers[1]


def _factors(value: object, where: str, _: object = None) -> tuple[tuple[str, float], ...]:
    given = _mapping(value, where)
    return tuple((name, _number(factor, f"{where}.{name}")) for name, factor in given.items())


def _parts(
    value: object,
    where: str,
    make: Callable[[str, dict[str, Any], str], _Part],
) -> tuple[_Part, ...]:
    given = _mapping(value, where)
    return tuple(
        make(name, _mapping(part, f"{where}.{name}"), f"{where}.{name}") for name, part in given.items()
    )


def _read(
    part: dict[str, Any], where: str, readers: Mapping[str, Callable[..., Any]], needed: bool
) -> dict[str, Any]:
    """The values of a part; all are needed where no base has them."""
    for key in part:
        if key not in readers:
            raise ConfigError(f"{where}.{key} is not known; there is {', '.join(readers)}")
    missing = [key for key in readers if key not in part and key not in _OPTIONAL]
    if needed and missing:
        raise ConfigError(f"{where}: {', '.join(missing)} is missing")
    return {key: readers[key](value, f"{where}.{key}") for key, value in part.items()}


_OPTIONAL = ("weight", "gpus_per_node", "queries", "paired")


def _models(value: object, where: str, base: Parameters) -> tuple[Model, ...]:
    known = {model.name: model for model in base.models}

    def make(name: str, part: dict[str, Any], place: str) -> Model:
        values = _read(part, place, _MODEL, name not in known)
        return replace(known[name], **values) if name in known else Model(name, **{"weight": 1.0, **values})

    return _parts(value, where, make)


def _queries(value: object, where: str, base: Parameters) -> tuple[Query, ...]:
    known = {query.name: query for query in base.queries}

    def make(name: str, part: dict[str, Any], place: str) -> Query:
        values = _read(part, place, _QUERY, name not in known)
        return replace(known[name], **values) if name in known else Query(name, **{"weight": 1.0, **values})

    return _parts(value, where, make)


def _levers(value: object, where: str, _: object = None) -> tuple[Scenario, ...]:
    def lever(name: str, part: object, place: str) -> Lever:
        if not isinstance(part, dict):
            return Lever(name, _distribution(part, place))
        return Lever(name, **_read(_mapping(part, place), place, _LEVER, True))

    found = []
    for name, levers in _mapping(value, where).items():
        place = f"{where}.{name}"
        pairs = _mapping(levers, place).items()
        found.append(Scenario(name, tuple(lever(key, part, f"{place}.{key}") for key, part in pairs)))
    return tuple(found)


def _names(value: object, where: str, _: object = None) -> tuple[str, ...]:
    if not isinstance(value, list):
        raise ConfigError(f"{where}: {value!r} is no list of names")
    return tuple(_text(each, where) for each in value)


_MAYBE = ("most_tokens_per_second", "input_range", "output_range")
"""What a law need not say."""
_LISTS = (
    "input_slopes",
    "input_knots",
    "output_slopes",
    "output_knots",
    "input_range",
    "output_range",
    "input_tokens",
    "output_tokens",
)
"""What of a law or a table is a list of numbers."""


def read_throughput(value: object, where: str, _: object = None) -> Throughput:
    """Tokens a second: a number for all lengths, a law by its coefficients, or a table.

    Raises:
        ConfigError: it is none of these.
    """
    if not isinstance(value, dict):
        try:
            return constant(_number(value, where))
        except ValueError as error:
            raise ConfigError(f"{where}: {error}") from error
    given = _mapping(value, where)
    form: type[Table] | type[Law] = Table if "tokens_per_second" in given else Law
    values: dict[str, Any] = {}
    for key, each in given.items():
        place = f"{where}.{key}"
        if key not in {field.name for field in fields(form)}:
            raise ConfigError(f"{place} is not known to a {form.__name__.lower()} of throughput")
        if key == "source":
            values[key] = _text(each, place)
        elif form is Table and key == "tokens_per_second":
            if not isinstance(each, list):
                raise ConfigError(f"{place}: {each!r} is no list of rows")
            values[key] = tuple(_numbers(row, place) for row in each)
        elif each is None and key in _MAYBE:
            values[key] = None
        elif key in _LISTS:
            values[key] = _numbers(each, place)
        else:
            values[key] = _number(each, place)
    try:
        return form(**values)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{where}: {error}") from error


_MODEL: Mapping[str, Callable[..., Any]] = {
    "weight": _number,
    "node_max_watts": _distribution,
    "gpus_per_node": _whole,
    "throughput": read_throughput,
}
_QUERY: Mapping[str, Callable[..., Any]] = {
    "weight": _number,
    "input_tokens": _distribution,
    "output_tokens": _distribution,
    "paired": _flag,
}
_LEVER: Mapping[str, Callable[..., Any]] = {"factor": _distribution, "queries": _names}
_TOP: Mapping[str, tuple[str, Callable[..., Any]]] = {
    "samples": ("samples", _whole),
    "seed": ("seed", _whole),
    "pue": ("pue", _distribution),
    "node_power_ratio": ("node_power_ratio", _distribution),
    "models": ("models", _models),
    "queries": ("queries", _queries),
    "trim_quantiles": ("trim_quantiles", _trim),
    "carbon_grams_per_kwh": ("carbon_grams_per_kwh", _maybe_distribution),
    "price_per_kwh": ("price_per_kwh", _maybe_distribution),
    "currency": ("currency", _text),
    "levers": ("scenarios", _levers),
}
_FLEET: Mapping[str, tuple[str, Callable[..., Any]]] = {
    "queries_per_day": ("queries_per_day", _number),
    "factors": ("fleet_factors", _factors),
}
