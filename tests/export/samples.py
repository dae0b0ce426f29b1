"""A rich snapshot and finished requests, with figures that add up exactly in binary."""

from __future__ import annotations

from dataclasses import replace

from joulescope.diagnosis_model import (
    CAUSES,
    STEP_BOUNDS,
    STEP_PARTS,
    STEP_READS,
    DiagnosisTotals,
    EngineDiagnosis,
    LatentTotals,
)
from joulescope.host_model import HostDomain, HostDomainTotals, HostTotals
from joulescope.label_model import LabelTotals
from joulescope.ledger_model import LedgerTotals, MinuteTotals
from joulescope.link_model import LinkState, LinkTotals
from joulescope.model import (
    BaselineTotals,
    CallTime,
    CostFacts,
    EngineInfo,
    EngineTotals,
    FinishedRequest,
    GpuCapabilities,
    GpuInfo,
    GpuReading,
    GpuStatus,
    GpuTotals,
    HistogramState,
    MeterComparison,
    OpenRequest,
    PageTotals,
    SamplerStatistics,
    SidecarTotals,
    Snapshot,
    TaskTotals,
)
from joulescope.serving_model import ServingTotals
from joulescope.surroundings_model import Multipliers, ServerTotals

GPU_A = "GPU-aaaaaaaa-0000-0000-0000-000000000001"
GPU_B = "GPU-bbbbbbbb-0000-0000-0000-000000000002"
TRACE_ID = "4bf92f3577b34da6a3ce929d0e0e4736"
GPU_C = "GPU-cccccccc-0000-0000-0000-000000000003"
INSTANCE_C = "MIG-cccccccc-0000-0000-0000-000000000004"
PARENT_SPAN_ID = "00f067aa0ba902b7"
SECOND = 1_000_000_000

NO_HISTOGRAM = HistogramState(bounds=(1.0, 10.0), counts=(0, 0, 0), total=0.0)


def gpu_a() -> GpuTotals:
    """A GPU in full work."""
    return GpuTotals(
        info=GpuInfo(
            gpu=GPU_A,
            name="NVIDIA H100 80GB HBM3",
            index=0,
            power_limit_watts=700.0,
            memory_total_bytes=85_899_345_920,
            driver_version="570.86.15",
            sensor="nvml",
            capabilities=GpuCapabilities(
                energy_counter=True,
                power=True,
                power_average=True,
                power_instant=True,
                module_power=True,
                memory_power=True,
                gpm=True,
                architecture="hopper",
                mig=False,
                virtualization="none",
                confidential=False,
                persistence=True,
            ),
        ),
        measured_joules=1000.5,
        attributed_joules=800.25,
        idle_joules=100.0,
        overhead_joules={"startup": 60.25, "preemption": 10.0},
        unattributed_joules={"no_engine": 25.0, "records_lost": 5.0},
        residual_joules=0.0,
        intervals=420,
        counter_resets=1,
        rejected_intervals=2,
        read_failures=3,
        reading=GpuReading(
            gpu=GPU_A,
            time_ns=99 * SECOND,
            energy_joules=1000.5,
            power_watts=512.5,
            memory_used_bytes=70_000_000_000,
            sm_utilization_ratio=0.875,
            status=GpuStatus(
                gpu=GPU_A,
                time_ns=99 * SECOND,
                power_limit_watts=700.0,
                power_instant_watts=520.25,
                module_power_watts=620.5,
                memory_power_watts=40.5,
                sm_clock_hertz=1.98e9,
                memory_clock_hertz=2.619e9,
                temperature_celsius=61.0,
                throttle_reasons=frozenset({"power_cap", "thermal"}),
                graphics_active_ratio=0.9375,
                sm_active_ratio=0.75,
                sm_occupancy_ratio=0.5,
                tensor_active_ratio=0.25,
                dram_active_ratio=0.5,
                pcie_sent_bytes_per_second=1048576.0,
                pcie_received_bytes_per_second=2097152.0,
                nvlink_sent_bytes_per_second=0.0,
                nvlink_received_bytes_per_second=0.0,
            ),
        ),
        accounted_until_ns=98 * SECOND,
        counter_tick_seconds=0.1,
        comparison=MeterComparison(counter_joules=975.0, power_joules=960.0, ratio=1.015625),
    )


