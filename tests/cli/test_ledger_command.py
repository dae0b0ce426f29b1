"""`joulescope ledger`: what people, programs and spreadsheets get, and what is said of one in disorder."""

from __future__ import annotations

import csv
import io
import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from joulescope.cli.main import main
from joulescope.clock import ManualClock
from joulescope.errors import MissingExtra
from joulescope.insight.queries.source import need_packages
from joulescope.ledger.tables import arrow_schema
from joulescope.ledger.writer import LedgerWriter, Rotation
from tests.insight.queries.few import request as of_request
from tests.insight.queries.few import save
from tests.ledger.rows import NOON, minute, minute_row, request
from tests.made_ledger import Recipe, write

PRICES = ("--electricity-price", "0.25", "--currency", "EUR", "--pue", "1.2", "--carbon-intensity", "400")
MADE = Recipe(requests=400, days=2)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ledger")
    list(write(folder, MADE))
    return folder


@pytest.fixture(autouse=True)
def no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    """Prices of whoever runs the tests are not those of the tests."""
    for name in ("ELECTRICITY_PRICE", "CURRENCY", "PUE", "CARBON_INTENSITY", "CONFIG"):
        monkeypatch.delenv(f"JOULESCOPE_{name}", raising=False)


def run(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    code = main(["ledger", *map(str, arguments)])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def answer(capsys: pytest.CaptureFixture[str], *arguments: object) -> dict[str, Any]:
    code, out, err = run(capsys, *arguments, "--json")
    assert (code, err) == (0, "")
    return json.loads(out)


def test_summary_in_text(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The balance with its parts, money and carbon, what is missing, quantiles, and what was asked for."""
    code, out, err = run(capsys, "summary", root, "--by", "tenant", *PRICES)
    assert (code, err) == (0, "")
    for text in ("Measured", "idle", "unattributed", "EUR", "gCO2e, with a PUE of 1.2", "Wasted", "p99"):
        assert text in out
    assert "400 finished" in out
    assert [f"tenant-{number}" in out for number in range(3)] == [True] * 3


def test_summary_adds_up(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Parts are the measured joules, engines are the whole, and cost and carbon follow from kWh and PUE."""
    found = answer(capsys, "summary", root, "--by", "model,day", *PRICES)
    whole = found["balance"]
    assert sum(whole["parts_joules"].values()) == pytest.approx(whole["measured"]["joules"])
    assert sum(each["measured"]["joules"] for each in found["engines"]) == pytest.approx(
        whole["measured"]["joules"]
    )
    kwh = whole["measured"]["joules"] / 3.6e6
    assert whole["measured"]["cost"] == pytest.approx(kwh * 1.2 * 0.25)
    assert whole["measured"]["carbon_grams"] == pytest.approx(kwh * 1.2 * 400)
    assert found["coverage"]["requests"] == sum(row["requests"] for row in found["rows"]) == 400
    assert {row["begin"] for row in found["rows"]} == {"2026-01-31T00:00Z", "2026-02-01T00:00Z"}
    assert found["prices"]["currency"] == "EUR"


def test_without_prices_nothing_is_said_of_money(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Not known is null in JSON, nothing in CSV, and no column for people; joules are the same."""
    found = answer(capsys, "tenants", root)
    assert {row["cost"] for row in found["rows"]} == {None}
    _, out, _ = run(capsys, "tenants", root)
    assert "cost" not in out
    _, out, _ = run(capsys, "tenants", root, "--csv")
    assert {row["cost"] for row in csv.DictReader(io.StringIO(out))} == {""}


@pytest.mark.parametrize("spread", ["apart", "attributed"])
def test_tenants_pay_for_what_was_measured(
    root: Path, capsys: pytest.CaptureFixture[str], spread: str
) -> None:
    """Text, JSON and CSV have one sum, which is that of the summary, to the microjoule."""
    measured = answer(capsys, "summary", root)["balance"]["measured"]["joules"]
    found = answer(capsys, "tenants", root, "--by", "tenant,day", "--spread", spread)
    assert found["total"]["microjoules"] == sum(row["microjoules"] for row in found["rows"])
    assert found["total"]["microjoules"] == round(measured * 1e6)
    _, out, _ = run(capsys, "tenants", root, "--by", "tenant,day", "--spread", spread, "--csv")
    assert sum(int(row["microjoules"]) for row in csv.DictReader(io.StringIO(out))) == round(measured * 1e6)
    _, out, _ = run(capsys, "tenants", root, "--spread", spread)
    assert f"Together {measured:,.1f} J" in out
    assert "(unattributed)" in out
    assert ("(idle)" in out) == (spread == "apart")


def test_the_dearest_requests(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """As many as were asked for, in order, with quantiles told apart as asked."""
    found = answer(capsys, "requests", root, "--top", "7", "--by", "tenant")
    joules = [row["joules"] for row in found["rows"]]
    assert joules == sorted(joules, reverse=True)
    assert len(joules) == 7
    assert {row["tenant"] for row in found["distribution"]} == {"tenant-0", "tenant-1", "tenant-2"}
    code, out, _ = run(capsys, "requests", root, "--top", "2", "--sort", "per-token")
    assert code == 0
    assert out.count("chatcmpl-") == 2


def test_focus_goes_to_a_file_or_to_standard_output(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The name of the file says which format; how many rows there are is said beside."""
    code, out, err = run(capsys, "focus", root, *PRICES)
    assert code == 0
    rows = list(csv.DictReader(io.StringIO(out)))
    assert f"{len(rows)} rows of FOCUS 1.4 to standard output" in err
    code, out, err = run(capsys, "focus", root, *PRICES, "-o", tmp_path / "bill.parquet", "--per", "hour")
    assert (code, out) == (0, "")
    assert pq.read_table(tmp_path / "bill.parquet").num_rows > len(rows)
    code, out, err = run(capsys, "focus", root, *PRICES, "-o", tmp_path / "bill.csv")
    assert (tmp_path / "bill.csv").read_text().count("\n") == len(rows) + 1


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("--format", "parquet"), "Parquet is not written to standard output: name a file with --output"),
        (("--account", " "), "--account ' ' is blank, and FOCUS wants one in every row"),
        (("-o", "/nowhere/bill.csv"), "cannot write /nowhere/bill.csv"),
    ],
)
def test_what_focus_refuses(
    root: Path, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], told: str
) -> None:
    """In one line, and nothing is written."""
    code, out, err = run(capsys, "focus", root, *PRICES, *arguments)
    assert (code == 0, out) == (False, "")
    assert told in err


