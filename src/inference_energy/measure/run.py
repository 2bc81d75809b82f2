"""One run, from a fresh process to its record: rest, idle, load, warm up, windows, record."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Literal

from inference_energy import provenance
from inference_energy.config import Campaign, ResolvedCampaign
from inference_energy.design import Run
from inference_energy.errors import MeterError
from inference_energy.factors import SCHEDULING_ENGINES
from inference_energy.measure import circumstances
from inference_energy.measure.audit import Audited
from inference_energy.measure.bench import Bench as Bench, Origin as Origin, Progress
from inference_energy.measure.completions import requests_warnings
from inference_energy.measure.devices import check_devices
from inference_energy.measure.engines import Engine, Observations, OutOfDeviceMemory, SchedulingEngine
from inference_energy.measure.findings import warnings_of
from inference_energy.measure.recorder import Recorder, shifted
from inference_energy.measure.rest import wait_until_rested
from inference_energy.measure.steady import warm_up
from inference_energy.measure.windows import Plan
from inference_energy.measure.workload import Prompts
from inference_energy.records import DeviceCheck, Interval, Phase, Record, RunWarning, Trace

#: The warm-up that the thesis used, and that the study `warmup` holds against the steady state.
N_FORWARD_PASSES = 3


def measure_run(
    run: Run,
    resolved: ResolvedCampaign,
    bench: Bench,
    origin: Origin,
    prompts: Prompts,
    make_engine: Callable[[], Engine],
) -> Record:
    """Measure one run.

    Parameters
    ----------
    run : Run
        Setting and cycle.
    resolved : ResolvedCampaign
        The design and the facts of its models.
    bench : Bench
        Meter, sampler, devices, clock.
    origin : Origin
        How this process was launched.
    prompts : Prompts
        Of one pass.
    make_engine : callable
        Makes the engine, or lends the one that an earlier run of the process has started (`origin.follows`). Of an
        own engine, nothing touches the device before this is called.

    Returns
    -------
    Record
        With status ``out_of_memory`` where the setting does not fit the device.

    Raises
    ------
    SteadyStateError, TokenCountError, MeterError
        If the run must not become a record.
    """
    started_at = provenance.now_utc()
    started = bench.counter.read()
    bench.sampler.start()
    recorder = Recorder(bench.counter, bench.companion)
    if bench.counter.method == "codecarbon_estimate":
        recorder.follow(n_laps_before=1)  # the reading at the start was a lap
    progress = Progress()
    engine: Engine | None = None
    seen: Observations | None = None
    try:
        if origin.follows:
            progress.checks.append(_check(bench, "before"))
            recorder.open()
        else:
            _begin(recorder, bench, run, resolved.campaign, progress)
        engine = make_engine()
        seen = _work(engine, recorder, bench, run, resolved, origin, prompts, progress)
    except OutOfDeviceMemory as error:
        progress.status, progress.detail = "out_of_memory", str(error)
    peaks = engine.memory_peak_bytes() if engine else []
    ended = bench.counter.read()
    progress.checks.append(_check(bench, "after"))
    trace, laps = bench.sampler.stop(), bench.companion.laps()
    if engine is not None and origin.shared is None:
        engine.close()
    zero_s = origin.started_s
    intervals, trace = recorder.intervals(trace, laps, zero_s), shifted(trace, zero_s)
    checks, seen = _checks(progress.checks, bench.sampler.checks(), zero_s), seen and seen.shifted(zero_s)
    return Record(
        schema_version=3,
        identity=circumstances.identity(run, bench, started_at),
        status=progress.status,
        status_detail=progress.detail,
        n_attempts=origin.attempt,
        levels=run.levels,
        workload=circumstances.workload(run.levels, prompts, resolved.campaign.seed),
        hardware=bench.hardware,
        meter=circumstances.meter(bench),
        launch=circumstances.launch(run.levels, origin, progress),
        process_started_s=0.0,
        process_ended_s=ended.time_s - zero_s,
        monotonic_started_s=zero_s,
        counter_started_j=list(started.energy_j),
        counter_ended_j=list(ended.energy_j),
        intervals=intervals,
        trace=trace,
        device_checks=checks,
        engine=seen.facts if seen else None,
        engine_samples=seen.samples if seen else None,
        requests=seen.requests if seen else None,
        memory=circumstances.memory(peaks, bench),
        software=circumstances.software(bench.devices.driver),
        provenance=circumstances.provenance_of(run.levels, resolved, origin),
        warnings=_warnings(run, resolved.campaign, bench, progress, intervals, trace, checks)
        + (requests_warnings(seen.requests) if seen and seen.requests else []),
    )


def _warnings(
    run: Run,
    campaign: Campaign,
    bench: Bench,
    progress: Progress,
    intervals: list[Interval],
    trace: Trace,
    checks: list[DeviceCheck],
) -> list[RunWarning]:
    return warnings_of(
        intervals,
        trace,
        bench.lead,
        campaign.measurement.counter_power_tolerance_fraction,
        bench.counter.method,
        start=progress.start,
        checks=checks,
        takes_part=bench.devices.takes_part,
        alone=run.levels.neighbours == "none",
    )


def _begin(recorder: Recorder, bench: Bench, run: Run, campaign: Campaign, progress: Progress) -> None:
    """Wait until the GPUs have rested, prove who is there, and measure an idle stretch.

    The GPUs of an endpoint never rest: its engine is there already.
    """
    if run.levels.engine != "endpoint":
        progress.start = wait_until_rested(bench.devices, campaign.measurement.start, bench.idle_power_w, bench.clock)
    progress.checks.append(_check(bench, "before"))
    recorder.open()
    opened_s = recorder.last_edge().time_s
    _idle(recorder, bench, campaign.measurement.idle_s, "idle")
    progress.bare_idle_s = recorder.last_edge().time_s - opened_s
    progress.load_started_s = bench.clock.now()


def _check(bench: Bench, moment: Literal["before", "after"]) -> DeviceCheck:
    return check_devices(bench.devices, moment, bench.clock.now(), os.getpid())


def _checks(ours: list[DeviceCheck], sampled: list[DeviceCheck], zero_s: float) -> list[DeviceCheck]:
    """Those of the run and the one that the sampler took nearest the middle of it, on the run's clock."""
    middle_s = (ours[0].time_s + ours[-1].time_s) / 2
    inside = [check for check in sampled if ours[0].time_s < check.time_s < ours[-1].time_s]
    during = sorted(inside, key=lambda check: abs(check.time_s - middle_s))[:1]
    everything = sorted([*ours, *during], key=lambda check: check.time_s)
    return [check.model_copy(update={"time_s": check.time_s - zero_s}) for check in everything if check.devices]