def gpu_b() -> GpuTotals:
    """A GPU whose sensor stopped answering before anything was accounted."""
    return GpuTotals(
        info=GpuInfo(gpu=GPU_B, energy_source="power", sensor="nvml"),
        measured_joules=0.0,
        attributed_joules=0.0,
        idle_joules=0.0,
        overhead_joules={},
        unattributed_joules={},
        residual_joules=0.0,
        read_failures=17,
        up=False,
    )


def gpu_c() -> GpuTotals:
    """A GPU whose joules are split among MIG instances, before anything was accounted."""
    return GpuTotals(
        info=GpuInfo(gpu=GPU_C, sensor="nvml", instances=(INSTANCE_C,), energy_split="gpm"),
        measured_joules=0.0,
        attributed_joules=0.0,
        idle_joules=0.0,
        overhead_joules={},
        unattributed_joules={},
        residual_joules=0.0,
        up=False,
        whole_joules=0.0,
    )


def instance_c() -> GpuTotals:
    """The one instance of that GPU."""
    return GpuTotals(
        info=GpuInfo(
            INSTANCE_C, energy_source="mig_gpm", sensor="nvml", parent=GPU_C, slices=3, slices_total=7
        ),
        measured_joules=0.0,
        attributed_joules=0.0,
        idle_joules=0.0,
        overhead_joules={},
        unattributed_joules={},
        residual_joules=0.0,
        up=False,
    )


def engine_a() -> EngineTotals:
    """An engine that has served requests."""
    exemplar = ({"trace_id": TRACE_ID}, 4.5, 1_700_000_000.25)
    return EngineTotals(
        info=EngineInfo(
            engine="llama-0",
            model="meta-llama/Llama-3.1-8B",
            served_model="llama",
            dtype="bfloat16",
            vllm_version="0.32.0",
            hook_version="0.1.0",
            capabilities=frozenset({"steps", "cost"}),
            gpus=(GPU_A,),
            cost=CostFacts(source="vllm", weight_bytes=16e9),
        ),
        up=True,
        attributed_joules={(GPU_A, "prefill"): 300.0, (GPU_A, "decode"): 500.25},
        marginal_joules=500.0,
        wasted_joules={"abort": 12.5},
        tokens={
            "prefill": 5000,
            "decode": 2000,
            "recomputed": 64,
            "rejected": 8,
            "cached_local": 1024,
            "generated": 2000,
        },
        requests_started=42,
        requests_finished={"stop": 30, "length": 9, "abort": 1},
        requests_open=2,
        steps=900,
        preemptions=1,
        running=2,
        waiting=0,
        kv_usage_ratio=0.25,
        records_dropped=7,
        gaps=1,
        joules_per_request=HistogramState(
            bounds=(1.0, 10.0), counts=(3, 30, 7), total=800.25, exemplars=(None, exemplar, None)
        ),
        joules_per_output_token=HistogramState(bounds=(0.1, 1.0), counts=(10, 30, 0), total=16.0),
        baseline=BaselineTotals(
            learned_ratio=1.0,
            name="llama 0.31.0 2026-01-30T06:00Z",
            source="pinned",
            version="0.31.0",
            created_wall_seconds=1769752800.0,
            actual_joules=780.5,
            expected_joules=650.25,
            error_ratio=0.0125,
        ),
        avoided_joules={"local_cache": 40.5},
        adapters={
            "base": LabelTotals({"prefill": 200.0, "decode": 300.25}, 1200, 25),
            'sql"\n': LabelTotals({"prefill": 60.0, "decode": 150.0}, 600, 10),
            "other": LabelTotals({"prefill": 40.0, "decode": 50.0}, 200, 5),
        },
        tenants={
            "none": LabelTotals({"prefill": 50.0, "decode": 0.25}, 100, 1),
            "acme": LabelTotals({"prefill": 250.0, "decode": 500.0}, 1900, 39),
        },
        tasks={
            "none": TaskTotals({"prefill": 0.0, "decode": 0.0}, 0, 0, _of_task((0, 0, 0), 0.0)),
            "rag": TaskTotals({"prefill": 280.0, "decode": 120.0}, 500, 8, _of_task((0, 5, 3), 400.0)),
            "chat": TaskTotals({"prefill": 15.0, "decode": 370.25}, 1480, 32, _of_task((3, 25, 4), 385.25)),
        },
        undecided_joules={"prefill": 5.0, "decode": 10.0},
        refused_labels={"lora": 7, "tenant": 0, "task": 1},
        batch_tokens=66,
        next_token_joules=0.0625,
    )


