"""A stand-in for pynvml: GPUs whose counter grows by the time, put into ``sys.modules``.

A handle is the GPU's index. Nothing of NVIDIA's is needed, so helper processes can be forked with it.
"""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass, field
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest


class NVMLError(Exception):
    """What pynvml raises."""


@dataclass
class FakeGpu:
    """One GPU; a quantity of None is not supported there."""

    power_w: float = 100.0
    name: str = "NVIDIA H200"
    pids: list[int] = field(default_factory=list)
    temperature_c: int | None = 40
    has_power: bool = True


def install(monkeypatch: pytest.MonkeyPatch, gpus: list[FakeGpu] | None) -> None:
    """Let ``import pynvml`` find these GPUs; None: no driver."""
    module: Any = ModuleType("pynvml")
    module.NVMLError = NVMLError
    for name in ("POWER_INSTANT", "POWER_AVERAGE"):
        setattr(module, f"NVML_FI_DEV_{name}", name)
    module.NVML_CLOCK_SM, module.NVML_CLOCK_MEM, module.NVML_TEMPERATURE_GPU = "sm", "memory", 0

    def init() -> None:
        if gpus is None:
            raise NVMLError("driver not loaded")

    def temperature(handle: int, _: int) -> int:
        value = (gpus or [])[handle].temperature_c
        if value is None:
            raise NVMLError("not supported")
        return value

    def fields(handle: int, wanted: list[str]) -> list[Any]:
        gpu = (gpus or [])[handle]
        watts = {"POWER_INSTANT": gpu.power_w, "POWER_AVERAGE": gpu.power_w + 1}
        return [
            SimpleNamespace(nvmlReturn=0 if gpu.has_power else 3, value=SimpleNamespace(uiVal=int(1000 * watts[name])))
            for name in wanted
        ]

    known = gpus or []
    module.nvmlInit = init
    module.nvmlDeviceGetCount = lambda: len(known)
    module.nvmlDeviceGetHandleByIndex = lambda index: index
    module.nvmlDeviceGetHandleByUUID = lambda uuid: int(uuid.removeprefix("GPU-").removesuffix("aaa"))
    module.nvmlDeviceGetUUID = lambda handle: f"GPU-{handle}aaa"
    module.nvmlDeviceGetName = lambda handle: known[handle].name
    module.nvmlSystemGetDriverVersion = lambda: "999.1"
    module.nvmlDeviceGetEnforcedPowerLimit = lambda handle: 700_000
    module.nvmlDeviceGetMemoryInfo = lambda handle: SimpleNamespace(total=10**9)
    module.nvmlDeviceGetComputeRunningProcesses = lambda handle: [SimpleNamespace(pid=p) for p in known[handle].pids]
    module.nvmlDeviceGetTotalEnergyConsumption = lambda handle: int(1000 * known[handle].power_w * time.monotonic())
    module.nvmlDeviceGetFieldValues = fields
    module.nvmlDeviceGetClockInfo = lambda handle, kind: {"sm": 1980, "memory": 3201}[kind]
    module.nvmlDeviceGetTemperature = temperature
    module.nvmlDeviceGetUtilizationRates = lambda handle: SimpleNamespace(gpu=50 + handle)
    module.nvmlDeviceGetCurrentClocksThrottleReasons = lambda handle: 4 * handle
    monkeypatch.setitem(sys.modules, "pynvml", module)
