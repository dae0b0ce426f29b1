"""Importers on what benchmarks really wrote: runs made with them, and excerpts of published data."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from joulescope.insight.compare.imports.fields import Skipped
from joulescope.insight.compare.imports.read import looks_like_benchmark
from joulescope.insight.compare.match import at
from joulescope.insight.compare.values import At
from tests.insight.compare.benchmarks import mlenergy_images
from tests.insight.compare.published import (
    CODER,
    CODER_ROWS,
    MIXTRAL_2,
    TABLE_1,
    VIDEO_2,
    VIDEO_ROW,
    leaderboard_model,
    leaderboard_task,
)
from tests.insight.compare.test_imports import saved, sides

DATA = Path(__file__).parent / "data"


# -------------------------------------------------------------------------------------- vLLM, GuideLLM


@pytest.mark.parametrize("name", ["vllm-0.32-serve.json", "vllm-0.32-serve-detailed.json"])
def test_times_of_a_run_of_vllm_sum_up(name: str) -> None:
    """First token and the time by token make the time to the end; the client kept nearly four under way."""
    told = json.loads((DATA / name).read_text())
    (side,) = sides(DATA / name)
    (point,) = side.points
    end = sum(told["latencies"]) / 24
    assert point.value("e2e") == pytest.approx(end)
    assert (point.value("ttft") or 0) + 19 * (point.value("itl") or 0) == pytest.approx(end)
    assert point.value("itl") == pytest.approx(told["mean_tpot_ms"] / 1e3, rel=0.01)
    assert 3.5 < (point.value("batch") or 0) < 4
    assert point.requests == 24
    assert side.quality.remarks == ()


def test_pieces_that_came_at_once_are_no_tokens() -> None:
    """vLLM's ITL is between pieces; its mean is 1.7 times that by token here, its median microseconds."""
    told = json.loads((DATA / "vllm-0.32-serve.json").read_text())
    (side,) = sides(DATA / "vllm-0.32-serve.json")
    assert told["mean_itl_ms"] > 1.7 * told["mean_tpot_ms"]
    assert side.points[0].value("itl_p99") is None
    assert side.points[0].value("tpot_p99") == pytest.approx(told["p99_tpot_ms"] / 1e3)
    assert side.setup.precision, side.setup.task == ("BF16", "chat")


def test_runs_that_vllm_appended_are_read_line_by_line() -> None:
    path = DATA / "vllm-0.32-serve-appended.jsonl"
    assert looks_like_benchmark(path)
    (side,) = sides(path)
    assert [point.where.partition(":")[2] for point in side.points] == ["1 8.0/s", "2 concurrency 12"]
    assert side.points[1].value("e2e_p90") == pytest.approx(0.4162823980950634)


def test_a_report_of_guidellm_says_itself_what_is_wrong_with_it() -> None:
    (side,) = sides(DATA / "guidellm-0.8.1.json")
    (point,) = side.points
    assert side.origin.format == "guidellm 0.8.1"
    assert (side.setup.model, point.requests) == ("tiny", 20)
    assert point.where.endswith("concurrent 4")
    assert point.value("units_per_second_all") == pytest.approx(400 / 1.046922206878662)
    assert point.value("batch") == pytest.approx((point.value("e2e") or 0) * 20 / 1.046922206878662, rel=0.01)
    assert side.mix.prompt_tokens == pytest.approx(55)
    assert "bottlenecked by the data generation" in side.quality.remarks[0]


@pytest.mark.parametrize(("release", "named"), [("0.5.4", "guidellm 0.5.4"), ("0.3.1", "guidellm")])
def test_older_reports_of_guidellm_are_read_as_well(release: str, named: str) -> None:
    """Four clients kept about four requests under way, and a request's times make its time to the end."""
    (side,) = sides(DATA / f"guidellm-{release}.json")
    (point,) = side.points
    assert (side.origin.format, side.setup.model, point.requests) == (named, "tiny", 20)
    assert 2 < (point.value("batch") or 0) <= 4
    parts = (point.value("ttft") or 0) + 19 * (point.value("itl") or 0)
    assert parts == pytest.approx(point.value("e2e"), rel=0.1)
    assert point.where.endswith("concurrent 4")


# ------------------------------------------------------------------------------------ ML.ENERGY's data