def _idle(recorder: Recorder, bench: Bench, duration_s: float, phase: Phase) -> None:
    bench.clock.sleep(duration_s)
    recorder.close(phase, 0, bench.clock.now())


def _work(
    engine: Engine,
    recorder: Recorder,
    bench: Bench,
    run: Run,
    resolved: ResolvedCampaign,
    origin: Origin,
    prompts: Prompts,
    progress: Progress,
) -> Observations | None:
    """Load unless an earlier run did, warm up, measure the windows, idle once more."""
    campaign, levels = resolved.campaign, run.levels
    if not origin.follows:
        engine.load()
        _require_devices(engine, bench)
        recorder.close("load", 0, bench.clock.now())
    scheduling: SchedulingEngine | None = engine if levels.engine in SCHEDULING_ENGINES else None  # type: ignore[assignment]
    if scheduling is not None:
        scheduling.take(levels, prompts)
    progress.first_iteration_s = bench.clock.now()
    audited = Audited(engine, levels, prompts, run.run_id)
    durations_s: list[float] = []
    if levels.warmup == "steady":
        rule = campaign.measurement.warm_up
        if rule.n_priming_tokens:
            engine.prime(rule.n_priming_tokens)
        durations_s = warm_up(lambda: audited.iterate(waiting=False), rule, bench.clock, f"run {run.run_id}")
        recorder.close(
            "warmup", 0, bench.clock.now(), durations_s, audited.tokens(), first_token_s=audited.first_tokens_s()
        )
    else:
        engine.forward_passes(N_FORWARD_PASSES)
        recorder.close("warmup", 0, bench.clock.now())
    _follow_codecarbon(recorder, bench)
    duration_s = durations_s[-1] * audited.mean_over_warm_up() if durations_s else None
    plan = Plan(levels, campaign.measurement, duration_s)
    for index in range(plan.n_windows):
        _window(audited, recorder, bench, plan, index)
    seen = None if scheduling is None else scheduling.observations()
    _idle(recorder, bench, campaign.measurement.idle_loaded_s, "idle_loaded")
    return seen


def _follow_codecarbon(recorder: Recorder, bench: Bench) -> None:
    """Let CodeCarbon lap with the windows; it had the warm-up to get ready."""
    if bench.counter.method == "codecarbon_estimate":
        return
    ready = getattr(bench.companion, "ready", None)
    if ready is not None and ready():
        recorder.follow()
        recorder.open()


def _window(audited: Audited, recorder: Recorder, bench: Bench, plan: Plan, index: int) -> None:
    """Whole iterations until the window is full."""
    durations_s: list[float] = []
    opened_s = recorder.last_edge().time_s
    now_s = bench.clock.now()
    while not plan.full(index, len(durations_s), now_s - opened_s):
        begun_s = now_s
        audited.iterate(waiting=True)
        now_s = bench.clock.now()
        durations_s.append(now_s - begun_s)
    recorder.close(
        "window",
        index,
        now_s,
        durations_s,
        audited.tokens(),
        waited_s=audited.waited_s(),
        first_token_s=audited.first_tokens_s(),
    )


def _require_devices(engine: Engine, bench: Bench) -> None:
    """The GPUs that work must be those that are metered as taking part."""
    working = engine.device_uuids()
    metered = [bench.devices.uuids[index] for index in bench.devices.takes_part]
    if working and sorted(working) != sorted(metered):
        raise MeterError(
            "device set",
            f"the engine runs on {', '.join(working)}, the meter reads {', '.join(metered)}",
            "the same GPUs",
            "Set CUDA_DEVICE_ORDER=PCI_BUS_ID, and CUDA_VISIBLE_DEVICES to GPUs that are free",
        )
