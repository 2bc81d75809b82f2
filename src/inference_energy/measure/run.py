"""One run, from a fresh process to its record: idle, load, warm up, windows, record."""

from __future__ import annotations

import platform
import resource
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from inference_energy import __version__, provenance
from inference_energy.config import Campaign, ModelFacts, ResolvedCampaign, Setting
from inference_energy.design import Run
from inference_energy.errors import MeterError, TokenCountError
from inference_energy.measure.devices import DeviceSet
from inference_energy.measure.engines import Engine, Generated, OutOfDeviceMemory
from inference_energy.measure.findings import warnings_of
from inference_energy.measure.meter import Clock, Counter
from inference_energy.measure.recorder import Recorder, shifted
from inference_energy.measure.sampler import Companion, Sampler
from inference_energy.measure.steady import warm_up
from inference_energy.measure.workload import Prompts
from inference_energy.records import (
    Hardware,
    Identity,
    Launch,
    Memory,
    Meter,
    Phase,
    Provenance,
    Record,
    Software,
    Tokens,
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
    sitting: str
    qualification: str | None

    @property
    def lead(self) -> int:
        """Index of the device that takes part."""
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


@dataclass
class _Progress:
    """What a run has reached; an out-of-memory run ends early and keeps it."""

    status: Literal["ok", "out_of_memory"] = "ok"
    detail: str | None = None
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
        Of one iteration.
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
    recorder = Recorder(bench.counter, bench.companion, bench.lead)
    if bench.counter.method == "codecarbon_estimate":
        recorder.follow(n_laps_before=1)  # the reading at the start was a lap
    progress = _Progress()
    engine: Engine | None = None
    try:
        recorder.open()
        opened_s = recorder.last_edge().time_s
        _idle(recorder, bench, resolved.campaign.measurement.idle_s, "idle")
        progress.bare_idle_s = recorder.last_edge().time_s - opened_s
        progress.load_started_s = bench.clock.now()
        engine = make_engine()
        _work(engine, recorder, bench, run, resolved, progress)
    except OutOfDeviceMemory as error:
        progress.status, progress.detail = "out_of_memory", str(error)
    memory_peak = engine.memory_peak_bytes() if engine else None
    ended = bench.counter.read()
    trace, laps = bench.sampler.stop(), bench.companion.laps()
    zero_s = origin.started_s
    intervals = recorder.intervals(trace, laps, zero_s)
    trace = shifted(trace, zero_s)
    tolerance_fraction = resolved.campaign.measurement.counter_power_tolerance_fraction
    return Record(
        schema_version=1,
        identity=_identity(run, bench, started_at),
        status=progress.status,
        status_detail=progress.detail,
        levels=run.levels,
        workload=_workload(run.levels, prompts, resolved.campaign.seed),
        hardware=bench.hardware,
        meter=_meter(bench),
        launch=_launch(origin, progress),
        process_started_s=0.0,
        process_ended_s=ended.time_s - zero_s,
        monotonic_started_s=zero_s,
        counter_started_j=list(started.energy_j),
        counter_ended_j=list(ended.energy_j),
        intervals=intervals,
        trace=trace,
        memory=_memory(memory_peak, bench),
        software=software(bench.devices.driver),
        provenance=_provenance(run.levels, resolved, origin),
        warnings=warnings_of(intervals, trace, bench.lead, tolerance_fraction, bench.counter.method),
    )


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
    _require_device(engine, bench)
    recorder.close("load", 0, bench.clock.now())
    progress.first_iteration_s = bench.clock.now()
    if levels.warmup == "steady":
        durations_s = warm_up(
            lambda: _audited(engine, levels, run.run_id), campaign.measurement.warm_up, bench.clock, f"run {run.run_id}"
        )
        tokens = _tokens(levels, [n_requested(levels)] * len(durations_s))
        recorder.close("warmup", 0, bench.clock.now(), durations_s, tokens)
    else:
        engine.forward_passes(N_FORWARD_PASSES)
        recorder.close("warmup", 0, bench.clock.now())
    _follow_codecarbon(recorder, bench)
    for index in range(campaign.measurement.n_windows):
        _window(engine, recorder, bench, run, campaign, index)
    _idle(recorder, bench, campaign.measurement.idle_loaded_s, "idle_loaded")


def _follow_codecarbon(recorder: Recorder, bench: Bench) -> None:
    """Let CodeCarbon lap with the windows; it had the warm-up to get ready."""
    if bench.counter.method == "codecarbon_estimate":
        return
    ready = getattr(bench.companion, "ready", None)
    if ready is not None and ready():
        recorder.follow()
        recorder.open()


def _window(engine: Engine, recorder: Recorder, bench: Bench, run: Run, campaign: Campaign, index: int) -> None:
    """Whole iterations until the window is long enough."""
    durations_s: list[float] = []
    requested: list[int] = []
    opened_s = recorder.last_edge().time_s
    now_s = bench.clock.now()
    while now_s - opened_s < campaign.measurement.window_min_s:
        begun_s = now_s
        requested.append(_audited(engine, run.levels, run.run_id))
        now_s = bench.clock.now()
        durations_s.append(now_s - begun_s)
    recorder.close("window", index, now_s, durations_s, _tokens(run.levels, requested))


def n_requested(levels: Setting) -> int:
    """Output tokens that one iteration asks for."""
    return levels.n_prompts_per_iteration * levels.n_output_tokens


def _audited(engine: Engine, levels: Setting, run_id: str) -> int:
    """One iteration whose token counts agree; returns the tokens asked for.

    Raises
    ------
    TokenCountError
        If they do not.
    """
    generated: Generated = engine.iterate()
    requested = n_requested(levels)
    if not requested == generated.n_tokens == generated.n_non_padding_tokens:
        raise TokenCountError(
            f"run {run_id}",
            f"{generated.n_tokens} tokens generated, of which {generated.n_non_padding_tokens} are no padding",
            f"{requested} of each",
            "A sequence ended early, or the engine pads: energy per token would be wrong",
        )
    return requested


def _tokens(levels: Setting, requested: list[int]) -> Tokens:
    total = sum(requested)
    n_input = levels.n_prompts_per_iteration * levels.n_input_tokens * len(requested)
    return Tokens(
        n_input_tokens=n_input, n_tokens_requested=total, n_tokens_generated=total, n_tokens_non_padding=total
    )


def _require_device(engine: Engine, bench: Bench) -> None:
    """The GPU that works must be the one that is metered."""
    uuid = engine.device_uuid()
    metered = bench.devices.uuids[bench.lead]
    if uuid is not None and uuid != metered:
        raise MeterError(
            "device set",
            f"the engine runs on {uuid}, the meter reads {metered}",
            "the same GPU",
            "Set CUDA_DEVICE_ORDER=PCI_BUS_ID and CUDA_VISIBLE_DEVICES",
        )


def _workload(levels: Setting, prompts: Prompts, seed: int) -> Workload:
    n_prompts = levels.n_prompts_per_iteration
    return Workload(
        n_prompts=n_prompts,
        n_batches=-(-n_prompts // levels.batch_size),
        n_input_tokens=levels.n_input_tokens,
        n_output_tokens=levels.n_output_tokens,
        n_non_padding_input_tokens=prompts.n_non_padding_tokens,
        seed=seed,
        token_ids_sha256=prompts.sha256,
        source=levels.prompts,
    )


def _launch(origin: Origin, progress: _Progress) -> Launch:
    def since_start_s(moment_s: float) -> float:
        return moment_s - origin.started_s - progress.bare_idle_s

    first_s = progress.first_iteration_s
    return Launch(
        launcher=origin.launcher,  # type: ignore[arg-type]
        started_to_load_s=since_start_s(progress.load_started_s),
        started_to_first_iteration_s=None if first_s is None else since_start_s(first_s),
        parent_n_device_files=origin.parent_n_device_files,
        parent_cuda_initialised=origin.parent_cuda_initialised,
    )


def _memory(device_peak_bytes: int | None, bench: Bench) -> Memory:
    peaks: list[int | None] = [None] * len(bench.hardware.devices)
    peaks[bench.lead] = device_peak_bytes
    return Memory(device_peak_bytes=peaks, host_peak_bytes=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)


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


def _provenance(levels: Setting, resolved: ResolvedCampaign, origin: Origin) -> Provenance:
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
