"""What a fresh measuring process does: qualify if this sitting has not yet, lock, measure, record."""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from inference_energy import design
from inference_energy.config import ResolvedCampaign, read_resolved
from inference_energy.design import Run
from inference_energy.errors import MeterError
from inference_energy.measure import qualify
from inference_energy.measure.devices import DeviceSet, describe, find_devices, lock, make_counter, require_idle
from inference_energy.measure.engines import Engine, require_supported
from inference_energy.measure.meter import Clock, Counter, SystemClock
from inference_energy.measure.run import Bench, Origin, measure_run
from inference_energy.measure.sampler import CodeCarbonCompanion, CodeCarbonCounter, NoSampler, NvmlSampler, Sampler
from inference_energy.measure.workload import Prompts, prompts_for
from inference_energy.records import write_record


@dataclass(frozen=True)
class Request:
    """What to do, as it is handed from process to process.

    Attributes
    ----------
    action : {"measure", "qualify"}
        One run, or the instrument's qualification.
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
    devices = find_devices(resolved.campaign.measurement.device)
    if request.action == "qualify":
        with lock(
            devices, f"qualification of {resolved.campaign.name}", resolved.campaign.measurement.lock_wait_s, clock
        ):
            require_idle(devices, clock)
            qualify.qualify(
                Path(request.output),
                resolved.campaign.name,
                devices,
                resolved.campaign.measurement,
                Path(request.hardware_yaml),
            )
        return
    run = design.find(design.expand(resolved, request.campaign_file), request.run_id)
    require_supported(run.levels)
    holder = f"{run.campaign}/{run.run_id}"
    with lock(devices, holder, resolved.campaign.measurement.lock_wait_s, clock):
        require_idle(devices, clock)
        record = _measure(run, resolved, request, devices, clock)
        write_record(Path(request.output), record)
    if record.meter.qualification:
        os.utime(qualifications(campaign_file) / record.meter.qualification)  # the sitting goes on


def _measure(run: Run, resolved: ResolvedCampaign, request: Request, devices: DeviceSet, clock: Clock) -> Any:
    measurement = resolved.campaign.measurement
    path = qualify.current(qualifications(Path(request.campaign_file)), devices)
    if path is None:
        raise MeterError(
            f"campaign {run.campaign}",
            "the instrument is not qualified for this sitting",
            "",
            "Run inference-energy qualify, or inference-energy measure, which does it",
        )
    qualified = qualify.read(path)
    companion = CodeCarbonCompanion([devices.lead] if devices.kind == "gpu" else [], measurement.codecarbon_country)
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
        sitting=qualified.sitting,
        qualification=path.name,
    )
    prompts = prompts_for(run.levels, resolved.models[run.levels.model], resolved.campaign.seed)
    origin = Origin(
        request.launcher,
        request.started_s,
        request.parent_n_device_files,
        request.parent_cuda_initialised,
        command=request.command,
    )
    return measure_run(run, resolved, bench, origin, prompts, lambda: _engine(run, resolved, prompts, devices))


def _engine(run: Run, resolved: ResolvedCampaign, prompts: Prompts, devices: DeviceSet) -> Engine:
    from inference_energy.measure.engines.transformers import TransformersEngine

    return TransformersEngine(
        run.levels,
        resolved.models[run.levels.model],
        prompts,
        resolved.campaign.seed,
        "cuda" if devices.kind == "gpu" else "cpu",
    )
