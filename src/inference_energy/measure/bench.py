"""What a run is measured with, and how its process came to be."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from inference_energy.measure.devices import DeviceSet
from inference_energy.measure.meter import Clock, Counter
from inference_energy.measure.sampler import Companion, Sampler
from inference_energy.records import DeviceCheck, Hardware, SharedProcess, Start


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
    shared: SharedProcess | None = None

    @property
    def follows(self) -> bool:
        """Whether an earlier run of the process has started the engine."""
        return self.shared is not None and self.shared.position > 0


@dataclass
class Progress:
    """What a run has reached; an out-of-memory run ends early and keeps it.

    Attributes
    ----------
    load_started_s : float or None
        On the host's clock; None where an earlier run of the process has loaded.
    """

    status: Literal["ok", "out_of_memory"] = "ok"
    detail: str | None = None
    start: Start | None = None
    checks: list[DeviceCheck] = field(default_factory=list)
    bare_idle_s: float = 0.0
    load_started_s: float | None = None
    first_iteration_s: float | None = None
