"""One run, from a fresh process to its record: rest, idle, load, warm up, windows, record."""

from __future__ import annotations

import os
import platform
import resource
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

from inference_energy import __version__, provenance
from inference_energy.config import Campaign, ModelFacts, ResolvedCampaign, Setting
from inference_energy.design import Run
from inference_energy.errors import MeterError
from inference_energy.measure.audit import Audited
from inference_energy.measure.devices import DeviceSet, check_devices
from inference_energy.measure.engines import Engine, OutOfDeviceMemory
from inference_energy.measure.findings import warnings_of
from inference_energy.measure.meter import Clock, Counter
from inference_energy.measure.recorder import Recorder, shifted
from inference_energy.measure.rest import wait_until_rested
from inference_energy.measure.sampler import Companion, Sampler
from inference_energy.measure.steady import warm_up
from inference_energy.measure.windows import Plan
from inference_energy.measure.workload import Prompts
from inference_energy.records import (
    DeviceCheck,
    Hardware,
    Identity,
    Launch,
    Memory,
    Meter,
    Phase,
    Provenance,
    Record,
    Software,
    Start,
    Workload,
)

#: The warm-up that the thesis used, and that the study `warmup` holds against the steady state.
N_FORWARD_PASSES = 3


@dataclass(frozen=True)
class Bench:
    """All that a run is measured with.

    Attributes
    ----------
    read_latency_s : float
        Median time of one read of the counter, from the qualification.
    idle_power_w : float or None
        Of a rested GPU, from the qualification.
    qualification : str or None
        Name of the sitting's qualification.
    """

    clock: Clock
    counter: Counter
    sampler: Sampler
    companion: Companion
    devices: DeviceSet
    hardware: Hardware
    read_latency_s: float
    idle_power_w: float | None
    sitting: str
    qualification: str | None

    @property
    def lead(self) -> int:
        """Index of the first device that takes part."""
        return self.devices.lead


@dataclass(frozen=True)
class Origin:
    """How the process came to be."""

    launcher: str
    started_s: float
    parent_n_device_files: int | None = None
    parent_cuda_initialised: bool | None = None
    replay_of: str | None = None
    command: str | None = None
    attempt: int = 1


@dataclass
class _Progress:
    """What a run has reached; an out-of-memory run ends early and keeps it."""

    status: Literal["ok", "out_of_memory"] = "ok"
    detail: str | None = None
    start: Start | None = None
    checks: list[DeviceCheck] = field(default_factory=list)
    bare_idle_s: float = 0.0
    load_started_s: float = 0.0
    first_iteration_s: float | None = None


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
        Makes the engine; nothing touches the device before it is called.

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
    progress = _Progress()
    engine: Engine | None = None
    try:
        _begin(recorder, bench, resolved.campaign, progress)
        engine = make_engine()
        _work(engine, recorder, bench, run, resolved, progress)
    except OutOfDeviceMemory as error:
        progress.status, progress.detail = "out_of_memory", str(error)
    peaks = engine.memory_peak_bytes() if engine else []
    ended = bench.counter.read()
    progress.checks.append(_check(bench, "after"))
    trace, laps = bench.sampler.stop(), bench.companion.laps()
    if engine is not None:
        engine.close()
    zero_s = origin.started_s
    intervals = recorder.intervals(trace, laps, zero_s)
    trace = shifted(trace, zero_s)
    checks = _checks(progress.checks, bench.sampler.checks(), zero_s)
    return Record(
        schema_version=3,
        identity=_identity(run, bench, started_at),
        status=progress.status,
        status_detail=progress.detail,
        n_attempts=origin.attempt,
        levels=run.levels,
        workload=_workload(run.levels, prompts, resolved.campaign.seed),
        hardware=bench.hardware,
        meter=_meter(bench),
        launch=_launch(run.levels, origin, progress),
        process_started_s=0.0,
        process_ended_s=ended.time_s - zero_s,
        monotonic_started_s=zero_s,
        counter_started_j=list(started.energy_j),
        counter_ended_j=list(ended.energy_j),
        intervals=intervals,
        trace=trace,
        device_checks=checks,
        memory=_memory(peaks, bench),
        software=software(bench.devices.driver),
        provenance=provenance_of(run.levels, resolved, origin),
        warnings=warnings_of(
            intervals,
            trace,
            bench.lead,
            resolved.campaign.measurement.counter_power_tolerance_fraction,
            bench.counter.method,
            start=progress.start,
            checks=checks,
            takes_part=bench.devices.takes_part,
            alone=run.levels.neighbours == "none",
        ),
    )


def _begin(recorder: Recorder, bench: Bench, campaign: Campaign, progress: _Progress) -> None:
    """Wait until the GPUs have rested, prove who is there, and measure an idle stretch."""
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


def _identity(run: Run, bench: Bench, started_at: str) -> Identity:
    return Identity(
        campaign=run.campaign,
        study=run.study,
        setting=run.setting,
        cycle=run.cycle,
        order=run.order,
        sitting=bench.sitting,
        started_at_utc=started_at,
        ended_at_utc=provenance.now_utc(),
    )


