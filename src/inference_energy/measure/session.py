"""What a fresh measuring process does: claim its GPUs, qualify them if this sitting has not yet, measure, record."""

from __future__ import annotations

import contextlib
import math
import multiprocessing
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from inference_energy import design, provenance, qualification
from inference_energy.config import Campaign, ResolvedCampaign, read_resolved
from inference_energy.design import Run
from inference_energy.errors import DeviceBusyError, EngineError, MeterError, SteadyStateError, TokenCountError
from inference_energy.factors import SCHEDULING_ENGINES
from inference_energy.lengths import longest
from inference_energy.measure import qualify
from inference_energy.measure.devices import DeviceSet, claim, describe, find_devices, make_counter, require_idle
from inference_energy.measure.engines import Engine
from inference_energy.measure.lifeline import end_with
from inference_energy.measure.locks import hold
from inference_energy.measure.meter import Clock, Counter, SystemClock
from inference_energy.measure.run import Bench, Origin, measure_run
from inference_energy.measure.sampler import CodeCarbonCompanion, CodeCarbonCounter, NoSampler, NvmlSampler, Sampler
from inference_energy.measure.workload import Prompts, prompts_for
from inference_energy.records import Record, SharedProcess, write_record


@dataclass(frozen=True)
class Request:
    """What to do, as it is handed from process to process.

    Attributes
    ----------
    action : {"measure", "qualify"}
        One run, or the instrument's qualification on every GPU.
    campaign_file : str
        The resolved campaign.
    run_id : str
        Empty when qualifying.
    output : str
        The record to write, or the folder of qualifications.
    started_s : float
        When the process was asked for, on the host's monotonic clock.
    command : str, optional
        What the user typed; a forked process has its parent's command line.
    attempt : int
        How often the run was started, this time included.
    failure : str, optional
        File for the reason if the run fails; without it the reason is only printed.
    engine : str
        The run's engine: the parent imports it before it forks.
    also : list of str
        Runs that the same engine can serve, to be measured after this one unless they have a record.
    stop_at_s : float, optional
        On the day's clock: none of those is started after it.
    """

    action: Literal["measure", "qualify"]
    campaign_file: str
    run_id: str
    output: str
    hardware_yaml: str
    launcher: Literal["fork", "cold", "in_process"]
    started_s: float
    parent_n_device_files: int | None = None
    parent_cuda_initialised: bool | None = None
    command: str | None = None
    attempt: int = 1
    failure: str | None = None
    engine: str = "transformers"
    also: list[str] = field(default_factory=list)
    stop_at_s: float | None = None

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


def qualifications(campaign_file: Path) -> Path:
    """Folder of a campaign's qualifications."""
    return campaign_file.parent / "qualification"


def perform(request: Request) -> None:
    """Do what `request` says; the file it names is there afterwards, whole.

    A run that another process measures just now, in an engine that it shares, is waited for.
    """
    campaign_file = Path(request.campaign_file)
    resolved = read_resolved(campaign_file)
    clock = SystemClock()
    found = find_devices(resolved.campaign.measurement.device)
    if request.action == "qualify":
        _qualify_all(found, resolved.campaign, request, clock)
        return
    runs = design.expand(resolved, request.campaign_file)
    run = design.find(runs, request.run_id)
    following = [design.find(runs, run_id) for run_id in request.also]
    holder, wait_s = f"{run.campaign}/{run.run_id}", resolved.campaign.measurement.lock_wait_s
    asked_s = clock.now()
    with contextlib.ExitStack() as held:
        held.enter_context(_sole(Path(request.output), holder, math.inf, clock))
        if Path(request.output).exists():
            return
        started_s = request.started_s + clock.now() - asked_s  # the run begins after that wait
        alone = run.levels.neighbours == "none"
        devices = held.enter_context(claim(found, run.levels.n_gpus, alone, holder, wait_s, clock))
        if run.levels.engine != "endpoint":  # whose engine is there already
            require_idle(devices, clock)
        if _qualify(devices, resolved.campaign, request):
            started_s = clock.now()  # the run begins after it
        path = _qualification(campaign_file, run.campaign, devices)
        _Measuring(resolved, request, devices, clock, path).measure([run, *following], started_s)
    os.utime(path)  # the sitting goes on


def _sole(output: Path, holder: str, wait_s: float, clock: Clock) -> contextlib.AbstractContextManager[list[int]]:
    """Keep other processes of this machine from measuring the run of this record; DeviceBusyError if one does."""
    return hold([str(output.resolve())], 1, holder, wait_s, clock, kind="run-")


