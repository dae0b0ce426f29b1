"""The table of settings: three places, one order, and errors that say how to mend them."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from joulescope.config import TABLE, Settings
from joulescope.config.load import load
from joulescope.errors import ConfigError
from joulescope.hook import DEFAULT_SOCKET
from joulescope.label_model import LengthRule


def _file(directory: Path, text: str) -> str:
    path = directory / "settings.yaml"
    path.write_text(text)
    return str(path)


def _refused(
    flags: dict[str, str | None] | None = None,
    environ: dict[str, str] | None = None,
    path: str | None = None,
) -> str:
    with pytest.raises(ConfigError) as caught:
        load(flags or {}, environ or {}, path)
    return str(caught.value)


def test_defaults_stand_where_nothing_is_said() -> None:
    """Without flags, environment and file every setting has its default and says so."""
    settings, origins = load({}, {})
    assert settings == Settings()
    assert {str(origin) for origin in origins.values()} == {"default"}
    assert set(origins) == {field.name for field in dataclasses.fields(Settings)}


def test_flag_wins_over_environment_over_file_over_default(tmp_path: Path) -> None:
    """Each place overrides the ones after it, setting by setting, and the origin names it."""
    path = _file(tmp_path, "sample_hz: 1\nwindow_seconds: 1\nmax_lag_seconds: 30\n")
    environ = {"JOULESCOPE_SAMPLE_HZ": "2", "JOULESCOPE_WINDOW_SECONDS": "2"}
    settings, origins = load({"sample_hz": "3", "socket": None}, environ, path)
    assert (settings.sample_hz, settings.window_seconds, settings.max_lag_seconds) == (3, 2, 30)
    assert str(origins["sample_hz"]) == "flag --sample-hz"
    assert str(origins["window_seconds"]) == "variable JOULESCOPE_WINDOW_SECONDS"
    assert str(origins["max_lag_seconds"]) == f"file {path}:3"
    assert str(origins["listen"]) == "default"


def test_the_file_can_be_named_by_a_variable(tmp_path: Path) -> None:
    """JOULESCOPE_CONFIG names the file unless --config does."""
    path = _file(tmp_path, "sample_hz: 7\n")
    assert load({}, {"JOULESCOPE_CONFIG": path})[0].sample_hz == 7
    other = tmp_path / "other.yaml"
    other.write_text("sample_hz: 8\n")
    assert load({}, {"JOULESCOPE_CONFIG": path}, str(other))[0].sample_hz == 8


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("socket", "/tmp/j.sock", "/tmp/j.sock"),
        ("socket_mode", "0660", 0o660),
        ("socket_mode", "600", 0o600),
        ("socket_mode", "0o777", 0o777),
        ("listen", ":5685", "0.0.0.0:5685"),
        ("listen", "[::1]:0", "[::1]:0"),
        ("gpus", "all", "all"),
        ("gpus", "GPU-1, GPU-2,GPU-1", "GPU-1,GPU-2"),
        ("sensor", "none", "none"),
        ("calibration", "1.05", (("", 1.05),)),
        ("calibration", "1", ()),
        ("calibration", "GPU-1=1.055, GPU-2 = 0.98,1.01", (("GPU-1", 1.055), ("GPU-2", 0.98), ("", 1.01))),
        ("sample_hz", "2.5e1", 25.0),
        ("request_log", "-", "-"),
        ("request_log", "none", None),
        ("record", "/tmp/t.jsonl.gz", "/tmp/t.jsonl.gz"),
        ("recompute_to", "request", "request"),
        ("max_open_requests", "1_000", 1000),
        ("pue", "1.25", 1.25),
        ("pue", "none", None),
        ("carbon_intensity", "302", 302.0),
        ("carbon_intensity", "0", 0.0),
        ("carbon_intensity", "https://grid.example/v1?zone=DE", "https://grid.example/v1?zone=DE"),
        ("carbon_intensity", "./grid.json", "./grid.json"),
        ("carbon_field", "/data/0/intensity/actual", "/data/0/intensity/actual"),
        ("carbon_header", "auth-token", "auth-token"),
        ("carbon_token", "env:GRID_TOKEN", "env:GRID_TOKEN"),
        ("carbon_token", "file:/run/secrets/grid", "file:/run/secrets/grid"),
        ("scrape", "none", ()),
        (
            "scrape",
            "http://127.0.0.1:8000, http://[::1]:30000/metrics/,http://127.0.0.1:8000/metrics",
            ("http://127.0.0.1:8000/metrics", "http://[::1]:30000/metrics/"),
        ),
        ("adapters", "none", ()),
        ("adapters", "sql, chat-de,sql", ("sql", "chat-de")),
        ("tenant_pattern", r"(?:gw-)?(?P<tenant>[a-z]+)", r"(?:gw-)?(?P<tenant>[a-z]+)"),
        ("tenant_pattern", r"(?P<tenant>\w{8})[*+?]{2}\|", r"(?P<tenant>\w{8})[*+?]{2}\|"),
        ("tenant_pattern", r"(?P<tenant>red|green|blue)\(.*?x", r"(?P<tenant>red|green|blue)\(.*?x"),
        ("max_label_values", "0", 0),
        ("task_from", "off", ()),
        ("task_from", "route, lora", ("route", "lora")),
        ("max_tasks", "0", 0),
        ("task_pattern", "none", None),
        ("task_lengths", "none", ()),
        ("ledger", "/var/lib/joulescope/ledger", "/var/lib/joulescope/ledger"),
        ("ledger", "file:///srv/ledger", "/srv/ledger"),
        ("ledger_rotate_mebibytes", "64", 64),
        ("log_level", "debug", "debug"),
        ("log_format", "json", "json"),
    ],
)
def test_a_text_means_the_same_in_all_three_places(
    tmp_path: Path, name: str, text: str, value: object
) -> None:
    """Flag, variable and unquoted YAML give the same value, octal modes included."""
    by_flag = load({name: text}, {})[0]
    by_variable = load({}, {TABLE[name].variable: text})[0]
    quoted = f"'{text}'" if text[0] in "-:[" else text
    by_file = load({}, {}, _file(tmp_path, f"{name}: {quoted}\n"))[0]
    assert getattr(by_flag, name) == value
    assert by_flag == by_variable == by_file


def test_every_default_survives_being_written_and_read() -> None:
    """What `config example` prints for a default is read back as that default."""
    for setting in TABLE.values():
        assert setting.kind.parse(setting.text(setting.default)) == setting.default


def test_lists_and_nulls_of_yaml(tmp_path: Path) -> None:
    """A YAML list is a comma list, and null leaves the default."""
    path = _file(tmp_path, "gpus:\n  - GPU-1\n  - GPU-2\nsample_hz: null\nrequest_log:\n")
    settings, origins = load({}, {}, path)
    assert settings.gpu_uuids == frozenset({"GPU-1", "GPU-2"})
    assert settings.sample_hz == Settings().sample_hz
    assert origins["sample_hz"].kind == "default"


def test_each_gpu_has_its_own_factor_or_that_of_all_others(tmp_path: Path) -> None:
    """A list of the file gives factors by UUID; who is not named has the lone factor, by default 1."""
    path = _file(tmp_path, "calibration:\n  - GPU-1=1.05\n  - 0.97\n")
    settings = load({}, {}, path)[0]
    assert [settings.calibration_factor(gpu) for gpu in ("GPU-1", "GPU-2")] == [1.05, 0.97]
    assert load({"calibration": "GPU-1=1.05"}, {})[0].calibration_factor("GPU-2") == 1.0


def test_factors_are_written_as_they_are_read() -> None:
    """What `config show` prints of factors is the same setting again, to the last digit."""
    kind = TABLE["calibration"].kind
    for text in ("1.0", "1.0123456789", "GPU-1=1.05", "GPU-1=1.05,0.9"):
        assert kind.text(kind.parse(text)) == text


def test_an_empty_file_or_variable_changes_nothing(tmp_path: Path) -> None:
    """A file of comments only and a variable set to nothing leave the defaults."""
    assert load({}, {"JOULESCOPE_SAMPLE_HZ": ""}, _file(tmp_path, "# nothing\n"))[0] == Settings()


def test_sidecar_and_hook_meet_at_the_same_default_socket() -> None:
    """Without any setting the hook reports where the sidecar listens."""
    assert Settings().socket == DEFAULT_SOCKET


def test_host_and_port_are_told_apart() -> None:
    """The listening address splits into a host without brackets and a port."""
    settings = load({"listen": "[::1]:99"}, {})[0]
    assert (settings.listen_host, settings.listen_port) == ("::1", 99)
    assert (Settings().listen_host, Settings().listen_port) == ("0.0.0.0", 5685)
    assert Settings().gpu_uuids is None


def test_an_unknown_key_of_the_file_names_its_line_and_a_likely_key(tmp_path: Path) -> None:
    """A mistyped or dashed YAML key is refused with its line and what was probably meant."""
    path = _file(tmp_path, "sensor: nvml\nsample-hz: 3\n")
    assert _refused(path=path) == f"{path}:2: no setting is called 'sample-hz', did you mean sample_hz?"
    path = _file(tmp_path, "zzz: 3\n")
    assert _refused(path=path) == f"{path}:1: no setting is called 'zzz'"


def test_an_unknown_variable_is_refused_with_a_suggestion() -> None:
    """A mistyped JOULESCOPE_ variable is an error, and so is an unknown flag name."""
    message = _refused(environ={"JOULESCOPE_SAMPEL_HZ": "3"})
    assert "JOULESCOPE_SAMPEL_HZ, did you mean JOULESCOPE_SAMPLE_HZ?" in message
    assert "did you mean sample_hz?" in _refused(flags={"sampel_hz": "3"})


def test_variables_of_others_are_left_alone() -> None:
    """The hook's switch, the config path and what Kubernetes sets for a Service are no settings."""
    environ = {
        "JOULESCOPE_DISABLED": "1",
        "JOULESCOPE_SAMPLER": "off",
        "PATH": "/bin",
        "JOULESCOPE_SERVICE_HOST": "10.0.0.1",
        "JOULESCOPE_SERVICE_PORT_HTTP": "5685",
        "JOULESCOPE_PORT": "tcp://10.0.0.1:5685",
        "JOULESCOPE_PORT_5685_TCP_ADDR": "10.0.0.1",
        "JOULESCOPE_EU_PORT_5685_TCP": "tcp://10.0.0.1:5685",
    }
    assert load({}, environ)[0] == Settings()


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("socket", "/" + "s" * 107, "107 bytes"),
        ("socket_mode", "rw", "octal"),
        ("socket_mode", "0400", "0600"),
        ("listen", "5685", "host:port"),
        ("listen", "::1:80", "[::1]:5685"),
        ("listen", "localhost:99999", "65535"),
        ("gpus", "0,1", "nvidia-smi -L"),
        ("gpus", ",", "engine, all"),
        ("calibration", ",", "GPU-...=1.05"),
        ("calibration", "0=1.05", "'0' is no GPU's UUID as nvidia-smi -L prints it"),
        ("calibration", "MIG-1=1.05", "nvidia-smi -L"),
        ("calibration", "GPU-1=five", "the factor of GPU-1 is a number, not 'five'"),
        ("calibration", "GPU-1=5", "the factor of GPU-1 lies between 0.5 and 2"),
        ("calibration", "nan", "the factor of all GPUs lies between 0.5 and 2"),
        ("calibration", "GPU-1=1,GPU-1=1.1", "two factors for GPU-1; keep one"),
        ("calibration", "1.1,1.2", "two factors for all other GPUs"),
        ("sensor", "rocm", "one of nvml, amd, engine, none"),
        ("mig", "slices", "one of refuse, gpm"),
        ("sample_hz", "fast", "a number of polls a second"),
        ("sample_hz", "nan", "between 1 and 1000"),
        ("sample_hz", "0", "between 1 and 1000"),
        ("max_open_requests", "1.5", "whole number"),
        ("max_open_requests", "0", "between 1 and"),
        ("record", "-", "a file's path"),
        ("request_log", "a\0b", "NUL"),
        ("ledger", "s3://key:secret@bucket/ledger", "credentials and options do not belong"),
        ("ledger", "s3://key:sec/ret@bucket/ledger", "credentials and options do not belong"),
        ("ledger", "s3://bucket?region=eu", "credentials and options do not belong"),
        ("ledger", "s3://", "such as s3://bucket/ledger"),
        ("ledger_max_days", "0", "between 1 and"),
        ("adapters", ",", "one or more names"),
        ("adapters", ",".join(map(str, range(1001))), "1001 names, 1000 are the most"),
        ("tenants", "acme,none", "'none' already stands for something else"),
        ("adapters", "sql,other", "'other' already stands"),
        ("tenant_from", "header", "one of off, request_id, lora"),
        ("task_from", "headers", "'headers' is no source: it is off, or some of header, route, lora"),
        ("task_from", ",", "it is off, or some of"),
        ("task_from", "route,off", "'off' is no source"),
        ("task_from", "route,lora,route", "names a source twice"),
        ("tasks", "chat,other", "'other' already stands"),
        ("max_tasks", "101", "between 0 and 100"),
        ("task_pattern", "(?P<tenant>a)", "write (?P<task>...) around the task"),
        ("task_pattern", "(?P<task>(a+)+)", "repeats a group with +"),
        ("task_lengths", ";", "it is rules such as 'summarise:"),
        ("task_lengths", "long", "'long' has no colon"),
        ("task_lengths", "a b: output > 1", "'a b' is no name of a task"),
        ("task_lengths", "none: output > 1", "'none' already stands"),
        ("task_lengths", "a:", "a: '' is no condition: write a length (prompt, output, max_output)"),
        ("task_lengths", "a: output", "'output' is no condition"),
        ("task_lengths", "a: output > 8k", "'output > 8k' is no condition"),
        ("task_lengths", "a: output > 1 or prompt > 1", "'output > 1 or prompt > 1' is no condition"),
        (
            "task_lengths",
            "a: outptu > 1",
            "'outptu' is no length: it is one of prompt, output, max_out",
        ),
        ("task_lengths", "a: prompt > 9999999999", "9999999999 is longer than any prompt"),
        ("task_lengths", "a: prompt < 0", "a can never hold: no prompt is shorter than 0"),
        ("task_lengths", "a: prompt > 5 and prompt < 6", "a can never hold: no prompt is that long and that"),
        ("task_lengths", "; ".join(f"t{at}: output > {at}" for at in range(21)), "21 rules, 20 are the most"),
        ("tenant_pattern", "(?P<tenant>", "no regular expression: missing )"),
        ("tenant_pattern", "(?P<team>.*)", "write (?P<tenant>...)"),
        ("tenant_pattern", "(?P<tenant>(a+)+)", "repeats a group with +"),
        ("tenant_pattern", "(?P<tenant>a)(?:b|c){2}", "repeats a group with {2}"),
        ("tenant_pattern", "(?P<tenant>.)x*y*z*w*", "has 4 places with a choice"),
        ("tenant_pattern", "(?P<tenant>a?)a?a?(a|a|b)aaa", "has 4 places with a choice"),
        ("tenant_pattern", r"(?P<tenant>a)\1", "refers back"),
        ("tenant_pattern", "(?P<tenant>a)(?P=tenant)", "refers back"),
        ("tenant_pattern", "(?=x)(?P<tenant>a)", "looks around"),
        ("tenant_pattern", "(?P<tenant>a)" + "b" * 200, "has 213 characters, 200 are the most"),
        ("max_label_values", "1001", "between 0 and 1000"),
        ("pue", "0.8", "so 1 is the least"),
        ("pue", "125", "between 1 and 5"),
        ("carbon_intensity", "0.4", "0.4 looks like kilograms: write 400"),
        ("carbon_intensity", "302000", "write 302"),
        ("carbon_intensity", "-1", "between 1 and 2000"),
        ("carbon_intensity", "nan", "between 1 and 2000"),
        ("carbon_intensity", "4oo", "a number of gCO2e/kWh, a URL"),
        ("carbon_intensity", "ftp://grid/x", "begins with http:// or https://"),
        ("carbon_intensity", "http:///x", "names a host"),
        ("carbon_intensity", "http://grid:99999/", "no URL: Port out of range"),
        ("carbon_intensity", "http://me:sesame@grid/", "leave them out"),
        ("carbon_intensity", "http://grid/a b", "%XX"),
        ("carbon_field", "carbonIntensity", "write /carbonIntensity"),
        ("carbon_field", "/a~2", "~0 stands for ~"),
        ("carbon_header", "auth-token: x", "without colon"),
        ("carbon_token", "sesame", "is not the token"),
        ("carbon_token", "vault:x", "env:VARIABLE or file:PATH"),
        ("carbon_refresh_seconds", "0", "between 1 and 86400"),
        ("electricity_price", "-0.1", "between 0 and"),
        ("currency", "€", "such as EUR"),
        ("scrape", ",", "one or more URLs"),
        ("scrape", "127.0.0.1:8000", "http:// or https://"),
        ("scrape", "http://a/metrics?key=1", "has no query"),
        (
            "scrape",
            ",".join(f"http://a:{port}" for port in range(1, 18)),
            "names 17 servers, 16 are the most",
        ),
        ("scrape_seconds", "0.5", "between 1 and 300"),
    ],
)
def test_a_bad_value_says_what_where_and_what_would_do(name: str, text: str, words: str) -> None:
    """A value out of type or range is refused with its setting, its place and the way out."""
    message = _refused(flags={name: text})
    assert message.startswith(f"flag {TABLE[name].flag}: {name} cannot be ")
    assert words in message
    assert _refused(environ={TABLE[name].variable: text}).startswith(f"variable {TABLE[name].variable}: ")


