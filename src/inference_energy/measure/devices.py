"""The machine and its devices: who they are, who claims and uses them, and proof of it."""

from __future__ import annotations

import contextlib
import dataclasses
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import psutil

from inference_energy import provenance
from inference_energy.errors import DeviceBusyError, MeterError
from inference_energy.measure.locks import hold
from inference_energy.measure.meter import RAPL_ROOT, Clock, Counter, NvmlCounter, RaplCounter, rapl_packages
from inference_energy.records import Device, DeviceCheck, DeviceState, Hardware


@dataclass(frozen=True)
class Visible:
    """All devices of the machine, in the driver's order."""

    handles: list[Any]
    names: list[str]
    uuids: list[str]


@dataclass(frozen=True)
class DeviceSet:
    """The devices that a meter sees: those that take part, and others that are metered beside them.

    Attributes
    ----------
    kind : {"gpu", "cpu"}
        What does the work.
    handles : list
        NVML handles, in NVML's order; empty on a machine without a GPU.
    takes_part : tuple of int
        Indices of the devices that take part.
    claimable : tuple of int
        Indices of the devices that a run may claim; a claimed set has none.
    machine : Visible, optional
        All devices of the machine where the set holds only some.
    """

    kind: str
    handles: list[Any] = field(default_factory=list)
    names: list[str] = field(default_factory=list)
    uuids: list[str] = field(default_factory=list)
    takes_part: tuple[int, ...] = (0,)
    claimable: tuple[int, ...] = ()
    driver: str | None = None
    machine: Visible | None = None

    @property
    def lead(self) -> int:
        """Index of the first device that takes part."""
        return self.takes_part[0]

    @property
    def participates(self) -> list[bool]:
        """Whether each device takes part."""
        return [index in self.takes_part for index in range(len(self.names))]

    @property
    def visible(self) -> Visible:
        """All devices of the machine, metered or not."""
        return self.machine or Visible(self.handles, self.names, self.uuids)

    def view(self, metered: Sequence[int], n_working: int) -> DeviceSet:
        """Only the devices `metered`, of which the first `n_working` take part."""
        return dataclasses.replace(
            self,
            handles=[self.handles[index] for index in metered] if self.handles else [],
            names=[self.names[index] for index in metered],
            uuids=[self.uuids[index] for index in metered],
            takes_part=tuple(range(n_working)),
            claimable=(),
            machine=self.visible,
        )

    def only(self, index: int) -> DeviceSet:
        """One GPU alone; the packages of a CPU stay together."""
        return self.view([index], 1) if self.kind == "gpu" else self

    def reopened(self) -> DeviceSet:
        """The same devices with handles of the calling process; there are no handles on a CPU."""
        if not self.handles:
            return self
        import pynvml

        pynvml.nvmlInit()
        everyone = self.visible
        handles = {uuid: pynvml.nvmlDeviceGetHandleByUUID(uuid) for uuid in everyone.uuids}
        return dataclasses.replace(
            self,
            handles=[handles[uuid] for uuid in self.uuids],
            machine=Visible([handles[uuid] for uuid in everyone.uuids], everyone.names, everyone.uuids),
        )


def find_devices(wanted: str) -> DeviceSet:
    """Every GPU that NVML sees, or the CPU.

    Where ``CUDA_VISIBLE_DEVICES`` is set, only the GPUs it names may be claimed; empty, it hides all.

    Parameters
    ----------
    wanted : {"auto", "cpu", "gpu"}
        ``auto`` takes GPUs where there are any.

    Raises
    ------
    MeterError
        If a GPU is wanted and NVML finds none, or ``CUDA_VISIBLE_DEVICES`` names none of them.
    """
    if wanted != "cpu":
        gpus = _find_gpus()
        if gpus is not None:
            return gpus
        if wanted == "gpu":
            raise MeterError(
                "device: gpu",
                "NVML finds no GPU, or CUDA_VISIBLE_DEVICES hides all of them",
                "an NVIDIA driver and at least one GPU",
                "Run nvidia-smi to see why, or set measurement.device to cpu",
            )
    packages = rapl_packages() or [RAPL_ROOT]
    uuid = f"{provenance.host_hash()}/cpu"
    return DeviceSet(
        "cpu",
        names=[provenance.cpu_name()] * len(packages),
        uuids=[f"{uuid}{i}" for i in range(len(packages))],
        claimable=(0,),
    )


def _find_gpus() -> DeviceSet | None:
    import pynvml

    try:
        pynvml.nvmlInit()
        count = pynvml.nvmlDeviceGetCount()
    except pynvml.NVMLError:
        return None
    handles = [pynvml.nvmlDeviceGetHandleByIndex(i) for i in range(count)]
    uuids = [pynvml.nvmlDeviceGetUUID(handle) for handle in handles]
    names = [pynvml.nvmlDeviceGetName(handle) for handle in handles]
    claimable = _allowed(uuids)
    if not claimable:
        return None
    return DeviceSet("gpu", handles, names, uuids, claimable[:1], claimable, pynvml.nvmlSystemGetDriverVersion())