# --- qualification -------------------------------------------------------------------------------


def _qualify_all(found: DeviceSet, campaign: Campaign, request: Request, clock: Clock) -> None:
    """Qualify every GPU that may be claimed anew, all at once, as runs go side by side."""
    holder = f"qualification of {campaign.name}"
    with claim(found, len(found.claimable), False, holder, campaign.measurement.lock_wait_s, clock) as devices:
        require_idle(devices, clock)
        sitting = qualify.new_sitting(Path(request.output), devices)
        _qualify_each(devices, list(devices.takes_part), campaign, request, sitting)


def _qualify(devices: DeviceSet, campaign: Campaign, request: Request) -> bool:
    """Qualify those of a run's GPUs that this sitting has not qualified yet; True if there were any."""
    folder = qualifications(Path(request.campaign_file))
    missing = [i for i in devices.takes_part if qualify.current(folder, devices.only(i)) is None]
    if missing:
        _qualify_each(devices, missing, campaign, request, qualify.new_sitting(folder, devices))
    return bool(missing)


def _qualify_each(devices: DeviceSet, chosen: list[int], campaign: Campaign, request: Request, sitting: str) -> None:
    """One process a GPU, since qualifying puts it under load: this process must stay clear of any GPU."""
    folder = qualifications(Path(request.campaign_file))
    context = multiprocessing.get_context("fork")
    parent = os.getpid()

    def qualify_one(device: DeviceSet) -> None:
        end_with(parent)
        _see_only(device)
        device = device.reopened()
        qualify.qualify(folder, campaign.name, device, campaign.measurement, Path(request.hardware_yaml), sitting)

    processes = [context.Process(target=qualify_one, args=(devices.only(index),)) for index in chosen]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    n_failed = sum(process.exitcode != 0 for process in processes)
    if n_failed:
        raise MeterError(
            f"campaign {campaign.name}",
            f"{n_failed} of {len(processes)} devices could not be qualified; the reason is above",
            "an instrument that holds what it promises",
        )


def _see_only(devices: DeviceSet) -> None:
    """Let CUDA, which has not started yet, see the GPUs that take part, in this order."""
    if devices.kind == "gpu":
        os.environ["CUDA_DEVICE_ORDER"] = "PCI_BUS_ID"
        os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(devices.uuids[index] for index in devices.takes_part)


# --- measuring -----------------------------------------------------------------------------------


def _qualification(campaign_file: Path, campaign: str, devices: DeviceSet) -> Path:
    path = qualify.current(qualifications(campaign_file), devices)
    if path is None:
        raise MeterError(f"campaign {campaign}", "the qualification just made is gone", "", "Run again")
    return path


class _Measuring:
    """The runs of one process, one after the other, in one engine where there are several."""

    def __init__(
        self, resolved: ResolvedCampaign, request: Request, devices: DeviceSet, clock: Clock, qualified: Path
    ) -> None:
        self._resolved, self._request, self._devices, self._clock = resolved, request, devices, clock
        self._bench = _bench(resolved, devices, clock, qualified)
        self._engine: Engine | None = None

    def measure(self, runs: Sequence[Run], started_s: float) -> None:
        """Measure the first of `runs`; and the others as long as they have no record, there is time and none fails.

        One that another process measures just now is left to it. One that fails keeps its own attempts: it is started
        again by itself.
        """
        first, shared = runs[0], runs[0].levels.engine_process == "shared"
        process = provenance.short_hash(f"{os.getpid()}/{started_s}/{self._bench.sitting}")
        position = 0
        try:
            for run in runs:
                with contextlib.ExitStack() as held:
                    if run is not first and not self._may_follow(run, held):
                        continue
                    begun_s = started_s if run is first else self._clock.now()
                    place = SharedProcess(process=process, position=position, first_run=first.run_id)
                    record = self._record(run, runs, begun_s, place if shared else None)
                    write_record(self._output(run), record)
                if record.status != "ok":
                    return  # memory ran out: the engine is not what it was
                position += 1
        except (EngineError, SteadyStateError, TokenCountError) as error:
            if run is first:
                raise
            print(f"error: {error}", file=sys.stderr)  # noqa: T201
        finally:
            if self._engine is not None and shared:
                self._engine.close()
            self._bench.sampler.end()
            self._bench.companion.end()

    def _may_follow(self, run: Run, held: contextlib.ExitStack) -> bool:
        """Whether a run is still to be measured, which is then this process's own until `held` closes."""
        output = self._output(run)
        if output.exists() or self._late():
            return False
        try:
            held.enter_context(_sole(output, run.run_id, 0.0, self._clock))
        except DeviceBusyError:
            return False
        return not output.exists()

    def _late(self) -> bool:
        return self._request.stop_at_s is not None and time.time() > self._request.stop_at_s

    def _output(self, run: Run) -> Path:
        if run.run_id == self._request.run_id:
            return Path(self._request.output)
        return Path(self._request.campaign_file).parent / "records" / f"{run.run_id}.json"

    def _record(self, run: Run, runs: Sequence[Run], begun_s: float, place: SharedProcess | None) -> Record:
        request, facts = self._request, self._resolved.models[run.levels.model]
        prompts = prompts_for(run.levels, facts, self._resolved.campaign.seed)
        origin = Origin(
            request.launcher,
            begun_s,
            request.parent_n_device_files,
            request.parent_cuda_initialised,
            command=request.command,
            attempt=request.attempt if run is runs[0] else 1,
            shared=place,
        )

        def lend() -> Engine:
            if self._engine is None:
                self._engine = _engine(run, runs, self._resolved, prompts, self._devices.kind)
            return self._engine

        return measure_run(run, self._resolved, self._bench, origin, prompts, lend)