def test_a_secret_given_in_the_wrong_place_is_not_repeated() -> None:
    """Who writes the token itself where its place belongs does not find it in the log."""
    message = _refused(environ={"JOULESCOPE_CARBON_TOKEN": "sesame"})
    assert message.startswith("variable JOULESCOPE_CARBON_TOKEN: carbon_token cannot be this: ")
    assert "sesame" not in message


def test_a_bad_value_of_the_file_names_its_line(tmp_path: Path) -> None:
    """A bad YAML value is refused with the file and the line it stands on."""
    path = _file(tmp_path, "\nsample_hz: fast\n")
    assert _refused(path=path).startswith(f"file {path}:2: sample_hz cannot be 'fast': ")


def test_settings_that_contradict_each_other_name_both_places() -> None:
    """A lag shorter than the window is refused, with both values and origins."""
    message = _refused(flags={"max_lag_seconds": "1"}, environ={"JOULESCOPE_WINDOW_SECONDS": "2"})
    assert "max_lag_seconds (1, flag --max-lag-seconds)" in message
    assert "window_seconds (2, variable JOULESCOPE_WINDOW_SECONDS)" in message


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (
            {"carbon_refresh_seconds": "600", "carbon_max_age_seconds": "60"},
            "(60, flag --carbon-max-age-seconds) is shorter than carbon_refresh_seconds (600, flag",
        ),
        (
            {"diagnosis_last_seconds": "1800", "diagnosis_before_seconds": "600"},
            "(600, flag --diagnosis-before-seconds) is shorter than diagnosis_last_seconds (1800, flag",
        ),
        (
            {"electricity_price": "0.3"},
            "electricity_price is set (flag --electricity-price) and currency is not",
        ),
        (
            {"currency": "EUR"},
            "currency is set (flag --currency) and electricity_price is not: set both, or none",
        ),
        ({"electricity_price": "31.5", "currency": "EUR"}, "if it is in cents, write 0.315"),
    ],
)
def test_multipliers_that_do_not_fit_together_are_refused(flags: dict[str, str | None], words: str) -> None:
    """A figure that vanishes before its refresh, a price without currency, and one in cents are refused."""
    assert words in _refused(flags)