def _of_task(counts: tuple[int, ...], joules: float) -> HistogramState:
    return HistogramState(bounds=(1.0, 10.0), counts=counts, total=joules)


def engine_b() -> EngineTotals:
    """An engine that left, with a name meant to break an exposition."""
    return EngineTotals(
        info=EngineInfo(engine="odd-1", model='a"b\\c\nd{}=,#\u00e9\u6f22\ud800'),
        up=False,
        attributed_joules={},
        marginal_joules=0.0,
        wasted_joules={},
        tokens={},
        requests_started=0,
        requests_finished={},
        requests_open=0,
        steps=0,
        preemptions=0,
        running=5,
        waiting=5,
        kv_usage_ratio=0.5,
        records_dropped=0,
        gaps=0,
        joules_per_request=NO_HISTOGRAM,
        joules_per_output_token=NO_HISTOGRAM,
    )


def host() -> HostTotals:
    """A package that is read and DRAM that is not any more; an engine in sight and one out of it."""
    package = HostDomainTotals(
        info=HostDomain("package-0", "intel-rapl:0", 262144.0, "powercap"),
        measured_joules=500.5,
        attributed_joules={"llama-0": 120.25},
        other_joules=30.25,
        idle_joules=300.0,
        unattributed_joules={"idle_unknown": 40.0, "processes_unseen": 10.0},
        residual_joules=0.0,
        idle_power_watts=60.5,
        intervals=99,
        wraps=1,
        resets=2,
        rejected_intervals=3,
        read_failures=4,
    )
    dram = HostDomainTotals(
        info=HostDomain("dram-0", "intel-rapl:0:0"),
        measured_joules=0.0,
        attributed_joules={"llama-0": 0.0},
        other_joules=0.0,
        idle_joules=0.0,
        unattributed_joules={},
        residual_joules=0.0,
        up=False,
    )
    return HostTotals((package, dram), 80.5, {"llama-0": 40.25}, {"llama-0": True, "odd-1": False})


def latents() -> LatentTotals:
    """Of the engine that has served requests: bound by memory, with room in its KV cache."""
    return LatentTotals(
        engine="llama-0",
        bound_seconds=dict(zip(STEP_BOUNDS, (60.0, 15.0, 5.0, 20.0), strict=True)),
        read_bytes=dict(zip(STEP_READS, (1.5e15, 0.5e15), strict=True)),
        flops=8e16,
        modelled_joules=dict(zip(STEP_PARTS, (400.0, 200.0, 100.0, 80.0, 20.0), strict=True)),
        kv_usage_seconds=30.0,
        kv_known_seconds=120.0,
        kv_full_seconds=6.0,
    )


def diagnosis() -> EngineDiagnosis:
    """A token became dearer by a half: fewer requests, and a longer mix."""
    parts = {**dict.fromkeys(CAUSES, 0.0), "load": 0.1875, "mix": 0.0625, "unexplained": 0.0}
    return EngineDiagnosis(
        engine="llama-0",
        joules_per_token={"before": 0.5, "now": 0.75},
        start_wall_seconds={"before": 1_699_995_900.0, "now": 1_699_999_500.0},
        end_wall_seconds={"before": 1_699_996_500.0, "now": 1_700_000_100.0},
        parts=parts,
        errors={**dict.fromkeys(CAUSES, 0.0), "load": 0.015625, "mix": 0.03125, "unexplained": 0.0078125},
        first_cause="load",
    )


