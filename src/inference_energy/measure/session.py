"""What a fresh measuring process does: claim its GPUs, qualify them if this sitting has not yet, measure, record."""

from __future__ import annotations

import multiprocessing
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from inference_energy import design, qualification
from inference_energy.config import Campaign, ResolvedCampaign, read_resolved
from inference_energy.design import Run
from inference_energy.errors import MeterError
from inference_energy.measure import qualify
from inference_energy.measure.devices import DeviceSet, claim, describe, find_devices, make_counter, require_idle
from inference_energy.measure.engines import Engine
from inference_energy.measure.lifeline import end_with
from inference_energy.measure.meter import Clock, Counter, SystemClock
from inference_energy.measure.run import Bench, Origin, measure_run
from inference_energy.measure.sampler import CodeCarbonCompanion, CodeCarbonCounter, NoSampler, NvmlSampler, Sampler
from inference_energy.measure.workload import Prompts, prompts_for
from inference_energy.records import Record, write_record


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

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


def qualifications(campaign_file: Path) -> Path:
    """Folder of a campaign's qualifications."""
    return campaign_file.parent / "qualification"


def perform(request: Request) -> None:
    """Do what `request` says; the file it names is there afterwards, whole."""
    campaign_file = Path(request.campaign_file)
    resolved = read_resolved(campaign_file)
    clock = SystemClock()
    found = find_devices(resolved.campaign.measurement.device)
    if request.action == "qualify":
        _qualify_all(found, resolved.campaign, request, clock)
        return
    run = design.find(design.expand(resolved, request.campaign_file), request.run_id)
    holder, wait_s = f"{run.campaign}/{run.run_id}", resolved.campaign.measurement.lock_wait_s
    with claim(found, run.levels.n_gpus, run.levels.neighbours == "none", holder, wait_s, clock) as devices:
        require_idle(devices, clock)
        started_s = request.started_s
        if _qualify(devices, resolved.campaign, request):
            started_s = clock.now()  # the run begins after it
        record = _measure(run, resolved, request, devices, clock, started_s)
        write_record(Path(request.output), record)
    if record.meter.qualification:
        os.utime(qualifications(campaign_file) / record.meter.qualification)  # the sitting goes on


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


def _measure(
    run: Run, resolved: ResolvedCampaign, request: Request, devices: DeviceSet, clock: Clock, started_s: float
) -> Record:
    measurement = resolved.campaign.measurement
    path = qualify.current(qualifications(Path(request.campaign_file)), devices)
    if path is None:
        raise MeterError(f"campaign {run.campaign}", "the qualification just made is gone", "", "Run again")
    qualified = qualification.read(path)
    _see_only(devices)
    counter, companion = _meter(devices, measurement.codecarbon_country, clock)
    counter.period_s, counter.resolution_j = qualified.period_s, qualified.resolution_j
    sampler: Sampler = NvmlSampler(devices, measurement.sample_period_s) if devices.handles else NoSampler()
    bench = Bench(
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
    prompts = prompts_for(run.levels, resolved.models[run.levels.model], resolved.campaign.seed)
    origin = Origin(
        request.launcher,
        started_s,
        request.parent_n_device_files,
        request.parent_cuda_initialised,
        command=request.command,
        attempt=request.attempt,
    )
    return measure_run(run, resolved, bench, origin, prompts, lambda: _engine(run, resolved, prompts, devices))


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


def _engine(run: Run, resolved: ResolvedCampaign, prompts: Prompts, devices: DeviceSet) -> Engine:
    from inference_energy.measure.engines.several import SeveralProcesses
    from inference_energy.measure.engines.transformers import TransformersEngine

    make = TransformersEngine if run.levels.n_gpus == 1 else SeveralProcesses
    facts, device = resolved.models[run.levels.model], "cuda" if devices.kind == "gpu" else "cpu"
    return make(run.levels, facts, prompts, resolved.campaign.seed, device)