def test_a_split_among_mig_instances_needs_nvidia() -> None:
    """Asked for beside AMD's sensor it is refused, and beside none it waits for a sensor to come."""
    with pytest.raises(
        ConfigError, match=r"mig is gpm \(flag --mig\) and sensor is amd .*leave mig at refuse"
    ):
        load({"mig": "gpm", "sensor": "amd"}, {})
    with pytest.raises(ConfigError, match=r"sensor is engine .*: samplers inside engines read whole GPUs"):
        load({"mig": "gpm", "sensor": "engine"}, {})
    with pytest.raises(ConfigError, match=r"max_lag_seconds \(1, .*\) is less than 3 and mig is gpm"):
        load({"mig": "gpm", "max_lag_seconds": "1"}, {})
    assert load({"mig": "gpm", "sensor": "none"}, {})[0].mig == "gpm"


def test_a_price_may_be_high_where_the_unit_is_small() -> None:
    """31.5 yen or 1,500 rupiah a kWh are no mistake."""
    for currency, price in (("JPY", "31.5"), ("IDR", "1500")):
        settings = load({"electricity_price": price, "currency": currency}, {})[0]
        assert (settings.electricity_price, settings.currency) == (float(price), currency)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("- a\n", ":1: expected settings as 'name: value'"),
        ("sample_hz: 1\nsample_hz: 2\n", ":2: sample_hz is already set on line 1"),
        ("gpus: {a: 1}\n", ":1: gpus holds a mapping"),
        ("gpus:\n  - [a]\n", ":2: expected a single value"),
        ("[a]: 1\n", ":1: expected a single value"),
        ("sensor: nvml\nrecord: 'open\n", ":3: is not YAML: found unexpected end of stream"),
        ("sensor: \x07\n", ": is not YAML: "),
    ],
)
def test_a_file_that_holds_no_settings_is_refused_by_line(tmp_path: Path, text: str, words: str) -> None:
    """YAML of another shape, doubled keys and broken syntax are refused with the line."""
    path = _file(tmp_path, text)
    assert f"{path}{words}" in _refused(path=path)


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    """A missing file and one that is not UTF-8 are refused by name."""
    missing = str(tmp_path / "missing.yaml")
    assert _refused(path=missing) == f"{missing}: cannot read the configuration: No such file or directory"
    binary = tmp_path / "binary.yaml"
    binary.write_bytes(b"sensor: \xff\n")
    assert f"{binary}: is not UTF-8" in _refused(path=str(binary))


