"""*Fleet*: where the joules go, over all sidecars, clusters, models and GPUs."""

from __future__ import annotations

from grafana.empty import NO_ENGINE, NO_GPU
from grafana.frame import Board, Row, engine_link
from grafana.look import (
    BAD,
    DECODE,
    FAINT,
    GOOD,
    IDLE,
    INDEX_STEPS,
    OVERHEAD,
    PART_COLOURS,
    TOKENS_PER_SECOND,
    UNATTRIBUTED,
    WARN,
    Ask,
    Column,
    Placed,
    bars,
    column_steps,
    figure,
    grid,
    lines,
)
from grafana.promql import (
    MEASURED,
    PARTS,
    engines,
    gpus,
    grown,
    index,
    joules_per_token,
    numbered,
    of_models,
    rate,
    ratio,
    sidecars,
    tokens,
    total,
    watts,
)

BY = ("cluster", "instance", "engine", "served_model")


def part(name: str) -> str:
    """Watts of one part of the measured joules of the chosen GPUs."""
    metric, more = PARTS[name]
    return total(rate(gpus(metric, more)))


def share(metric: str) -> str:
    """Part of the measured joules now."""
    return ratio(total(rate(gpus(metric))), total(rate(MEASURED)))


def _glance() -> list[Placed]:
    return [*_glance_left(), *_glance_right()]


def _glance_left() -> list[Placed]:
    return [
        figure(
            "GPU power",
            "What all chosen GPUs draw now, measured. Everything below divides it. Worry if it falls to "
            "nothing while servers run: a sensor is lost.",
            "watt",
            total(rate(MEASURED)),
            none=NO_GPU,
        ),
        figure(
            "Serves requests",
            "Share of the measured joules that went into requests. Under a half, most of the bill is not for "
            "users: fewer GPUs, or more load on each. "
            "Worry then.",
            "percentunit",
            share("joulescope_attributed_energy_joules_total"),
            none=NO_GPU,
            # A busy server is above 0.9; under a half more is paid for waiting than for work.
            thresholds=[(None, BAD), (0.5, WARN), (0.8, GOOD)],
            decimals=1,
        ),
        figure(
            "Idle",
            "Share of the measured joules while no request ran on the GPU. Worry if it stays above a third: "
            "an idle H100 draws about 100 W for nothing.",
            "percentunit",
            share("joulescope_idle_energy_joules_total"),
            none=NO_GPU,
            thresholds=[(None, GOOD), (0.2, WARN), (0.4, BAD)],
            decimals=1,
        ),
    ]


def _glance_right() -> list[Placed]:
    return [
        figure(
            "Energy per output token",
            "Joules of the chosen models' requests over the tokens they put out. It falls with larger "
            "batches and shorter prompts; whether the same work has become dearer is seen on the dashboard "
            "Engine. "
            "Worry if it climbs while the load does not fall.",
            "joule",
            joules_per_token(tokens_only=True),
            none="no tokens now",
        ),
        figure(
            "Output tokens",
            "Tokens that came out of the chosen models, a second. Beside the power it says whether a change "
            "of joules per token comes from the load. "
            "Worry if it falls to nothing.",
            TOKENS_PER_SECOND,
            tokens(tokens_only=True),
            none=NO_ENGINE,
        ),
        figure(
            "Cause unknown",
            "Share of the measured joules of which nobody knows what for: no engine reports, or its records "
            "were lost. Worry above 1 %: the dashboard Efficiency and waste names the reason.",
            "percentunit",
            share("joulescope_unattributed_energy_joules_total"),
            none=NO_GPU,
            thresholds=[(None, GOOD), (0.01, WARN), (0.05, BAD)],
            decimals=1,
        ),
    ]


def _balance() -> list[Placed]:
    stack = [Ask(part(name), name, PART_COLOURS[name]) for name in PARTS]
    outline = {
        "custom.stacking": {"mode": "none", "group": "B"},
        "custom.fillOpacity": 0,
        "custom.lineWidth": 1,
        "custom.lineStyle": {"fill": "dash", "dash": [4, 4]},
    }
    measured = Ask(total(rate(MEASURED)), "measured", FAINT, style=outline)
    return [
        lines(
            "Where the watts go",
            "The measured power of the chosen GPUs, divided without rest: decode and prefill of requests, "
            "idle, overhead (start-up, empty steps, recompute), and what nobody explains. The stack ends at "
            "the dashed line, what was measured; worry if it does not, or if grey, amber or red grow.",
            "watt",
            [*stack, measured],
            none=NO_GPU,
            stacked=True,
            size=(16, 10),
        ),
        bars(
            "Where the joules went",
            "The same parts, summed over the time shown. They add up to the measured energy. "
            "Worry if idle, overhead and unattributed together are more than a fifth.",
            "joule",
            [Ask(total(grown(gpus(*PARTS[name]))), name, PART_COLOURS[name]) for name in PARTS],
            none=NO_GPU,
            size=(8, 10),
        ),
    ]


