"""`joulescope baseline`: learn from a trace, look, compare, pin."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from joulescope.attribution.baseline import Baseline
from joulescope.baselines.file import encode_baselines, read_baseline, write_baseline
from joulescope.cli.baseline import _write, command
from joulescope.errors import BaselineError, JoulescopeError
from joulescope.export.http import create_app
from joulescope.export.http_server import HttpServer
from joulescope.ingest.trace import TraceWriter
from joulescope.simulation.traces import SimulatedRun
from tests.baselines.samples import IDENTITY, baseline
from tests.export.samples import rich_snapshot


def run(*arguments: object) -> Result:
    return CliRunner().invoke(command, [str(each) for each in arguments], catch_exceptions=False)


def trace_of(path: Path, seconds: float) -> Path:
    writer = TraceWriter(path)
    writer.write(list(SimulatedRun(seconds, truth=False).records()))
    writer.close()
    return path


def test_learn_writes_a_file_for_each_engine(tmp_path: Path) -> None:
    """Learned from a trace, it holds what a sidecar would have learned, under a name that says of what."""
    trace = trace_of(tmp_path / "run.jsonl.gz", 70.0)
    result = run("learn", trace, "-o", tmp_path / "made", "--seconds", 60)
    (line,) = result.output.splitlines()
    made = read_baseline(Path(line))
    assert made.identity.model == "meta-llama/Llama-3.1-8B-Instruct"
    assert made.scale == pytest.approx(1.0, abs=0.01)


def test_pinning_another_kind_of_engine_under_the_same_name_keeps_both(tmp_path: Path) -> None:
    """Before this roll-out, for two models; the second of one model takes the place of the first."""
    folder = tmp_path / "pinned"
    other = replace(IDENTITY, model="org/other")
    for number, made in enumerate((baseline(), baseline(identity=other), baseline(scale=2.0))):
        write_baseline(tmp_path / f"{number}.json", made)
        run("pin", tmp_path / f"{number}.json", folder, "--name", "before 0.33")
    assert sorted(path.name for path in folder.iterdir()) == [
        "pinned-before-0.33-2.json",
        "pinned-before-0.33.json",
    ]
    assert read_baseline(folder / "pinned-before-0.33.json").scale == 2.0
    assert read_baseline(folder / "pinned-before-0.33-2.json").identity == other


def test_engines_of_one_name_get_files_of_their_own(tmp_path: Path) -> None:
    """Replicas that learn in the same minute, and two names of which a file's name keeps the same."""
    replicas = [baseline(scale=1.0), baseline(scale=2.0)]
    named = [("...", replicas[0]), ("a/b", replicas[0]), ("a b", replicas[1]), ("A-B", replicas[1])]
    _write(named, tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "A-B-3.json",
        "a-b-2.json",
        "a-b.json",
        "baseline.json",
    ]
    assert read_baseline(tmp_path / "a-b-2.json").scale == 2.0


@contextmanager
def sidecar(*baselines: Baseline) -> Iterator[str]:
    """The URL of pages that tell of these baselines, by engine ``llama/0``, ``llama/1`` and so on."""
    page = encode_baselines({f"llama/{number}": each for number, each in enumerate(baselines)})
    app = create_app(rich_snapshot, lambda: (True, "ready"), get_baselines=lambda: page)
    server = HttpServer("127.0.0.1", 0, app)
    host, port = server.start()
    try:
        yield f"http://{host}:{port}"
    finally:
        server.stop()


def test_save_writes_what_a_sidecar_compares_with(tmp_path: Path) -> None:
    """One file an engine, named after it, however odd the name; they are read back as they were."""
    with sidecar(baseline(), baseline(scale=2.0)) as url:
        lines = run("save", "--url", url, "-o", tmp_path).output.splitlines()
    assert lines == [f"{tmp_path}/llama-0.json", f"{tmp_path}/llama-1.json"]
    assert [read_baseline(Path(line)) for line in lines] == [baseline(), baseline(scale=2.0)]


def test_save_says_why_there_is_nothing(tmp_path: Path) -> None:
    """No baseline yet, or no sidecar."""
    with sidecar() as url, pytest.raises(BaselineError, match="no engine has a baseline yet"):
        run("save", "--url", url, "-o", tmp_path)
    with pytest.raises(JoulescopeError, match="joulescope serve"):
        run("save", "--url", url, "-o", tmp_path)


def test_too_short_a_trace_says_how_long_it_is(tmp_path: Path) -> None:
    trace = trace_of(tmp_path / "run.jsonl.gz", 5.0)
    with pytest.raises(BaselineError, match=r"busy for \d+ s at most, and 1800 s are asked for"):
        run("learn", trace, "-o", tmp_path)


def test_a_trace_without_measured_work_says_so(tmp_path: Path) -> None:
    writer = TraceWriter(tmp_path / "empty.jsonl")
    writer.write([])
    writer.close()
    with pytest.raises(BaselineError, match="nothing to learn from"):
        run("learn", tmp_path / "empty.jsonl", "-o", tmp_path)


def test_show_says_whose_work_and_what_it_costs(tmp_path: Path) -> None:
    write_baseline(tmp_path / "a.json", baseline())
    text = run("show", tmp_path / "a.json").output
    assert "1 × NVIDIA H100 80GB HBM3, limit 700 W" in text
    assert "decode, 64 × 1024 tokens of context" in text


def test_compare_gives_the_factor(tmp_path: Path) -> None:
    """Twice the scale is twice the joules, step by step; other kinds of engines are noted."""
    write_baseline(tmp_path / "a.json", baseline(scale=1.0))
    write_baseline(tmp_path / "b.json", baseline(scale=2.0))
    lines = run("compare", tmp_path / "a.json", tmp_path / "b.json").output.splitlines()
    assert {line.split()[-1] for line in lines[1:]} == {"2.000"}


def test_pin_and_list(tmp_path: Path) -> None:
    """A pinned copy beside the learned one, and both in the list, in the order of their files."""
    write_baseline(tmp_path / "learned-a.json", baseline())
    result = run("pin", tmp_path / "learned-a.json", tmp_path, "--name", "before the upgrade")
    assert result.output == f"{tmp_path}/pinned-before-the-upgrade.json\n"
    _, learned, pinned = run("list", tmp_path).output.splitlines()
    assert learned.split()[0] == "learned"
    assert pinned.startswith("pinned")
    assert pinned.endswith("before the upgrade")


@pytest.mark.parametrize(
    "arguments", [("show", "no.json"), ("pin", "no.json", "x"), ("compare", "no.json", "no.json")]
)
def test_a_file_that_is_not_there_is_an_error_in_words(arguments: tuple[str, ...]) -> None:
    with pytest.raises(BaselineError, match=r"no\.json: cannot be read"):
        run(*arguments)


def test_a_folder_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    """A slip in its name does not look like a folder without baselines."""
    result = run("list", tmp_path / "no")
    assert result.exit_code == 2
    assert "does not exist" in result.output