RULES = "summarise: prompt >= 4096 and output < 512; long: output >= 2048; any: prompt >= 0"


@pytest.mark.parametrize("text", [RULES, RULES.replace(";", ","), RULES.replace("; ", "\n")])
def test_rules_on_lengths_are_read_and_written_back(text: str) -> None:
    """A list of a YAML file comes with commas, a block with lines; what is written back is read the same."""
    kind = TABLE["task_lengths"].kind
    rules = kind.parse(text)
    assert rules == (
        LengthRule("summarise", prompt=(4096, None), output=(0, 511)),
        LengthRule("long", output=(2048, None)),
        LengthRule("any"),
    )
    assert kind.text(rules) == (
        "summarise: prompt >= 4096 and output <= 511; long: output >= 2048; any: prompt >= 0"
    )
    assert kind.parse(kind.text(rules)) == rules


@pytest.mark.parametrize(
    ("flags", "complaint"),
    [
        ({"tasks": "chat"}, "say where a task is found"),
        (
            {"task_from": "request_id"},
            "asks request_id (flag --task-from) and task_pattern is none",
        ),
        ({"task_from": "route,lengths"}, "task_lengths is none (default): set it, or leave lengths out"),
        (
            {"task_pattern": "(?P<task>a)"},
            "does not ask request_id (default): add request_id to it",
        ),
        ({"task_from": "lora", "task_lengths": RULES}, "add lengths to it, or leave task_lengths out"),
    ],
)
def test_sources_of_tasks_and_what_they_need_come_together(flags: dict[str, str], complaint: str) -> None:
    """A source without its rule would say nothing, and a rule that no source uses is a mistake."""
    assert complaint in _refused(flags=flags)