def test_tasks_are_told_apart(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A reasoning answer costs 25 times a chat's: seen in the summary, among the dearest, on the bill and in
    its export."""
    ends = (int((NOON + second) * 1e9) for second in range(8))
    tasks = [("chat", 20_000_000, 100), ("reason", 500_000_000, 1000)] * 4
    rows = [
        of_request(end, joules, engine="e", task=task, output_tokens=tokens, unit="token", complete=True)
        for end, (task, joules, tokens) in zip(ends, tasks, strict=True)
    ]
    save(tmp_path, "requests", "tasks", rows)
    found = {row["task"]: row for row in answer(capsys, "summary", tmp_path, "--by", "task")["rows"]}
    assert found["reason"]["joules_per_request"] == 25 * found["chat"]["joules_per_request"] == 500.0
    assert found["reason"]["joules_per_output_token"] == pytest.approx(
        2.5 * found["chat"]["joules_per_output_token"]
    )
    _, text, _ = run(capsys, "summary", tmp_path, "--by", "task")
    assert "Finished requests by task" in text
    assert "reason" in text
    spread = answer(capsys, "requests", tmp_path, "--by", "task")["distribution"]
    assert {(row["task"], row["p50"]) for row in spread if row["figure"] == "joules"} == {
        ("chat", 20),
        ("reason", 500),
    }
    bill = answer(capsys, "tenants", tmp_path, "--by", "task")["rows"]
    assert {row["task"]: row["joules"] for row in bill if row["owned"]} == {"chat": 80.0, "reason": 2000.0}
    _, out, _ = run(capsys, "focus", tmp_path, *PRICES)
    tagged = {
        row["x_TaskName"]: row["Tags"]
        for row in csv.DictReader(io.StringIO(out))
        if row["x_Part"] == "requests"
    }
    assert tagged == {task: f'{{"joulescope/task": "{task}"}}' for task in ("chat", "reason")}


def named_requests(root: Path, names: Sequence[str]) -> None:
    """A ledger with a request for each name, which is that of its tenant and its id."""
    rows = [
        of_request(int((NOON + second) * 1e9), 1000, engine="e", tenant=name, request_id=name, unit="token")
        for second, name in enumerate(names)
    ]
    save(root, "requests", "named", rows)


def test_names_do_not_command_the_terminal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Clients choose request ids: a title that one would set, a colour or a new line is not obeyed."""
    named_requests(tmp_path, ["\x1b]0;owned\x07", "two\nlines", "\u202ebackwards", "plain"])
    for command in ("tenants", "requests"):
        code, out, _ = run(capsys, command, tmp_path, *(("--by", "tenant") if command == "requests" else ()))
        assert code == 0
        assert not set("\x1b\x07\u202e") & set(out)
        for text in ("?]0;owned?", "two?lines", "?backwards", "plain"):
            assert text in out


def test_a_name_without_end_is_cut_for_people_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its row stays a row; programs get all of it."""
    long = "x" * 5000
    named_requests(tmp_path, [long])
    _, out, _ = run(capsys, "requests", tmp_path)
    assert out.count("x") < 300
    assert "x…" in out
    assert answer(capsys, "requests", tmp_path)["rows"][0]["request_id"] == long
    assert long in run(capsys, "requests", tmp_path, "--csv")[1]


def test_names_are_no_formulas_in_a_spreadsheet(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """An apostrophe goes before what a spreadsheet would compute; JSON has every name as it is."""
    computed = ['=HYPERLINK("http://x";"y")', "+1", "-1", "@SUM(A1)", "\t=1"]
    names = [*computed, "\r=1", "a\rb", 'a"b,c\nd', "a=1", "\x1b[2J\0"]
    named_requests(tmp_path, names)
    safe = [*(f"'{name}" for name in computed), "' =1", "a b", 'a"b,c\nd', "a=1", " [2J "]
    for command, column in (("requests", "request_id"), ("tenants", "tenant")):
        _, out, _ = run(capsys, command, tmp_path, "--csv")
        found = {row[column] for row in csv.DictReader(io.StringIO(out, newline="")) if row[column]}
        assert found == set(safe)
        assert {row[column] for row in answer(capsys, command, tmp_path)["rows"] if row[column]} == set(names)


def test_sums_below_one_unit_of_money_are_not_nothing(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """To the cent from one unit on, by three digits below."""
    cost = answer(capsys, "tenants", root, *PRICES)["total"]["cost"]
    _, out, _ = run(capsys, "tenants", root, *PRICES)
    assert 0.001 < cost < 1
    assert f" {cost:.3g} EUR" in out
    _, out, _ = run(capsys, "tenants", root, *PRICES, "--electricity-price", "1500", "--currency", "IDR")
    assert f" {cost * 6000:,.2f} IDR" in out


def test_csv_without_a_row_says_so(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A note in place of silence; what is printed stays CSV."""
    code, out, err = run(capsys, "requests", root, "--top", "0", "--csv")
    assert (code, out) == (0, "")
    assert "there are no rows to print" in err


def test_rows_that_are_not_yet_parquet_are_asked_too(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What a sidecar has just flushed lies in a segment, and is in the answer."""
    writer = LedgerWriter(tmp_path, ManualClock(), NOON, Rotation(seconds=3600.0))
    writer.add("requests", [request(number) for number in range(1, 5)])
    writer.add("minutes", [minute_row(minute(number)) for number in range(3)])
    writer.flush()
    found = answer(capsys, "summary", tmp_path)
    assert found["coverage"]["requests"] == 4
    assert found["coverage"]["finished_requests_joules"] == pytest.approx(1 + 2 + 3 + 4)
    assert found["coverage"]["minutes"] == 3
    writer.close()


def test_there_is_no_room_for_copies(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is not yet Parquet is copied to a temporary folder: one that is of no use is named."""
    writer = LedgerWriter(tmp_path / "ledger", ManualClock(), NOON)
    (tmp_path / "ledger").mkdir()
    writer.add("requests", [request(1)])
    writer.close()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "gone"))
    code, out, err = run(capsys, "tenants", tmp_path / "ledger")
    assert (code, out) == (4, "")
    assert "cannot be copied there: No such file or directory; name a folder with room by the vari" in err