def _bench(resolved: ResolvedCampaign, devices: DeviceSet, clock: Clock, path: Path) -> Bench:
    measurement = resolved.campaign.measurement
    qualified = qualification.read(path)
    _see_only(devices)
    counter, companion = _meter(devices, measurement.codecarbon_country, clock)
    counter.period_s, counter.resolution_j = qualified.period_s, qualified.resolution_j
    sampler: Sampler = NvmlSampler(devices, measurement.sample_period_s) if devices.handles else NoSampler()
    return Bench(
        clock=clock,
        counter=counter,
        sampler=sampler,
        companion=companion,
        devices=devices,
        hardware=describe(devices),
        read_latency_s=qualified.read_latency_s,
        idle_power_w=qualified.idle_power_w,
        sitting=qualified.sitting,
        qualification=path.name,
    )


def _meter(devices: DeviceSet, country: str, clock: Clock) -> tuple[Counter, CodeCarbonCompanion]:
    """The best counter there is, and CodeCarbon beside it."""
    # Numbers, because CodeCarbon 3.3.2 loses the G of a UUID (it strips the letters of "MIG-") and then reads no GPU.
    everyone = devices.visible.uuids
    gpu_ids = [everyone.index(devices.uuids[i]) for i in devices.takes_part] if devices.kind == "gpu" else []
    companion = CodeCarbonCompanion(gpu_ids, country)
    companion.start()
    counter: Counter | None = make_counter(devices, clock)
    if counter is None:
        if not companion.ready():
            raise MeterError(
                "this machine",
                "no energy meter: no NVML, no readable RAPL, and CodeCarbon does not start",
                "one of the three",
                "Install the NVIDIA driver, or make /sys/class/powercap/intel-rapl:0/energy_uj readable",
            )
        counter = CodeCarbonCounter(companion, clock)
    return counter, companion


def _engine(run: Run, runs: Sequence[Run], resolved: ResolvedCampaign, prompts: Prompts, kind: str) -> Engine:
    """The engine of a run; one that schedules by itself takes the longest prompt and answer of all `runs`."""
    levels = run.levels
    facts, seed, device = resolved.models[levels.model], resolved.campaign.seed, "cuda" if kind == "gpu" else "cpu"
    if levels.engine in SCHEDULING_ENGINES:
        n_context_tokens = max(sum(longest(one.levels)) for one in runs)
        if levels.engine == "vllm":
            from inference_energy.measure.engines.vllm import VllmEngine

            return VllmEngine(levels, facts, seed, device, n_context_tokens)
        from inference_energy.measure.engines import server

        if levels.engine == "vllm_server":
            return server.VllmServerEngine(levels, facts, seed, device, n_context_tokens)
        return server.EndpointEngine(levels, facts, seed, resolved.campaign.measurement.endpoint)
    from inference_energy.measure.engines.several import SeveralProcesses
    from inference_energy.measure.engines.transformers import TransformersEngine

    make = TransformersEngine if levels.n_gpus == 1 else SeveralProcesses
    return make(levels, facts, prompts, seed, device)