def test_tenants_are_listed_only_where_they_are_looked_for() -> None:
    """A list of tenants without a place where a tenant is found would show series that stay at 0."""
    message = _refused(flags={"tenants": "acme"})
    assert "say where a tenant is found" in message
    settings, _ = load({"tenants": "acme", "tenant_from": "request_id"}, {})
    assert settings.tenants == ("acme",)


def test_a_ledger_in_a_store_has_a_spool_and_no_other_has() -> None:
    """Either without the other is refused, with what to do."""
    with pytest.raises(ConfigError, match="needs ledger_spool too"):
        load({"ledger": "s3://bucket/ledger"}, {})
    with pytest.raises(ConfigError, match="leave ledger_spool away"):
        load({"ledger": "/srv/ledger"}, {"JOULESCOPE_LEDGER_SPOOL": "/srv/spool"})
    settings, _ = load({"ledger": "s3://bucket/ledger/", "ledger_spool": "/srv/spool"}, {})
    assert settings.ledger == "s3://bucket/ledger"


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("ledger", "s3://key:secret@bucket/ledger"),
        ("ledger", "https://bucket.example/ledger?sig=secret"),
        ("carbon_intensity", "https://me:secret@grid.example/now"),
    ],
)
def test_what_is_refused_for_its_secret_is_not_repeated(name: str, text: str) -> None:
    """The message goes to the log of a pod."""
    with pytest.raises(ConfigError, match=rf"{name} cannot be 'https|{name} cannot be 's3") as caught:
        load({name: text}, {})
    assert "secret" not in str(caught.value)