def test_an_object_store(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """A ledger behind a URL is read through fsspec, with the same answers."""
    import fsspec

    list(write(tmp_path, MADE))
    store = fsspec.filesystem("memory")
    store.put(str(tmp_path), "/bucket/ledger", recursive=True)
    try:
        here, there = answer(capsys, "tenants", tmp_path), answer(capsys, "tenants", "memory://bucket/ledger")
        assert here["rows"] == there["rows"]
    finally:
        store.rm("/bucket", recursive=True)


# ------------------------------------------------------------------------------------- what is not well


@pytest.mark.parametrize(
    "url", ["s3://key:secret@bucket/ledger", "s3://key:sec/ret@bucket/ledger", "https://bucket/a?sig=secret"]
)
@pytest.mark.parametrize("command", ["summary", "compact"])
def test_a_url_with_secrets_is_refused_and_not_repeated(
    command: str, url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """As in the settings: an error goes to logs, and the answer names its ledger."""
    code, out, err = run(capsys, command, url)
    assert (code, out) == (4, "")
    assert "credentials and options do not belong into the URL of a ledger" in err
    assert "sec" not in err
    assert "key" not in err


def test_no_ledger_there(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """The folder is named, and what to give instead."""
    code, _, err = run(capsys, "summary", tmp_path / "nowhere")
    assert code == 4
    assert "nowhere: there is no such folder" in err


def test_a_spool_that_is_none(root: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """Rows that are not read because of a slip of the pen would be missing in silence."""
    code, _, err = run(capsys, "tenants", "memory://bucket/ledger", "--spool", tmp_path / "nowhere")
    assert code == 4
    assert "nowhere: there is no such folder; give the one that `ledger_spool` names" in err
    code, _, err = run(capsys, "tenants", root, "--spool", tmp_path)
    assert code == 4
    assert "only a ledger behind a URL has a spool" in err


def test_a_compaction_of_no_ledger_says_so(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """A nightly run on the folder above the right one would have nothing to do for ever. It is no failure: a
    ledger may be new."""
    code, out, err = run(capsys, "compact", tmp_path)
    assert (code, out.count("nothing to put together")) == (0, 2)
    assert "holds no files of a ledger yet; is it the place that the setting ledger names?" in err
    list(write(tmp_path, MADE))
    assert "holds no files" not in run(capsys, "compact", tmp_path)[2]


def test_an_empty_ledger(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """It is no zero: nothing is known."""
    code, out, err = run(capsys, "summary", tmp_path)
    assert (code, out) == (4, "")
    assert "holds no requests and no minutes yet" in err


def test_a_span_without_data(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The error says from when to when there is something."""
    code, _, err = run(capsys, "tenants", root, "--since", "2027-01-01")
    assert code == 4
    assert (
        "holds nothing from 2027-01-01T00:00Z; what it holds is from 2026-01-31T00:00Z until 2026-02-01"
        in err
    )


def test_a_span_with_requests_but_no_minutes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Requests are told all the same; nothing is said of measured joules, and the bill shows what lacks."""
    list(write(tmp_path, MADE))
    for path in (tmp_path / "minutes").rglob("*.parquet"):
        path.unlink()
    found = answer(capsys, "summary", tmp_path)
    assert found["balance"] is None
    assert found["coverage"]["requests"] == 400
    bill = answer(capsys, "tenants", tmp_path)
    assert bill["total"]["microjoules"] == 0
    assert {row["part"] for row in bill["rows"]} == {"requests", "wasted", "open"}


def test_files_of_several_releases(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A column that an older file lacks is null in its rows, and one that nobody knows is not read."""
    list(write(tmp_path, MADE))
    first, second = sorted((tmp_path / "requests").rglob("*.parquet"))
    old = pq.read_table(first)
    pq.write_table(old.drop_columns(["task", "lora", "avoided_joules"]), first)
    new = pq.read_table(second)
    strange = new.append_column("moon_phase", pa.array(["full"] * len(new)))
    pq.write_table(strange, second)
    found = answer(capsys, "summary", tmp_path, "--by", "task,day")
    tasks = {
        row["begin"]: {each["task"] for each in found["rows"] if each["begin"] == row["begin"]}
        for row in found["rows"]
    }
    assert tasks == {"2026-01-31T00:00Z": {""}, "2026-02-01T00:00Z": {"", "chat", "code"}}
    assert sum(row["requests"] for row in found["rows"]) == 400


@pytest.mark.parametrize("table", ["requests", "minutes"])
def test_a_file_of_a_newer_schema_is_left_out_and_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], table: str
) -> None:
    """Its meaning is not known here: the rest is told, with a note of what is missing."""
    list(write(tmp_path, MADE))
    path = sorted((tmp_path / table).rglob("*.parquet"))[0]
    rows = pq.read_table(path)
    pq.write_table(rows.replace_schema_metadata({**rows.schema.metadata, b"joulescope.schema": b"99"}), path)
    code, out, err = run(capsys, "summary", tmp_path, "--json")
    assert code == 0
    assert f"left out: {path}: has schema 99" in err
    (rejected,) = json.loads(out)["rejected"]
    assert rejected["path"] == str(path)


def test_a_column_of_another_type(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Files that contradict each other end with an error that names column, table and file."""
    list(write(tmp_path, MADE))
    path = sorted((tmp_path / "requests").rglob("*.parquet"))[0]
    rows = pq.read_table(path)
    texts = pa.array(["much"] * len(rows))
    where = rows.schema.get_field_index("attributed_joules")
    pq.write_table(rows.set_column(where, "attributed_joules", texts), path)
    code, _, err = run(capsys, "summary", tmp_path)
    assert code == 4
    assert f"attributed_joules of the requests is no float64 in {path}, as a ledger has it" in err


def test_a_file_of_nothing_but_its_head(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """No rows are no error, and no zero either."""
    folder = tmp_path / "requests" / "date=2026-01-31"
    folder.mkdir(parents=True)
    pq.write_table(arrow_schema("requests").empty_table(), folder / "a-000000.parquet")
    code, _, err = run(capsys, "summary", tmp_path)
    assert code == 4
    assert "holds no requests and no minutes yet" in err


def test_without_the_extra_the_line_that_installs_it_is_said() -> None:
    """Whichever of its packages is missing."""
    need_packages()
    for missing in ("duckdb", "ibis", "pyarrow", "fsspec"):
        with pytest.raises(MissingExtra, match=r"pip install 'joulescope-inference\[analysis\]'"):
            need_packages(lambda name, missing=missing: None if name == missing else name)  # type: ignore[misc]


def test_engines_that_served_nobody(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Minutes without a request: the bill is on nobody's account, and all of it is there."""
    list(write(tmp_path, Recipe(requests=2, days=1, engines=1, open_uj=0)))
    for path in (tmp_path / "requests").rglob("*.parquet"):
        path.unlink()
    found = answer(capsys, "tenants", tmp_path, "--spread", "attributed")
    assert {row["owned"] for row in found["rows"]} == {False}
    assert {row["part"] for row in found["rows"]} >= {"idle", "overhead", "unattributed"}
    measured = answer(capsys, "summary", tmp_path)["balance"]["measured"]["joules"]
    assert found["total"]["microjoules"] == round(measured * 1e6)
    code, out, err = run(capsys, "requests", tmp_path)
    assert (code, out) == (0, "")
    assert "no request ended of which joules are known" in err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("tenants", "--by", "tenant,colour"), "nothing is told apart by 'colour'"),
        (("tenants", "--since", "tomorrow"), "--since 'tomorrow' is no instant"),
        (("tenants", "--json", "--csv"), "--json and --csv cannot both"),
        (("focus",), "give --electricity-price"),
        (("focus", "--electricity-price", "0.2"), "currency"),
        (("focus", "--format", "parquet", *PRICES), "name a file with --output"),
    ],
)
def test_flags_that_make_no_sense(
    root: Path, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], message: str
) -> None:
    """Exit code 2, and what to write instead."""
    code, _, err = run(capsys, arguments[0], root, *arguments[1:])
    assert code == 2
    assert message in err


def test_an_intensity_that_changes_is_no_figure_of_a_span(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A URL in the settings is that of this moment: there are no grams, and a note says why."""
    arguments = ("summary", root, "--carbon-intensity", "http://127.0.0.1:9/intensity", "--json")
    code, out, err = run(capsys, *arguments)
    assert code == 0
    assert "no carbon figures" in err
    assert json.loads(out)["balance"]["measured"]["carbon_grams"] is None


def test_prices_come_from_the_settings_too(
    root: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The sidecar's variables and file are read, as everywhere."""
    monkeypatch.setenv("JOULESCOPE_ELECTRICITY_PRICE", "0.5")
    monkeypatch.setenv("JOULESCOPE_CURRENCY", "CHF")
    assert answer(capsys, "tenants", root)["prices"]["currency"] == "CHF"
