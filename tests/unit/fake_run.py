"""A run on fakes, ready to be measured: its energy is known exactly."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from typing import Any

import synthetic

from inference_energy.config import ResolvedCampaign
from inference_energy.design import Run, expand
from inference_energy.measure.fakes import (
    FakeCompanion,
    FakeCounter,
    FakeEngine,
    FakePower,
    FakeSampler,
    VirtualClock,
    fake_bench,
)
from inference_energy.measure.run import Origin, measure_run
from inference_energy.measure.workload import prompts_for
from inference_energy.records import Record

IDLE_W, WORKING_W, WAITING_W = 80.0, 400.0, 120.0


@dataclass
class FakeRun:
    """One run; `engine`, `counter` and `origin` take arguments of the fakes.

    Two devices by default: the second takes no part and draws `IDLE_W` throughout. With `takes_part`, several
    work side by side. Each device's counter ticks at a moment of its own.
    """

    engine: dict[str, Any] = field(default_factory=dict)
    counter: dict[str, Any] = field(default_factory=dict)
    measurement: dict[str, Any] = field(default_factory=dict)
    levels: dict[str, Any] = field(default_factory=dict)
    durations_s: Any = None
    n_devices: int = 2
    takes_part: tuple[int, ...] = (0,)
    has_codecarbon: bool = True
    other_processes: int = 0
    begun_late_s: float = 0.0  # between the process's start and its first reading

    def __post_init__(self) -> None:
        self.clock = VirtualClock(1000.0 + self.begun_late_s)
        self.powers = [FakePower(self.clock, IDLE_W) for _ in range(self.n_devices)]
        study = {"question": "FAKE?", "fixed": {"model": "llama-3.2-1b", "batch_size": 4, **self.levels}}
        self.resolved: ResolvedCampaign = synthetic.small_campaign(
            studies={"fakes": study}, measurement={"window_min_s": 3.0, **self.measurement}
        )
        self.run: Run = expand(self.resolved)[0]

    def measured(self) -> Record:
        """Measure it."""
        phases_s = [0.0123 + 0.031 * device for device in range(self.n_devices)]
        counter = FakeCounter(self.clock, self.powers, **{"phase_s": phases_s, **self.counter})
        working = [self.powers[device] for device in self.takes_part]
        companion = FakeCompanion(self.clock, working, is_ready=self.has_codecarbon)
        sampler = FakeSampler(counter, other_processes=self.other_processes)
        bench = fake_bench(counter, takes_part=self.takes_part, sampler=sampler, companion=companion)
        prompts = prompts_for(self.run.levels, self.resolved.models["llama-3.2-1b"], 1)
        durations_s = itertools.cycle([0.7]) if self.durations_s is None else self.durations_s
        uuids = [f"GPU-fake-{device}" for device in self.takes_part]
        arguments = {"uuids": uuids, "working_w": WORKING_W, "waiting_w": WAITING_W, **self.engine}
        return measure_run(
            self.run,
            self.resolved,
            bench,
            Origin(self.run.levels.launcher, started_s=1000.0, parent_n_device_files=0, parent_cuda_initialised=False),
            prompts,
            lambda: FakeEngine(self.run.levels, working, self.clock, durations_s, **arguments),
        )

    def true_energy_j(self, opened_s: float, ended_s: float, device: int = 0) -> float:
        """What a device drew between two moments on the run's clock."""
        power = self.powers[device]
        return power.energy_j(1000.0 + ended_s) - power.energy_j(1000.0 + opened_s)