def test_rows_of_a_model_are_those_of_its_task(tmp_path: Path) -> None:
    """Both files tell the same sides; a folder with both does not count a row as two measurements."""
    (by_task,) = sides(saved(tmp_path / "sourcegraph-fim.json", leaderboard_task()))
    (by_model,) = sides(saved(tmp_path / "Qwen__sourcegraph-fim.json", leaderboard_model()))
    (both,) = sides(tmp_path)
    assert by_model.setup == by_task.setup == both.setup
    assert (by_task.setup.model, by_task.setup.task) == (CODER, "sourcegraph-fim")
    assert [point.figures for point in by_model.points] == [point.figures for point in by_task.points]
    assert [point.parts for point in both.points] == [1] * 5
    first = by_task.points[0]
    assert first.value("units_per_second") == pytest.approx(587.468, rel=1e-4)
    assert first.value("joules_per_request") == pytest.approx(215.533, rel=1e-4)


def test_published_videos_are_told_apart_by_frames_and_layout(tmp_path: Path) -> None:
    two_ways = {**VIDEO_ROW, "ring_degree": 2, "ulysses_degree": 2, "energy_per_video_joules": 79695.6}
    path = saved(
        tmp_path / "text-to-video.json", {**leaderboard_task((VIDEO_ROW, two_ways)), "task": "text-to-video"}
    )
    rings, both = sides(path)
    assert rings.setup.task == "text-to-video 480x832x81 50 steps"
    assert (rings.setup.parallel, both.setup.parallel, rings.setup.unit) == ("R4", "U2 R2", "video")
    assert rings.points[0].value("units_per_second") == pytest.approx(0.02558, rel=1e-3)


@pytest.mark.parametrize("older", [False, True])
def test_images_that_were_cut_otherwise_are_other_sides(tmp_path: Path, older: bool) -> None:
    """Two GPUs by Ulysses and two by a ring are two configurations, wherever a file tells it."""
    for degrees in ({"ulysses_degree": 2, "ring_degree": 1}, {"ulysses_degree": 1, "ring_degree": 2}):
        path = mlenergy_images(tmp_path / str(degrees["ring_degree"]), gpus=2)
        document = json.loads(path.read_text())
        saved(path, {**document, **({"configurations": degrees} if older else degrees)})
    assert [side.setup.parallel for side in sides(tmp_path)] == ["U2", "R2"]


def test_files_of_version_2_and_1_as_they_were_published(tmp_path: Path) -> None:
    folder = tmp_path / "data/llm_text_generation/chat/A100-SXM4-40GB/mistralai/Mixtral-8x7B-Instruct-v0.1"
    folder.mkdir(parents=True)
    (mixtral,) = sides(saved(folder / "bs128+tp4+pp1.json", MIXTRAL_2))
    assert (mixtral.setup.task, mixtral.setup.gpu_count, mixtral.setup.parallel) == ("chat", 4, "TP4")
    assert mixtral.points[0].value("joules_per_unit") == pytest.approx(0.50681, rel=1e-4)
    (video,) = sides(saved(tmp_path / "bs1+steps25+frames16.json", VIDEO_2))
    assert (video.setup.task, video.setup.unit) == ("16 frames 25 steps", "video")
    (tmp_path / "A100_chat_benchmark.csv").write_text(TABLE_1)
    skipped = Skipped()
    rows = sides(tmp_path / "A100_chat_benchmark.csv", skipped)
    assert [row.setup.model for row in rows] == ["lmsys/vicuna-13B", "lmsys/vicuna-7B"]
    assert rows[1].points[0].value("joules_per_unit") == pytest.approx(5.3759, rel=1e-4)
    assert rows[1].points[0].value("batch") == 1
    assert not skipped.counts


@pytest.mark.parametrize("kept", [16, 32, 64])
def test_a_published_mixture_of_experts_is_met_at_a_batch_that_is_kept_back(
    tmp_path: Path, kept: int
) -> None:
    """Measured on an H100: the straight law of dense models would be 8 % below; what is told holds."""
    rows = tuple(row for row in CODER_ROWS if row["max_num_seqs"] != kept)
    truth = next(row for row in CODER_ROWS if row["max_num_seqs"] == kept)
    (side,) = sides(saved(tmp_path / "sourcegraph-fim.json", leaderboard_task(rows)))
    found = at(side, "batch", truth["avg_batch_size"])
    assert isinstance(found, At)
    error = found.figures["joules_per_unit"].value / truth["energy_per_token_joules"] - 1
    assert abs(error) < 0.035
    assert abs(error) < found.form["joules_per_unit"]