def _models() -> list[Placed]:
    model = "{{served_model}}"
    return [
        lines(
            "Power by model",
            "Watts of the requests of each model, of all its engines. It tells whom to ask first where "
            "power is short. Idle and overhead belong to GPUs and are not in it. "
            "Worry if a model grows that nobody asked to grow.",
            "watt",
            [Ask(watts("served_model"), model)],
            none=NO_ENGINE,
            stacked=True,
        ),
        lines(
            "Energy per output token by model",
            "Joules of requests over output tokens, by model. A step up without a change of load is worth a "
            "look at the dashboard Engine; a slow climb as the load falls is what smaller batches cost. "
            "Worry about the step.",
            "joule",
            [Ask(joules_per_token("served_model"), model)],
            none="no tokens now",
        ),
        lines(
            "Output tokens by model",
            "Tokens that came out, a second, by model: the load under which the joules beside it were spent. "
            "Worry if a model falls to nothing.",
            TOKENS_PER_SECOND,
            [Ask(tokens("served_model"), model)],
            none=NO_ENGINE,
        ),
    ]


def _table() -> Placed:
    return grid(
        "Engines",
        "Each engine as it is now, the one that draws most first; its name leads to its own dashboard. "
        "Worry about an index above 1.1: the same work costs a tenth more than by its baseline. An empty "
        "index means that there is no baseline yet.",
        "short",
        {"engine": "Engine", "served_model": "Model", "instance": "Sidecar", "cluster": "Cluster"},
        _columns(),
        sort="Power",
        none=NO_ENGINE,
        key_style={
            "Engine": {"links": [engine_link()], "custom.width": 240},
            "Model": {"custom.width": 280},
            "Sidecar": {"custom.width": 140},
            "Cluster": {"custom.width": 100},
        },
        size=(24, 8),
    )


def _columns() -> list[Column]:
    kv = of_models(engines("joulescope_kv_cache_usage_ratio"))
    up = {
        "type": "value",
        "options": {"1": {"text": "up", "color": GOOD}, "0": {"text": "left", "color": IDLE}},
    }
    colour = {"custom.cellOptions": {"type": "color-text"}}
    return [
        Column("Power", watts(*BY), {"unit": "watt", "custom.width": 95}),
        Column("J/token", joules_per_token(*BY), {"unit": "joule", "custom.width": 95}),
        Column("Tokens/s", tokens(*BY), {"unit": "short", "custom.width": 95}),
        Column(
            "Running",
            total(of_models(engines("joulescope_requests_running")), *BY),
            {"unit": "short", "decimals": 0, "custom.width": 85},
        ),
        Column(
            "Waiting",
            total(of_models(engines("joulescope_requests_waiting")), *BY),
            {"unit": "short", "decimals": 0, "custom.width": 85},
        ),
        Column(
            "KV cache",
            f"max by ({', '.join(BY)}) ({kv})",
            {
                "unit": "percentunit",
                "decimals": 0,
                "min": 0,
                "max": 1,
                "custom.width": 130,
                "custom.cellOptions": {"type": "gauge", "mode": "basic", "valueDisplayMode": "text"},
                # Above 0.9 vLLM is near to pushing requests out and computing them again.
                **column_steps([(None, DECODE), (0.9, WARN)]),
            },
        ),
        Column(
            "Index",
            index(*BY),
            {
                "unit": "short",
                "decimals": 2,
                "custom.width": 75,
                **column_steps(INDEX_STEPS),
                **colour,
            },
        ),
        Column(
            "State",
            total(of_models(engines("joulescope_engine_up")), *BY),
            {"mappings": [up], "custom.width": 75, **colour},
        ),
    ]


def _places() -> list[Placed]:
    cluster = (
        f'label_replace({total(rate(MEASURED), "cluster")}, "cluster", "no cluster label", "cluster", "")'
    )
    idle = rate(gpus("joulescope_idle_energy_joules_total"))
    host = "joulescope_host_{}_energy_joules_total"
    return [
        lines(
            "Power by cluster",
            "What the GPUs of each cluster draw, measured. The name is a label that your scrape "
            "configuration gives; without one all is one cluster. "
            "Worry if one nears what its feed can carry.",
            "watt",
            [Ask(cluster, "{{cluster}}")],
            none=NO_GPU,
            stacked=True,
        ),
        bars(
            "GPUs that idle most",
            "The ten GPUs with the most watts drawn while no request ran on them. Worry if the same ones "
            "stay on top: they can be given to others, or switched off.",
            "watt",
            [Ask(f"topk(10, {numbered(idle)} > 0)", "{{instance}} GPU {{index}}")],
            none="no GPU idles now",
            long_names=True,
            colour=IDLE,
        ),
        lines(
            "CPUs and memory beside the GPUs",
            "What CPU packages and DRAM draw, measured apart: for engines, for other processes, idle, and of "
            "unknown cause. It is in no other panel here. Worry if the others' part grows on a serving node.",
            "watt",
            [
                Ask(total(rate(sidecars(host.format("attributed")))), "engines", DECODE),
                Ask(total(rate(sidecars(host.format("other")))), "others", OVERHEAD),
                Ask(total(rate(sidecars(host.format("idle")))), "idle", IDLE),
                Ask(total(rate(sidecars(host.format("unattributed")))), "unattributed", UNATTRIBUTED),
            ],
            none="no host energy is read here",
            stacked=True,
        ),
    ]


FLEET = Board(
    name="fleet",
    title="Fleet",
    question="Where do the joules go: by part, model, engine, cluster and GPU?",
    variables=("cluster", "instance", "model", "engine", "gpu"),
    rows=[
        Row("At a glance", _glance()),
        Row("Where it goes", _balance()),
        Row("By model", _models()),
        Row("By engine", [_table()]),
        Row("By place", _places()),
    ],
)
