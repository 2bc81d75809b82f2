"""The machine and its devices: who they are, who uses them, and the lock that keeps others out."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from inference_energy import provenance
from inference_energy.errors import DeviceBusyError, MeterError
from inference_energy.measure.meter import RAPL_ROOT, Clock, Counter, NvmlCounter, RaplCounter, rapl_packages
from inference_energy.records import Device, Hardware


@dataclass(frozen=True)
class DeviceSet:
    """The devices that a meter sees.

    Attributes
    ----------
    kind : {"gpu", "cpu"}
        What does the work.
    handles : list
        NVML handles, in NVML's order; empty on a machine without a GPU.
    lead : int
        Index of the first device that takes part.
    """

    kind: str
    handles: list[Any] = field(default_factory=list)
    names: list[str] = field(default_factory=list)
    uuids: list[str] = field(default_factory=list)
    lead: int = 0
    driver: str | None = None

    @property
    def participates(self) -> list[bool]:
        """Whether each device takes part; one device does in this version."""
        return [index == self.lead for index in range(len(self.names))]


def find_devices(wanted: str) -> DeviceSet:
    """Every GPU that NVML sees, or the CPU.

    Parameters
    ----------
    wanted : {"auto", "cpu", "gpu"}
        ``auto`` takes the first GPU where there is one.

    Raises
    ------
    MeterError
        If a GPU is wanted and NVML finds none.
    """
    if wanted != "cpu":
        gpus = _find_gpus()
        if gpus is not None:
            return gpus
        if wanted == "gpu":
            raise MeterError(
                "device: gpu",
                "NVML finds no GPU",
                "an NVIDIA driver and at least one GPU",
                "Run nvidia-smi to see why, or set measurement.device to cpu",
            )
    packages = rapl_packages() or [RAPL_ROOT]
    uuid = f"{provenance.host_hash()}/cpu"
    return DeviceSet(
        "cpu", names=[provenance.cpu_name()] * len(packages), uuids=[f"{uuid}{i}" for i in range(len(packages))]
    )


def _find_gpus() -> DeviceSet | None:
    import pynvml

    try:
        pynvml.nvmlInit()
        count = pynvml.nvmlDeviceGetCount()
    except pynvml.NVMLError:
        return None
    if count == 0:
        return None
    handles = [pynvml.nvmlDeviceGetHandleByIndex(i) for i in range(count)]
    uuids = [pynvml.nvmlDeviceGetUUID(handle) for handle in handles]
    names = [pynvml.nvmlDeviceGetName(handle) for handle in handles]
    return DeviceSet("gpu", handles, names, uuids, _first_visible(uuids), pynvml.nvmlSystemGetDriverVersion())


def _first_visible(uuids: list[str]) -> int:
    """NVML index of the GPU that CUDA will call 0, as far as the environment tells."""
    first = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")[0].strip()
    if first.isdigit() and int(first) < len(uuids):
        return int(first)
    return next((i for i, uuid in enumerate(uuids) if first and uuid.startswith(first)), 0)


def make_counter(devices: DeviceSet, clock: Clock) -> Counter | None:
    """The counter of these devices; None where only CodeCarbon can estimate."""
    counter: Counter
    if devices.kind == "gpu":
        counter = NvmlCounter(devices.handles)
    elif rapl_packages():
        counter = RaplCounter()
    else:
        return None
    counter.clock = clock
    return counter


def describe(devices: DeviceSet) -> Hardware:
    """The machine as a record keeps it."""
    n_cpus = os.cpu_count() or 1
    counted = f"{len(devices.names)} x " if len(devices.names) > 1 and devices.kind == "gpu" else ""
    described = [
        Device(
            name=name,
            uuid_hash=provenance.short_hash(uuid),
            participates=participates,
            power_limit_w=_power_limit_w(devices, i),
            memory_total_bytes=_memory_bytes(devices, i),
        )
        for i, (name, uuid, participates) in enumerate(
            zip(devices.names, devices.uuids, devices.participates, strict=True)
        )
    ]
    return Hardware(
        host=provenance.host_hash(),
        description=f"{counted}{devices.names[0]}, {n_cpus}-core host",
        cpu_name=provenance.cpu_name(),
        n_cpus=n_cpus,
        memory_total_bytes=psutil.virtual_memory().total,
        devices=described,
    )


def _power_limit_w(devices: DeviceSet, index: int) -> float | None:
    if not devices.handles:
        return None
    import pynvml

    return float(pynvml.nvmlDeviceGetEnforcedPowerLimit(devices.handles[index])) / 1000


def _memory_bytes(devices: DeviceSet, index: int) -> int | None:
    if not devices.handles:
        return None
    import pynvml

    return int(pynvml.nvmlDeviceGetMemoryInfo(devices.handles[index]).total)


def require_idle(devices: DeviceSet, clock: Clock, wait_s: float = 5.0) -> None:
    """Wait for processes of an earlier run to go; refuse if any remains.

    Raises
    ------
    DeviceBusyError
        Names the GPU and the processes.
    """
    if not devices.handles:
        return
    import pynvml

    deadline_s = clock.now() + wait_s
    while True:
        running = {i: pynvml.nvmlDeviceGetComputeRunningProcesses(handle) for i, handle in enumerate(devices.handles)}
        busy = {i: processes for i, processes in running.items() if processes and devices.participates[i]}
        if not busy:
            return
        if clock.now() > deadline_s:
            index, processes = next(iter(busy.items()))
            pids = ", ".join(str(process.pid) for process in processes)
            raise DeviceBusyError(
                f"GPU {index} ({devices.names[index]})",
                f"other processes use it: {pids}",
                "a GPU of one's own: what they draw would be counted as ours",
                "End them, or choose another GPU with CUDA_VISIBLE_DEVICES",
            )
        clock.sleep(0.1)


@contextlib.contextmanager
def lock(devices: DeviceSet, holder: str, wait_s: float, clock: Clock) -> Iterator[None]:
    """Hold the measured device for one run, so that no other campaign measures on it.

    The lock ends with the process, however that ends.

    Raises
    ------
    DeviceBusyError
        If another run still holds it after `wait_s` seconds; names that run.
    """
    path = Path(tempfile.gettempdir()) / f"inference-energy-{provenance.short_hash(devices.uuids[devices.lead])}.lock"
    with path.open("a+", encoding="utf-8") as file:
        deadline_s = clock.now() + wait_s
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if clock.now() >= deadline_s:
                    file.seek(0)
                    raise DeviceBusyError(
                        f"{devices.names[devices.lead]} ({path})",
                        f"another run holds it: {file.read().strip() or 'unknown'}",
                        "one run at a time",
                        "Wait for it, or end it",
                    ) from None
                clock.sleep(0.05)
        file.truncate(0)
        file.write(json.dumps({"run": holder, "pid": os.getpid(), "since": provenance.now_utc()}))
        file.flush()
        try:
            yield
        finally:  # helpers forked meanwhile share the open file: closing it here is not enough
            fcntl.flock(file, fcntl.LOCK_UN)
