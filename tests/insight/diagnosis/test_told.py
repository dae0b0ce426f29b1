"""The three forms of a diagnosis: the waterfall, the JSON object and the picture."""

from __future__ import annotations

import io
import json
from functools import lru_cache
from itertools import pairwise
from pathlib import Path

import pytest
from rich.console import Console

from benchmarks.planted import Plant
from joulescope.cli.diagnose_text import rendered
from joulescope.errors import PlanError
from joulescope.insight.diagnosis.diagnosis import Diagnosis, diagnose
from joulescope.insight.diagnosis.drawing import draw
from joulescope.insight.diagnosis.told import SCHEMA, told
from joulescope.insight.diagnosis.waterfall import bars_of, span_of
from tests.insight.diagnosis.windows import minutes


@lru_cache(maxsize=1)
def _found() -> Diagnosis:
    return diagnose(minutes(), minutes(Plant("batch", 8)))


def test_the_waterfall_leads_from_one_window_to_the_other() -> None:
    """Each bar begins where the one before ends; the last ends at the level after."""
    bars = bars_of(_found())
    levels, parts = [bars[0], bars[-1]], bars[1:-1]
    assert [bar.kind for bar in levels] == ["level", "level"]
    for left, right in pairwise([bars[0], *parts]):
        assert right.begin == left.end
    assert parts[-1].end == pytest.approx(levels[1].end)
    low, high = span_of(bars)
    assert low < min(bar.end for bar in bars) <= max(bar.end for bar in bars) == high


def test_json_holds_the_same_figures() -> None:
    """Parts sum to the change; each cause has its figures of both windows beside it."""
    found = json.loads(json.dumps(told(_found()), allow_nan=False))
    assert found["schema"] == SCHEMA
    assert found["first_cause"] == "batch_limit"
    change = found["after"]["joules_per_token"] - found["before"]["joules_per_token"]
    assert sum(part["joules_per_token"] for part in found["parts"]) == pytest.approx(change)
    first = found["parts"][0]
    assert first["latents"]["batch"]["before"] > 10.0 > first["latents"]["batch"]["after"]
    assert first["share"] == pytest.approx(first["joules_per_token"] / change)


def test_people_read_sentences_with_a_lever() -> None:
    """Plain text when there is no terminal: the waterfall, what is seen, and what to do."""
    out = io.StringIO()
    Console(file=out, width=110).print(rendered(_found()))
    text = out.getvalue()
    assert "batch limit" in text
    assert "raise max-num-seqs to 256 again" in " ".join(text.split())
    assert "█" in text
    assert "\x1b" not in text


def test_the_picture_names_the_causes(tmp_path: Path) -> None:
    """An SVG whose text can be searched is not asked for; that it is one, and not empty, is."""
    pytest.importorskip("matplotlib")
    path = tmp_path / "why.svg"
    draw(_found(), path)
    assert path.read_text().lstrip().startswith("<?xml")
    assert path.stat().st_size > 5_000
    with pytest.raises(PlanError, match="cannot be written"):
        draw(_found(), tmp_path / "missing" / "why.svg")
