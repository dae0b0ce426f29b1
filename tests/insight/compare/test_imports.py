"""Results of other benchmarks are read by what is in them; what is wrong is named, or counted."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from joulescope.errors import ComparisonError
from joulescope.insight.compare.comparable import warnings_of
from joulescope.insight.compare.imports.fields import Skipped
from joulescope.insight.compare.imports.mlenergy import spread
from joulescope.insight.compare.imports.read import looks_like_benchmark, read_benchmarks
from joulescope.insight.compare.sides import sides_of
from joulescope.insight.compare.values import CLIENT, Side
from tests.insight.compare.benchmarks import (
    IMAGES_2,
    LANGUAGE_2,
    LLAMA,
    TABLE_1,
    client_2,
    guidellm_benchmark,
    guidellm_schema,
    guidellm_unversioned,
    leaderboard_3,
    mlenergy_images,
    mlenergy_run,
    stats_2,
    vllm_serve,
)


def sides(path: Path, skipped: Skipped | None = None) -> tuple[Side, ...]:
    found = read_benchmarks(path, Skipped() if skipped is None else skipped)
    return sides_of([("", source) for source in found])


def saved(path: Path, document: Any) -> Path:
    path.write_text(json.dumps(document))
    return path


# ----------------------------------------------------------------------------------------- ML.ENERGY v3


def test_results_of_mlenergy_give_both_definitions(tmp_path: Path) -> None:
    """Steady joules by token as it says, all joules by all tokens beside, and what folders are named."""
    (side,) = sides(mlenergy_run(tmp_path))
    (point,) = side.points
    assert point.value("joules_per_unit") == pytest.approx(0.12)
    assert point.value("joules_per_unit_all") == pytest.approx(60_000.0 / 450_560)
    assert point.value("watts") == pytest.approx(600.0)
    assert point.value("units_per_second") == pytest.approx(5_000.0)
    assert point.value("joules_per_request") == pytest.approx(0.12 * 440)
    assert point.value("batch") == pytest.approx(62.08)
    assert point.value("ttft_p90") == pytest.approx(0.15)
    assert point.value("e2e") == pytest.approx(5.2)
    assert point.gpu_hours == pytest.approx(120.0 / 3600)
    assert (side.setup.model, side.setup.gpu, side.setup.gpu_count, side.setup.task) == (
        LLAMA,
        "H100",
        1,
        "lm-arena-chat",
    )
    assert side.origin.clock == CLIENT
    assert side.mix.prompt_tokens == pytest.approx(200.0)


def test_inter_token_times_that_came_at_once_are_spread(tmp_path: Path) -> None:
    """Of single requests, failed ones left out; not the mean that its file has, which counts zeros."""
    (side,) = sides(mlenergy_run(tmp_path))
    assert side.points[0].value("itl") == pytest.approx(0.012)
    assert side.points[0].value("itl_p50") == pytest.approx(0.012)
    assert spread(np.array([0.0, 0.0])).size == 0
    assert spread(np.array([0.0, 3.0, 0.0, 0.0, 2.0])).tolist() == [1.0, 1.0, 1.0, 2.0]


@given(st.lists(st.floats(0.0, 10.0), max_size=30))
def test_spreading_keeps_the_time_and_all_tokens_from_the_first_that_took_any(times: list[float]) -> None:
    made = spread(np.asarray(times, dtype=float))
    first = next((place for place, time in enumerate(times) if time > 0), len(times))
    assert made.sum() == pytest.approx(sum(times))
    assert made.size == len(times) - first


def test_a_folder_of_a_sweep_is_one_side_with_a_point_for_each_batch(tmp_path: Path) -> None:
    """Two seeds at one batch are one point that knows how they scatter."""
    mlenergy_run(tmp_path, limit=8, joules=0.45)
    mlenergy_run(tmp_path, limit=64, joules=0.12)
    mlenergy_run(tmp_path, limit=64, joules=0.13, seed=1)
    (side,) = sides(tmp_path)
    assert [point.where for point in side.points] == ["max_num_seqs 8", "max_num_seqs 64"]
    alone, several = (point.figures["joules_per_unit"] for point in side.points)
    assert (alone.value, alone.low) == (pytest.approx(0.45), None)
    assert several.value == pytest.approx(125_000 / 1_000_000)
    assert several.low is not None
    assert several.low < 0.12


def test_precisions_and_gpu_counts_are_sides_of_their_own(tmp_path: Path) -> None:
    mlenergy_run(tmp_path)
    mlenergy_run(tmp_path, model=f"{LLAMA}-FP8")
    mlenergy_run(tmp_path, gpus=2)
    found = {(side.setup.precision, side.setup.gpu_count) for side in sides(tmp_path)}
    assert found == {("", 1), ("FP8", 1), ("", 2)}


def test_a_batch_that_was_not_reached_is_remarked(tmp_path: Path) -> None:
    (side,) = sides(mlenergy_run(tmp_path, running=40.0))
    assert "only 40 requests ran in the mean" in side.quality.remarks[0]


def test_without_prometheus_json_the_batch_is_not_known_and_it_is_counted(tmp_path: Path) -> None:
    path = mlenergy_run(tmp_path)
    path.with_name("prometheus.json").unlink()
    skipped = Skipped()
    (side,) = sides(path, skipped)
    assert side.points[0].value("batch") is None
    assert list(skipped.counts.values()) == [1]
    assert "no prometheus.json" in next(iter(skipped.lines()))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"steady_state_duration": "absent"}, "field steady_state_duration is missing"),
        ({"steady_state_energy_per_token": 0}, "field steady_state_energy_per_token is 0: nothing was done"),
        ({"steady_state_energy": "much"}, "field steady_state_energy is 'much' and no number"),
        ({"completed": -1}, "field completed is -1: it must be finite and at least 0"),
        pytest.param({"completed": 10**400}, "field completed is 10+: it must be finite", id="huge"),
        ({"results": {"a": 1}}, "field results is {'a': 1} and no list"),
        ({"results": [3]}, r"field results\[0\] is 3 and no object"),
        ({"entire_benchmark_measurement": [1]}, r"field entire_benchmark_measurement is \[1\] and no object"),
    ],
)
def test_a_field_that_cannot_be_used_is_named_with_its_file(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    path = mlenergy_run(tmp_path, **changes)
    with pytest.raises(ComparisonError, match=message) as caught:
        sides(path)
    assert str(path) in str(caught.value)
    assert "ML.ENERGY benchmark v3" in str(caught.value) or "leave the file out" in str(caught.value)


@pytest.mark.parametrize("numbered", [False, True])
def test_images_have_joules_by_image_with_the_scatter_of_the_batches(tmp_path: Path, numbered: bool) -> None:
    """Older files have a field for each iteration, newer ones a list; size and steps are the task."""
    (side,) = sides(mlenergy_images(tmp_path, numbered=numbered))
    (point,) = side.points
    assert side.setup.unit == "image"
    assert side.setup.gpu_count == 2
    assert side.setup.task == "text-to-image 1024x1024 20 steps"
    figure = point.figures["joules_per_unit"]
    assert figure.value == pytest.approx(2 * (500 + 510 + 520) / 12)
    assert figure.low is not None
    assert figure.low < figure.value
    assert point.value("e2e") == pytest.approx(2.1)
    assert (point.parts, point.requests) == (3, 12)


# ------------------------------------------------------------------------------------ ML.ENERGY, older


def test_rows_of_the_leaderboard_are_points_without_hours(tmp_path: Path) -> None:
    skipped = Skipped()
    (side,) = sides(saved(tmp_path / "lm-arena-chat.json", leaderboard_3()), skipped)
    assert [point.value("joules_per_unit") for point in side.points] == pytest.approx([0.46, 0.12])
    assert [point.value("units_per_second") for point in side.points] == pytest.approx([1_000.0, 5_000.0])
    assert side.points[1].value("joules_per_request") == pytest.approx(60.0)
    assert side.points[1].value("itl_p50") == pytest.approx(0.011)
    assert side.points[1].gpu_hours is None
    assert side.points[1].requests == 0
    assert side.setup.precision == "BF16"
    assert sum(skipped.counts.values()) == 1
    assert "avg_power_watts is missing" in next(iter(skipped.lines()))


def test_version_2_has_its_steady_window_in_the_file_beside(tmp_path: Path) -> None:
    path = saved(tmp_path / "vllm+bs32+results.json", client_2())
    saved(tmp_path / "vllm+bs32+stats.json", stats_2())
    (side,) = sides(tmp_path)
    (point,) = side.points
    assert point.value("joules_per_unit") == pytest.approx(0.36)
    assert point.value("joules_per_unit_all") == pytest.approx(70_000 / 196_000)
    assert point.value("batch") == pytest.approx(126 / 4)
    assert side.quality.failed_ratio == pytest.approx(10 / 490)
    assert side.setup.gpu == "A100"
    path.with_name("vllm+bs32+stats.json").unlink()
    skipped = Skipped()
    (alone,) = sides(path, skipped)
    assert alone.points[0].value("joules_per_unit") is None
    assert "no steady window" in next(iter(skipped.counts))


def test_files_of_the_leaderboard_of_version_2_are_read(tmp_path: Path) -> None:
    saved(tmp_path / "bs32+tp2+pp1.json", LANGUAGE_2)
    saved(tmp_path / "bs4+steps25.json", IMAGES_2)
    older = {
        "Model": "org/painter",
        "GPU model": "NVIDIA A100",
        "Batch size": 1,
        "Number of inference steps": 30,
    }
    saved(tmp_path / "bs1.json", {**older, "Batch latency (s)": 2.0, "Energy per image (J)": 900.0})
    found = {(side.setup.unit, side.setup.task): side for side in sides(tmp_path)}
    tokens = found["token", ""]
    assert tokens.points[0].value("joules_per_unit") == pytest.approx(150 / 400)
    assert tokens.points[0].value("itl") == pytest.approx(0.025)
    assert (tokens.setup.gpu_count, tokens.setup.parallel) == (2, "TP2")
    assert found["image", "25 steps"].points[0].value("joules_per_unit") == pytest.approx(800.0)
    assert found["image", "30 steps"].points[0].value("watts") == pytest.approx(450.0)


@pytest.mark.parametrize("text", ["{", "[" * 100_000], ids=["cut off", "too deep"])
def test_a_file_of_stats_that_was_cut_off_leaves_the_whole_run(tmp_path: Path, text: str) -> None:
    path = saved(tmp_path / "vllm+bs32+results.json", client_2())
    path.with_name("vllm+bs32+stats.json").write_text(text)
    skipped = Skipped()
    (side,) = sides(path, skipped)
    assert side.points[0].value("joules_per_unit") is None
    assert skipped.counts == {"+stats.json cannot be read: no steady window": 1}


@pytest.mark.parametrize(
    "times", [0.5, [[0.1, 0.2]], [float("inf"), 0.1], [float("nan")], [-0.1, 0.2], "soon"]
)
def test_inter_token_times_that_are_none_are_passed_over_and_counted(tmp_path: Path, times: object) -> None:
    """The means that the file tells take their place."""
    skipped = Skipped()
    (side,) = sides(
        mlenergy_run(tmp_path, results=[{"success": True, "itl": times}], mean_itl_ms=12.5), skipped
    )
    assert side.points[0].value("itl") == pytest.approx(0.0125)
    assert skipped.counts == {"inter-token times that are no list of finite numbers from 0 on": 1}


def test_rows_of_a_leaderboard_are_not_called_short(tmp_path: Path) -> None:
    """They tell rates, not how long was measured."""
    rows = leaderboard_3()
    (side,) = sides(saved(tmp_path / "l.json", {**rows, "configurations": rows["configurations"][:1]}))
    assert side.quality.steady_seconds is None
    assert [each.code for each in warnings_of([side])] == []


@pytest.mark.parametrize("row", ["m,nan,100,2,300", "m,-5,100,2,-300", "m,5,100,2,0", "m,5,inf,2,300"])
def test_a_row_of_version_1_with_a_figure_that_cannot_be_is_left_out(tmp_path: Path, row: str) -> None:
    path = tmp_path / "A100_chat_benchmark.csv"
    path.write_text(f"model,throughput,response_length,latency,energy\n{row}\n")
    with pytest.raises(ComparisonError, match="rows of a table of version 1 that lack a figure"):
        sides(path)


def test_tables_of_version_1_are_read_and_broken_rows_counted(tmp_path: Path) -> None:
    path = tmp_path / "A100_chat_benchmark.csv"
    path.write_text(TABLE_1)
    skipped = Skipped()
    (side,) = sides(path, skipped)
    assert [point.value("joules_per_unit") for point in side.points] == pytest.approx([5.0, 5.0])
    assert (side.setup.gpu, side.setup.task) == ("A100", "chat")
    assert skipped.counts == {"rows of a table of version 1 that lack a figure": 1}


# -------------------------------------------------------------------------------------- vLLM, GuideLLM


def test_a_run_of_vllms_benchmark_has_times_and_no_joules(tmp_path: Path) -> None:
    """End-to-end times are not in it by default: first token and the rest make them, and it is remarked."""
    (side,) = sides(saved(tmp_path / "run.json", vllm_serve()))
    (point,) = side.points
    end = 0.060 + 0.016 * (196_000 - 490) / 490
    assert point.value("joules_per_unit_all") is None
    assert point.value("itl") == pytest.approx(0.016)
    assert point.value("tpot_p99") == pytest.approx(0.019)
    assert point.value("ttft_p50") == pytest.approx(0.055)
    assert point.value("e2e") == pytest.approx(end)
    assert point.value("batch") == pytest.approx(4.9 * end)
    assert (side.setup.precision, side.setup.gpu, side.setup.gpu_count) == ("FP8", "H100", 2)
    assert "no end-to-end times" in side.quality.remarks[0]
    assert side.quality.failed_ratio == pytest.approx(10 / 490)


def test_joules_that_vllm_measured_are_those_of_the_whole_run(tmp_path: Path) -> None:
    told = vllm_serve(
        gpu_energy_j=58_800.0, gpu_energy_duration_s=100.0, energy_gpu_ids=[0, 1], gpu_count="absent"
    )
    (side,) = sides(saved(tmp_path / "run.json", told))
    assert side.points[0].value("joules_per_unit_all") == pytest.approx(0.3)
    assert side.points[0].value("joules_per_unit") is None
    assert side.setup.gpu_count == 2


def test_single_requests_give_the_end_to_end_times(tmp_path: Path) -> None:
    told = vllm_serve(ttfts=[0.1, 0.1, 0.0], itls=[[0.2, 0.2], [0.4, 0.5], []], errors=["", "", "timeout"])
    (side,) = sides(saved(tmp_path / "run.json", told))
    assert side.points[0].value("e2e") == pytest.approx(0.75)
    assert side.quality.remarks == ()


def test_appended_runs_are_points_of_one_side(tmp_path: Path) -> None:
    path = tmp_path / "runs.jsonl"
    path.write_text("\n".join(json.dumps(vllm_serve(max_concurrency=each)) for each in (8, 32)))
    (side,) = sides(path)
    assert [point.where for point in side.points] == [f"{path}:1 concurrency 8", f"{path}:2 concurrency 32"]
    assert looks_like_benchmark(path)


@pytest.mark.parametrize(
    ("document", "schema"),
    [
        (guidellm_unversioned(), "guidellm"),
        (guidellm_schema(1), "guidellm 0.5.0"),
        (guidellm_schema(2), "guidellm 0.6.0"),
    ],
)
def test_reports_of_guidellm_are_read_in_every_schema(tmp_path: Path, document: Any, schema: str) -> None:
    (side,) = sides(saved(tmp_path / "benchmarks.json", document))
    point = side.points[0]
    assert side.origin.format == schema
    assert side.setup.model == LLAMA
    assert point.value("ttft_p90") == pytest.approx(0.075)
    assert point.value("tpot_p99") == pytest.approx(2.5 * (point.value("itl") or 0))
    assert point.value("units_per_second_all") == pytest.approx(2_000.0)
    assert point.value("joules_per_unit_all") is None
    assert side.quality.failed_ratio == pytest.approx(3 / 300)
    assert "concurrent" in point.where


def test_yaml_is_read_too(tmp_path: Path) -> None:
    path = tmp_path / "benchmarks.yaml"
    path.write_text(yaml.dump(guidellm_schema(1)))
    assert sides(path)[0].points[0].value("batch") == pytest.approx(16.0)


def test_a_newer_schema_is_refused_by_its_number(tmp_path: Path) -> None:
    with pytest.raises(
        ComparisonError, match="field version is 3; known are 1 and 2; use a newer joulescope"
    ):
        sides(saved(tmp_path / "b.json", guidellm_schema(3)))


def test_benchmarks_in_which_nothing_succeeded_are_counted(tmp_path: Path) -> None:
    document = guidellm_schema(1)
    document["benchmarks"].append(guidellm_benchmark(4.0, 9.0, count=0))
    skipped = Skipped()
    (side,) = sides(saved(tmp_path / "b.json", document), skipped)
    assert len(side.points) == 1
    assert "no request succeeded" in next(iter(skipped.lines()))


# ------------------------------------------------------------------------------------ what cannot be read


WIDE = f"model,throughput,response_length,latency,energy\n{'m' * 200_000},1,1,1,1\n"


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.json", "{}", r"is of no format that is known \(it has: \)"),
        ("a.json", "[1, 2]", "is of no format that is known .it has: list"),
        ("a.json", '{"duration": 1, "compl', "is no JSON: .* was its benchmark cut off"),
        ("a.yaml", "a: [1", "is no YAML"),
        ("a.yaml", "a: 2026-13-45", "is no YAML: month must be in 1..12"),
        pytest.param("a.csv", WIDE, "is no CSV", id="wide"),
        ("a.csv", "x,y\n1,2\n", "its first line is not that of a table of ML.ENERGY v1"),
        ("a.json", '{"elapsed_time": 1, "tokens_per_second": 2}', "of `vllm bench throughput` or `latency`"),
        (
            "a.json",
            '{"benchmarks": [{"mode": "sync"}]}',
            "field metrics is missing: reports of GuideLLM before 0.2",
        ),
        ("a.json", '{"benchmarks": []}', "holds no run that can be compared: it is empty"),
    ],
)
def test_what_cannot_be_read_says_what_and_how_to_mend_it(
    tmp_path: Path, name: str, text: str, message: str
) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(ComparisonError, match=message) as caught:
        sides(tmp_path / name)
    assert str(tmp_path / name) in str(caught.value)


def test_a_run_that_was_cut_off_is_named_by_its_line(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(json.dumps(vllm_serve()) + '\n{"duration": ')
    with pytest.raises(ComparisonError, match=r"a\.json:2: is no JSON"):
        sides(tmp_path / "a.json")


def test_a_line_too_deep_to_read_is_named_and_is_no_benchmark(tmp_path: Path) -> None:
    deep = "[" * 100_000
    (tmp_path / "a.json").write_text(json.dumps(vllm_serve()) + f"\n{deep}\n")
    with pytest.raises(ComparisonError, match=r"a\.json:2: is no JSON"):
        sides(tmp_path / "a.json")
    (tmp_path / "b.jsonl").write_text(deep)
    assert not looks_like_benchmark(tmp_path / "b.jsonl")


def test_a_mark_at_the_beginning_and_odd_digits_do_not_matter(tmp_path: Path) -> None:
    """Windows programs write the one; Python calls a raised 2 a digit."""
    document = vllm_serve(gpu_count="²", tp="²")
    (tmp_path / "a.json").write_text("\ufeff" + json.dumps(document))
    (side,) = sides(tmp_path / "a.json")
    assert (side.setup.gpu_count, side.setup.parallel) == (None, "")


def test_bytes_and_missing_files_are_named(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ComparisonError, match="is no text in UTF-8"):
        sides(tmp_path / "a.json")
    with pytest.raises(ComparisonError, match="No such file"):
        sides(tmp_path / "b.json")


def test_a_folder_reads_what_it_can_and_counts_the_rest(tmp_path: Path) -> None:
    mlenergy_run(tmp_path)
    (tmp_path / "notes.json").write_text('{"hello": "world"}')
    skipped = Skipped()
    assert len(sides(tmp_path, skipped)) == 1
    assert skipped.counts == {"files that could not be read": 1}
    (tmp_path / "empty").mkdir()
    with pytest.raises(ComparisonError, match="no results of a benchmark are in it"):
        sides(tmp_path / "empty")


DOCUMENTS: list[Callable[[], Any]] = [
    vllm_serve,
    client_2,
    leaderboard_3,
    guidellm_unversioned,
    lambda: guidellm_schema(2),
    lambda: dict(LANGUAGE_2),
    lambda: dict(IMAGES_2),
]
ODD = st.sampled_from([None, "x", -1, 0, True, [], {}, [None], {"mean": "x"}, 1e308, [[1]]])


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.sampled_from(DOCUMENTS), st.data())
def test_a_document_with_one_odd_value_is_read_or_refused(
    tmp_path: Path, made: Callable[[], Any], data: st.DataObject
) -> None:
    """Wherever the odd value stands, it ends in a side or in an error of its own kind; never in a crash."""
    document = made()
    spot: Any = document
    while True:
        keys = sorted(spot) if isinstance(spot, dict) else list(range(len(spot)))
        key = data.draw(st.sampled_from(keys))
        if isinstance(spot[key], dict | list) and spot[key] and data.draw(st.booleans()):
            spot = spot[key]
            continue
        spot[key] = data.draw(ODD)
        break
    with suppress(ComparisonError):
        sides(saved(tmp_path / "odd.json", document))
