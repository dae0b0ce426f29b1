"""How near a comparison comes to published measurements at batches that are kept back.

Each batch of a published sweep but the first and the last is kept back in turn, and its J/token is made of
the others: of all of them, and of those alone that lie a factor of four apart. Rows of a leaderboard are
single runs, without intervals. Data: ML.ENERGY leaderboard v3 (github.com/ml-energy/leaderboard,
public/data/tasks, February 2026), means of each run, rounded. It is the one table of comparisons that rests
on hardware.

    python benchmarks/compare_published.py
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.report import machine, save
from joulescope.insight.compare.match import at
from joulescope.insight.compare.values import At, Figure, Mix, Origin, Point, Quality, Setup, Side

Row = tuple[float, float, float]
"""Mean batch, J/token, tokens a second."""

ROWS: Mapping[str, tuple[Row, ...]] = MappingProxyType(
    {
        "Llama 3.1 8B, 1×H100, chat": (
            (7.978, 0.454798, 1069.57),
            (15.952, 0.262740, 1953.57),
            (31.912, 0.165055, 3391.07),
            (63.918, 0.118580, 5147.15),
            (95.702, 0.102866, 6260.15),
            (127.62, 0.095110, 7036.53),
            (191.66, 0.083695, 8223.35),
            (255.19, 0.076641, 9009.61),
            (383.01, 0.074234, 9248.01),
            (510.87, 0.070194, 9805.59),
        ),
        "Qwen 3 14B, 1×H100, chat": (
            (7.987, 0.706093, 627.41),
            (15.974, 0.398274, 1168.17),
            (31.923, 0.244100, 2023.23),
            (63.845, 0.167174, 3140.32),
            (95.882, 0.143525, 3774.78),
            (127.71, 0.127858, 4474.35),
            (191.66, 0.115428, 5309.06),
            (253.41, 0.111917, 5760.27),
        ),
        "Qwen 3 Coder 30B A3B (MoE), 1×H100, code": (
            (7.916, 0.847396, 587.47),
            (15.906, 0.648838, 846.62),
            (31.816, 0.482042, 1226.67),
            (63.711, 0.342354, 1836.96),
            (88.891, 0.303581, 2154.38),
        ),
        "Qwen 3 Coder 30B A3B (MoE), 2×H100 EP2, code": (
            (7.966, 1.037632, 773.63),
            (15.941, 0.772485, 1179.49),
            (31.864, 0.558024, 1803.52),
            (63.735, 0.409338, 2665.61),
            (95.549, 0.359988, 3111.73),
            (127.60, 0.324725, 3582.09),
            (191.17, 0.297006, 4099.11),
            (254.77, 0.224969, 4826.25),
            (381.61, 0.218976, 4854.76),
            (507.62, 0.210766, 5529.62),
            (749.76, 0.200352, 5930.53),
        ),
        "Qwen 3 235B A22B FP8 (MoE), 4×H100 EP4, chat": (
            (7.991, 9.471371, 223.84),
            (15.981, 5.253012, 420.67),
            (31.969, 3.009397, 731.57),
            (63.913, 1.741349, 1262.29),
            (95.892, 1.268055, 1752.48),
            (127.89, 1.100829, 2294.88),
            (191.75, 0.840242, 3015.55),
        ),
    }
)
SPARSE = (8, 32, 128, 512)
_NEAR = 0.1


def side_of(rows: tuple[Row, ...]) -> Side:
    points = tuple(
        Point(
            f"batch {batch:.0f}",
            {
                "batch": Figure(batch),
                "joules_per_unit": Figure(joules),
                "units_per_second": Figure(rate),
                "itl": Figure(batch / rate),
            },
            parts=1,
            requests=1,
            gpu_hours=None,
            seconds=None,
            units=None,
        )
        for batch, joules, rate in rows
    )
    return Side("published", Setup(), Origin("ml.energy leaderboard v3"), points, points[0], Mix(), Quality())


def cases() -> Iterator[dict[str, Any]]:
    """Every batch kept back, of neighbours and of a sparse sweep, by batch and by time."""
    for name, rows in ROWS.items():
        for place in range(1, len(rows) - 1):
            batch, joules, rate = rows[place]
            others = (*rows[:place], *rows[place + 1 :])
            far = tuple(row for row in others if any(abs(row[0] / each - 1) < _NEAR for each in SPARSE))
            for spacing, seen in (("all others", others), ("a factor of four", far)):
                for figure, value in (("batch", batch), ("itl", batch / rate)):
                    found = at(side_of(seen), figure, value) if len(seen) > 1 else None
                    if isinstance(found, At) and len(found.between) > 1:
                        yield {
                            "sweep": name,
                            "batch": batch,
                            "seen": spacing,
                            "matched_on": figure,
                            "error": found.figures["joules_per_unit"].value / joules - 1,
                            "told": found.form["joules_per_unit"],
                        }


def text_of(report: dict[str, Any]) -> str:
    lines = [
        "# Comparison against published measurements",
        "",
        f"{report['machine']['date']}. J/token of published runs of ML.ENERGY at batches that were kept "
        "back, made of the other runs of the sweep. Errors are those of interpolation together with what one "
        "published run is off by itself. Measured on hardware, but not by joulescope. The form between "
        "points and the 3 % for what runs are off any curve were chosen while these sweeps were looked at: "
        "for others expect more outside.",
        "",
        "| sweep | seen | matched on | cases | median error | largest | within what is told |",
        "|---|---|---|---:|---:|---:|---:|",
    ]
    groups: dict[tuple[str, str, str], list[dict[str, Any]]] = {}
    for case in report["cases"]:
        groups.setdefault((case["sweep"], case["seen"], case["matched_on"]), []).append(case)
    for key, found in groups.items():
        lines.append("| " + " | ".join((*key, *_figures(found))) + " |")
    for seen in ("all others", "a factor of four"):
        found = [case for case in report["cases"] if case["seen"] == seen]
        lines.append("| " + " | ".join(("**together**", seen, "both", *_figures(found))) + " |")
    return "\n".join((*lines, ""))


def _figures(found: list[dict[str, Any]]) -> tuple[str, ...]:
    errors = sorted(abs(case["error"]) for case in found)
    held = sum(abs(case["error"]) <= case["told"] for case in found)
    return (
        str(len(found)),
        f"{100 * errors[len(errors) // 2]:.1f} %",
        f"{100 * errors[-1]:.1f} %",
        f"{held} of {len(found)}",
    )


def main() -> None:
    report = {"machine": machine("joulescope-inference"), "cases": list(cases())}
    save("compare_published", report, text_of(report))


if __name__ == "__main__":
    main()