def rich_snapshot() -> Snapshot:
    """Two GPUs and two engines, one of each gone."""
    return Snapshot(
        time_ns=100 * SECOND,
        wall_seconds=1_700_000_100.0,
        gpus=(gpu_a(), gpu_b(), gpu_c(), instance_c()),
        engines=(engine_a(), engine_b()),
        sidecar=SidecarTotals(
            start_wall_seconds=1_700_000_000.0,
            sessions=1,
            records={"hello": 2, "step": 900, "sample": 5},
            rejected_records={"unknown_type": 4},
            attribution_lag_seconds=0.125,
            sampler=SamplerStatistics(
                reads=2000,
                missed_deadlines=1,
                late_seconds=0.25,
                read_seconds=0.5,
                opened=1,
                down=0,
                call_times={"energy": CallTime(2000, 0.125), "gpm": CallTime(100, 0.0625)},
            ),
            pages=PageTotals(made=3, seconds=0.25),
            exported={("otlp", "exported"): 40, ("otlp", "dropped"): 0, ("jsonl", "written"): 40},
        ),
        host=host(),
        multipliers=Multipliers(
            pue_ratio=1.25,
            carbon_grams_per_joule=0.0001220703125,
            carbon_age_seconds=42.5,
            carbon_failures={"timeout": 2},
            price_per_joule=6.103515625e-08,
            currency="EUR",
        ),
        links=LinkTotals(
            listening=True,
            links=(
                LinkState("worker-1", True, -1000.5, 0.0009765625, 0.001953125, 0.00001, 1),
                LinkState("worker-2", False),
            ),
            refused={"certificate": 2},
        ),
        ledger=LedgerTotals(
            is_kept=True,
            rows={"requests": 40, "minutes": 5},
            recovered_rows={"requests": 3, "minutes": 1},
            lost_rows={"requests": {"no_room": 2}},
            damaged_bytes=17,
            failures={"flush": 4, "upload": 1},
            evicted_bytes={"age": 4096},
            open_bytes=20_480,
            parquet_bytes=1_048_576,
            uploaded_bytes=524_288,
            flushed_wall_seconds=1_722_470_399.5,
        ),
        latents=(latents(),),
        diagnosis=DiagnosisTotals(
            is_on=True, engines=(diagnosis(),), outcomes={"made": 3, "too_little": 1}, seconds=4.5
        ),
        minutes=MinuteTotals(late=6, crowded_out=11),
        serving=ServingTotals(
            responses={"200": 5000, "401": 3, "503": 1},
            refused_connections={"handshake": 7, "slow": 2},
            config_usable=True,
            config_failures=1,
            certificate_not_after_seconds=1_725_000_000.0,
        ),
        servers=(
            ServerTotals(
                server="http://127.0.0.1:30000/metrics",
                kind="sglang",
                up=True,
                generated_tokens=4096.0,
                prompt_tokens=9000.0,
                running=12,
                waiting=3,
                kv_usage_ratio=0.625,
                resets=1,
                failures={"timeout": 2},
            ),
            ServerTotals(server="http://127.0.0.1:8080/metrics", failures={"unreachable": 40}),
        ),
    )


def finished(number: int = 0, **changes: object) -> FinishedRequest:
    """The account of one request; ``changes`` override its fields."""
    request = FinishedRequest(
        request_id=f"cmpl-{number}-0-1a2b3c4d",
        external_id=f"cmpl-{number}-0",
        engine="llama-0",
        model="llama",
        lora="",
        kind="generate",
        start_ns=90 * SECOND,
        end_ns=92 * SECOND + 5,
        first_token_ns=90 * SECOND + 250_000_000,
        finish_reason="stop",
        prompt_tokens=100,
        cached_tokens=64,
        output_tokens=20,
        scheduled_tokens=56,
        recomputed_tokens=0,
        drafted_tokens=0,
        accepted_tokens=0,
        preemptions=0,
        steps=21,
        attributed_joules=4.5,
        marginal_joules=3.25,
        prefill_joules=1.5,
        decode_joules=3.0,
        wasted_joules=0.0,
        complete=True,
        attributed_low_joules=4.25,
        attributed_high_joules=4.75,
        marginal_low_joules=3.0,
        marginal_high_joules=3.5,
        avoided_joules=0.5,
    )
    return replace(request, **changes)  # type: ignore[arg-type]


def running(**changes: object) -> OpenRequest:
    """An open request that decodes."""
    request = OpenRequest(
        request_id="chat-2-cafebabe",
        external_id="chat-2",
        engine="b0",
        model="org/b",
        lora="tone",
        kind="generate",
        start_ns=90 * SECOND,
        first_token_ns=91 * SECOND,
        phase="decode",
        prompt_tokens=128,
        cached_tokens=64,
        output_tokens=40,
        preemptions=1,
        attributed_joules=12.5,
        prefill_joules=2.5,
        marginal_joules=8.0,
    )
    return replace(request, **changes)  # type: ignore[arg-type]