def _meter(bench: Bench) -> Meter:
    return Meter(
        energy_method=bench.counter.method,  # type: ignore[arg-type]
        period_s=bench.counter.period_s,
        resolution_j=bench.counter.resolution_j,
        read_latency_s=bench.read_latency_s,
        tick_aligned=bench.counter.ticks,
        qualification=bench.qualification,
    )


def _idle(recorder: Recorder, bench: Bench, duration_s: float, phase: Phase) -> None:
    bench.clock.sleep(duration_s)
    recorder.close(phase, 0, bench.clock.now())


def _work(
    engine: Engine, recorder: Recorder, bench: Bench, run: Run, resolved: ResolvedCampaign, progress: _Progress
) -> None:
    """Load, warm up, measure the windows, idle once more."""
    campaign, levels = resolved.campaign, run.levels
    engine.load()
    _require_devices(engine, bench)
    recorder.close("load", 0, bench.clock.now())
    progress.first_iteration_s = bench.clock.now()
    audited = Audited(engine, levels, run.run_id)
    durations_s: list[float] = []
    if levels.warmup == "steady":
        rule = campaign.measurement.warm_up
        if rule.n_priming_tokens:
            engine.prime(rule.n_priming_tokens)
        durations_s = warm_up(lambda: audited.iterate(waiting=False), rule, bench.clock, f"run {run.run_id}")
        recorder.close("warmup", 0, bench.clock.now(), durations_s, audited.tokens())
    else:
        engine.forward_passes(N_FORWARD_PASSES)
        recorder.close("warmup", 0, bench.clock.now())
    _follow_codecarbon(recorder, bench)
    plan = Plan(levels, campaign.measurement, durations_s[-1] if durations_s else None)
    for index in range(campaign.measurement.n_windows):
        _window(audited, recorder, bench, plan, index)
    _idle(recorder, bench, campaign.measurement.idle_loaded_s, "idle_loaded")


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
    recorder.close("window", index, now_s, durations_s, audited.tokens(), waited_s=audited.waited_s())


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


def _workload(levels: Setting, prompts: Prompts, seed: int) -> Workload:
    return Workload(
        n_prompts=levels.n_prompts_answered_per_pass,
        n_batches=levels.n_batches_per_pass,
        n_input_tokens=levels.n_input_tokens,
        n_output_tokens=levels.n_output_tokens,
        n_non_padding_input_tokens=prompts.n_non_padding_tokens,
        seed=seed,
        token_ids_sha256=prompts.sha256,
        source=levels.prompts,
    )


def _launch(levels: Setting, origin: Origin, progress: _Progress) -> Launch:
    rested_s = progress.start.waited_s if progress.start else 0.0

    def since_start_s(moment_s: float) -> float:
        return moment_s - origin.started_s - progress.bare_idle_s - rested_s

    first_s = progress.first_iteration_s
    return Launch(
        launcher=origin.launcher,  # type: ignore[arg-type]
        started_to_load_s=since_start_s(progress.load_started_s),
        started_to_first_iteration_s=None if first_s is None else since_start_s(first_s),
        parent_n_device_files=origin.parent_n_device_files,
        parent_cuda_initialised=origin.parent_cuda_initialised,
        n_processes=levels.n_gpus,
        start=progress.start,
    )


def _memory(peaks_bytes: list[int], bench: Bench) -> Memory:
    """Peaks by metered device; the host's is that of the largest process."""
    peaks: list[int | None] = [None] * len(bench.hardware.devices)
    for index, peak_bytes in zip(bench.devices.takes_part, peaks_bytes, strict=False):
        peaks[index] = peak_bytes
    host_kib = max(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return Memory(device_peak_bytes=peaks, host_peak_bytes=host_kib * 1024)


def software(driver: str | None) -> Software:
    """Versions installed here; PyTorch's CUDA version only if PyTorch is loaded."""
    torch = sys.modules.get("torch")
    return Software(
        python=platform.python_version(),
        torch=provenance.version_of("torch"),
        transformers=provenance.version_of("transformers"),
        codecarbon=provenance.version_of("codecarbon"),
        cuda=getattr(getattr(torch, "version", None), "cuda", None),
        driver=driver,
        bitsandbytes=provenance.version_of("bitsandbytes"),
        inference_energy=__version__,
    )


def provenance_of(levels: Setting, resolved: ResolvedCampaign, origin: Origin) -> Provenance:
    """Code, design and command that a run of this process stands for."""
    commit, dirty = provenance.commit()
    facts: ModelFacts = resolved.models[levels.model]
    revision = facts.revision.value if levels.weights == "hub" and facts.revision else None
    return Provenance(
        commit=commit,
        dirty=dirty,
        source_sha256=provenance.source_sha256(),
        config_sha256=resolved.sha256(),
        command=origin.command or provenance.command(),
        model_revision=None if revision is None else str(revision),
        weights=levels.weights,
        replay_of=origin.replay_of,
    )