def _allowed(uuids: list[str]) -> tuple[int, ...]:
    """NVML indices of the GPUs that the environment lets us use, in NVML's order."""
    names = os.environ.get("CUDA_VISIBLE_DEVICES")
    if names is None or not uuids:
        return tuple(range(len(uuids)))
    chosen = [name.strip() for name in names.split(",")]
    if chosen in ([""], ["-1"]):  # how CUDA is told to see none
        return ()
    found = tuple(
        i for i, uuid in enumerate(uuids) if any(name == str(i) or (name and uuid.startswith(name)) for name in chosen)
    )
    if not found:
        raise MeterError(
            f"CUDA_VISIBLE_DEVICES={names}",
            "names no GPU of this machine",
            f"numbers from 0 to {len(uuids) - 1}, or UUIDs",
            "Correct it, or unset it to use every GPU",
        )
    return found


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
    """The machine and its metered devices, as a record keeps them."""
    n_cpus = os.cpu_count() or 1
    everyone = devices.visible.names
    counted = f"{len(everyone)} x " if len(everyone) > 1 and devices.kind == "gpu" else ""
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
        description=f"{counted}{everyone[0]}, {n_cpus}-core host",
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
    """Wait for processes of an earlier run to go from every claimed GPU; refuse if any remains.

    A claimed GPU that takes no part is metered because the run has the machine to itself: it must be free too.

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
        busy = {i: processes for i, processes in running.items() if processes}
        if not busy:
            return
        if clock.now() > deadline_s:
            index, processes = next(iter(busy.items()))
            pids = ", ".join(str(process.pid) for process in processes)
            raise DeviceBusyError(
                f"GPU {devices.visible.uuids.index(devices.uuids[index])} ({devices.names[index]})",
                f"other processes use it: {pids}",
                "a GPU of one's own: what they draw would be counted as ours",
                "End them, or choose another GPU with CUDA_VISIBLE_DEVICES",
            )
        clock.sleep(0.1)


# --- claims --------------------------------------------------------------------------------------


@contextlib.contextmanager
def claim(found: DeviceSet, n: int, alone: bool, holder: str, wait_s: float, clock: Clock) -> Iterator[DeviceSet]:
    """Hold `n` devices for one run, so that nobody else measures on them.

    A claim ends with the process, however that ends.

    Parameters
    ----------
    found : DeviceSet
        What :func:`find_devices` found.
    n : int
        Devices that take part: the first that are free. Processes on a CPU share it.
    alone : bool
        Hold every claimable device; those that take no part are metered too.
    holder : str
        Who claims, for others to read.
    wait_s : float
        How long to wait until enough devices are free.

    Yields
    ------
    DeviceSet
        The claimed devices only.

    Raises
    ------
    MeterError
        If there are fewer than `n` claimable devices.
    DeviceBusyError
        If fewer are free after `wait_s` seconds; names the runs that hold them.
    """
    claimable, n_locks = found.claimable, n
    if found.kind == "cpu":
        claimable, n_locks = found.takes_part, 1
    elif alone:
        n_locks = max(n, len(claimable))
    if n_locks > len(claimable):
        raise MeterError(
            holder,
            f"{n} GPUs are asked for, {len(claimable)} of {len(found.names)} may be claimed",
            "no more than that",
            "Measure it on a machine with more GPUs, or let CUDA_VISIBLE_DEVICES name more",
        )
    with hold([found.uuids[index] for index in claimable], n_locks, holder, wait_s, clock) as held:
        metered = [claimable[position] for position in held]
        yield found.view(metered, n) if found.kind == "gpu" else found


# --- proof ---------------------------------------------------------------------------------------


def check_devices(
    devices: DeviceSet, moment: Literal["before", "during", "after"], time_s: float, pid: int
) -> DeviceCheck:
    """Who works on every visible GPU, what it draws and how warm it is; no devices on a CPU.

    Parameters
    ----------
    time_s : float
        Now, on the clock that the record will tell it on.
    pid : int
        The run's process; what descends from it is the run's own too.
    """
    everyone = devices.visible
    working = {devices.uuids[index] for index in devices.takes_part}
    return DeviceCheck(
        moment=moment,
        time_s=time_s,
        devices=[
            _state(handle, uuid, uuid in devices.uuids, uuid in working, pid)
            for handle, uuid in zip(everyone.handles, everyone.uuids, strict=False)
        ],
    )


def _state(handle: Any, uuid: str, metered: bool, participates: bool, pid: int) -> DeviceState:
    import pynvml

    processes = quietly(pynvml.nvmlDeviceGetComputeRunningProcesses, handle)
    n_own = None if processes is None else sum(_is_own(process.pid, pid) for process in processes)
    # In a container, NVML may name the processes as the host does: then none of them is known here.
    if participates and processes and n_own == 0:
        n_own = 1
    return DeviceState(
        uuid_hash=provenance.short_hash(uuid),
        metered=metered,
        participates=participates,
        power_w=powers_w(handle)[0],
        temperature_c=temperature_c(handle),
        n_own_processes=n_own,
        n_other_processes=None if n_own is None else len(processes) - n_own,
    )


def _is_own(pid: int, root_pid: int) -> bool:
    """Whether `pid` is `root_pid` or descends from it."""
    if pid == root_pid:
        return True
    try:
        return any(parent.pid == root_pid for parent in psutil.Process(pid).parents())
    except psutil.Error:
        return False


def quietly(read: Callable[..., Any], *arguments: Any) -> Any:
    """What NVML answers; None where the driver does not know."""
    import pynvml

    try:
        return read(*arguments)
    except pynvml.NVMLError:
        return None


def powers_w(handle: Any) -> tuple[float | None, float | None]:
    """Instant power of a GPU and its average over a second, in watts."""
    import pynvml

    fields = [pynvml.NVML_FI_DEV_POWER_INSTANT, pynvml.NVML_FI_DEV_POWER_AVERAGE]
    values = quietly(pynvml.nvmlDeviceGetFieldValues, handle, fields) or []
    watts = [value.value.uiVal / 1000 if value.nvmlReturn == 0 else None for value in values] or [None, None]
    return watts[0], watts[1]


def temperature_c(handle: Any) -> float | None:
    """Temperature of a GPU."""
    import pynvml

    found = quietly(pynvml.nvmlDeviceGetTemperature, handle, pynvml.NVML_TEMPERATURE_GPU)
    return None if found is None else float(found)
