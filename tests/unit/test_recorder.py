"""From readings to intervals: edges, energies by hand, laps."""

from __future__ import annotations

import math

import numpy as np
import pytest

from inference_energy.measure.fakes import FakeCompanion, FakeCounter, FakePower, FakeSampler, VirtualClock
from inference_energy.measure.recorder import Recorder, shifted
from inference_energy.measure.sampler import empty_trace
from inference_energy.records import CodeCarbonEnergy, Interval, Trace

ZERO_S = 100.0


class Scene:
    """Two devices; the second draws 50 W throughout."""

    def __init__(self, *, ticks: bool = True, method: str = "fake", phases_s: tuple[float, float] = (0, 0)) -> None:
        self.clock = VirtualClock(ZERO_S)
        self.powers = [FakePower(self.clock, 100.0), FakePower(self.clock, 50.0)]
        self.counter = FakeCounter(self.clock, self.powers, ticks=ticks, phase_s=phases_s)
        self.counter.method = method
        self.sampler = FakeSampler(self.counter)
        self.companion = FakeCompanion(self.clock, self.powers[:1])
        self.sampler.start()
        self.recorder = Recorder(self.counter, self.companion)

    def work(self, power_w: float, duration_s: float) -> float:
        """Draw more for a while; returns when it ended."""
        self.powers[0].draw(power_w)
        self.clock.sleep(duration_s)
        self.powers[0].draw(100.0)
        return self.clock.now()

    def intervals(self, trace: Trace | None = None) -> list[Interval]:
        self.clock.sleep(0.2)
        return self.recorder.intervals(trace or self.sampler.stop(), self.companion.laps(), ZERO_S)


def test_an_interval_by_hand() -> None:
    scene = Scene()
    scene.recorder.open()  # on the tick at 0.1 s
    ended_s = scene.work(500.0, 1.96)
    scene.recorder.close("window", 3, ended_s, [0.98, 0.98])
    (interval,) = scene.intervals()
    assert (interval.phase, interval.index, interval.tokens, interval.codecarbon) == ("window", 3, None, None)
    assert interval.iteration_duration_s == [0.98, 0.98]
    assert interval.opened_s == pytest.approx(0.1, abs=0.004)
    assert interval.work_ended_s == pytest.approx(0.1 + 1.96, abs=0.009)
    assert interval.closed_s == pytest.approx(2.1, abs=0.004)
    tail_s = 2.1 - interval.work_ended_s
    spent = [a - b for a, b in zip(interval.counter_closed_j, interval.counter_opened_j, strict=True)]
    assert spent == [pytest.approx(500 * 1.96 + 100 * (2.0 - 1.96), abs=0.01), pytest.approx(50 * 2.0)]
    assert interval.energy_tail_j == [pytest.approx(100 * tail_s, abs=6), pytest.approx(50 * tail_s, abs=0.5)]
    assert interval.energy_power_instant_j == [pytest.approx(spent[0], abs=8), pytest.approx(100.0, abs=0.5)]
    mean_w, tail_w = spent[0] / 2.0, interval.energy_tail_j[0] / tail_s
    expected_j = math.sqrt((mean_w * 0.008) ** 2 / 6 + 1e-6 / 6 + ((mean_w - tail_w) * 0.025) ** 2 / 12)
    assert interval.uncertainty_j[0] == pytest.approx(expected_j, rel=0.02)  # two devices, each read every 8 ms


def test_each_device_has_an_interval_of_its_own_with_tails_on_both_sides() -> None:
    scene = Scene(phases_s=(0.02, 0.07))
    scene.recorder.open()  # on the ticks at 0.02 s and 0.07 s, or the next
    ended_s = scene.work(500.0, 1.96)
    scene.recorder.close("window", 0, ended_s, waited_s=0.25)
    (interval,) = scene.intervals()
    assert interval.waited_s == 0.25
    opened_s, closed_s = interval.device_opened_s, interval.device_closed_s
    assert opened_s == [pytest.approx(0.02, abs=0.004), pytest.approx(0.07, abs=0.003)]
    assert closed_s == [pytest.approx(2.12, abs=0.004), pytest.approx(2.07, abs=0.004)]
    assert opened_s is not None
    assert closed_s is not None
    assert (interval.opened_s, interval.closed_s) == (opened_s[1], closed_s[0])
    spent = [a - b for a, b in zip(interval.counter_closed_j, interval.counter_opened_j, strict=True)]
    assert spent == [pytest.approx(500 * 1.96 + 100 * (2.1 - 1.96), abs=0.01), pytest.approx(50 * 2.0, abs=0.01)]
    before_s, after_s = 0.05, closed_s[0] - interval.work_ended_s
    assert interval.energy_tail_j[0] == pytest.approx(100 * (before_s + after_s), abs=400 * 0.025)
    assert interval.energy_tail_j[1] == pytest.approx(50 * (closed_s[1] - interval.work_ended_s), abs=0.1)
    for device, power_w in enumerate((500.0, 50.0)):
        true_j = power_w * 1.96 + (100.0, 50.0)[device] * (interval.work_ended_s - interval.opened_s - 1.96)
        found_j = spent[device] - (interval.energy_tail_j[device] or 0.0)
        assert abs(found_j - true_j) < 2 * (interval.uncertainty_j[device] or 0.0)
    assert interval.energy_power_instant_j == [pytest.approx(spent[0], abs=15), pytest.approx(100.0, abs=0.3)]


def test_the_stated_uncertainty_of_several_devices_covers_their_errors_and_is_no_excuse() -> None:
    rng = np.random.default_rng(5)
    ratios = []
    for _ in range(150):
        scene = Scene(phases_s=(rng.uniform(0, 0.1), rng.uniform(0, 0.1)))
        scene.clock.sleep(0.3)
        scene.recorder.open()
        opened_s = scene.clock.now()
        scene.powers[1].draw(300.0)
        ended_s = scene.work(500.0, rng.uniform(1.0, 1.2))
        scene.powers[1].draw(50.0)
        scene.recorder.close("window", 0, ended_s)
        (interval,) = scene.intervals()
        for device, power in enumerate(scene.powers):
            opened_j, closed_j = interval.counter_opened_j[device], interval.counter_closed_j[device]
            assert opened_j is not None
            assert closed_j is not None
            found_j = closed_j - opened_j - (interval.energy_tail_j[device] or 0.0)
            true_j = power.energy_j(ended_s) - power.energy_j(ZERO_S + interval.opened_s)
            ratios.append((found_j - true_j) / (interval.uncertainty_j[device] or math.nan))
        assert opened_s - ZERO_S >= interval.opened_s
    assert 0.4 < float(np.sqrt(np.mean(np.square(ratios)))) < 1.1
    assert np.mean(np.abs(ratios) <= 2) >= 0.95


def test_waiting_makes_the_step_to_the_tail_no_smaller() -> None:
    """A window that waits half of its time is as uncertain about its tail as one that works throughout."""
    found = []
    for waiting_s in (0.0, 1.0):
        scene = Scene()
        scene.recorder.open()
        scene.clock.sleep(waiting_s)
        scene.recorder.close("window", 0, scene.work(500.0, 0.96), waited_s=waiting_s)
        found.append(scene.intervals()[0].uncertainty_j[0])
    assert found[1] == pytest.approx(found[0], rel=0.05)


def test_intervals_share_their_edges() -> None:
    scene = Scene()
    scene.recorder.open()
    for index in range(3):
        scene.recorder.close("window", index, scene.work(300.0, 0.55))
    first, second, third = scene.intervals()
    assert first.closed_s == second.opened_s
    assert second.closed_s == third.opened_s
    assert second.counter_opened_j == first.counter_closed_j
    assert scene.recorder.last_edge().time_s == ZERO_S + third.closed_s


def test_open_begins_anew() -> None:
    scene = Scene()
    scene.recorder.open()
    scene.recorder.close("warmup", 0, scene.work(300.0, 0.5))
    scene.clock.sleep(1.0)
    scene.recorder.open()
    scene.recorder.close("window", 0, scene.work(300.0, 0.5))
    warm_up, window = scene.intervals()
    assert window.opened_s - warm_up.closed_s == pytest.approx(1.1, abs=0.01)


def test_close_needs_open() -> None:
    with pytest.raises(RuntimeError, match="close without open"):
        Scene().recorder.close("window", 0, 0.0)
    with pytest.raises(RuntimeError, match="no interval yet"):
        Scene().recorder.last_edge()


def test_laps_begin_with_the_edge_after_follow() -> None:
    scene = Scene()
    scene.recorder.open()
    scene.recorder.close("warmup", 0, scene.work(300.0, 0.5))
    scene.recorder.follow()
    scene.recorder.open()
    for index in range(2):
        scene.recorder.close("window", index, scene.work(300.0, 0.5 + index))
    warm_up, *windows = scene.intervals()
    assert warm_up.codecarbon is None
    for window in windows:
        assert window.codecarbon is not None
        assert window.codecarbon.duration_s == pytest.approx(window.closed_s - window.opened_s, abs=0.005)


def test_where_codecarbon_is_the_counter_reading_it_is_the_lap() -> None:
    scene = Scene(ticks=False, method="codecarbon_estimate")
    scene.counter.read()
    scene.recorder.follow(n_laps_before=1)
    scene.recorder.open()
    scene.recorder.close("idle", 0, scene.clock.now())
    scene.recorder.close("load", 0, scene.clock.now())
    assert scene.companion.laps() == []  # none was asked for: each reading is one
    laps: list[CodeCarbonEnergy | None] = [
        CodeCarbonEnergy(duration_s=n, gpu_energy_j=0, cpu_energy_j=0, ram_energy_j=0) for n in range(4)
    ]
    intervals = scene.recorder.intervals(scene.sampler.stop(), laps, ZERO_S)
    assert [i.codecarbon and i.codecarbon.duration_s for i in intervals] == [2.0, 3.0]
    assert [i.uncertainty_j for i in intervals] == [[None, None]] * 2


def test_without_samples_power_tail_and_uncertainty_are_unknown() -> None:
    scene = Scene()
    scene.recorder.open()
    scene.recorder.close("window", 0, scene.work(300.0, 1.0))
    (interval,) = scene.intervals(empty_trace())
    unknown = [None, None]
    assert interval.energy_power_instant_j == interval.energy_power_average_j == unknown
    assert interval.energy_tail_j == interval.uncertainty_j == unknown
    assert interval.counter_closed_j[1] == pytest.approx(60.0, abs=0.1)


def test_a_lap_that_never_came_is_unknown() -> None:
    scene = Scene()
    scene.recorder.follow()
    scene.recorder.open()
    scene.recorder.close("window", 0, scene.work(300.0, 1.0))
    (interval,) = scene.recorder.intervals(scene.sampler.stop(), [None], ZERO_S)
    assert interval.codecarbon is None


def test_a_shifted_trace_counts_from_the_start() -> None:
    trace = Scene().sampler.stop().model_copy(update={"time_s": [100.0000012, 101.5], "slow_time_s": [103.0]})
    assert shifted(trace, ZERO_S).time_s == [0.0, 1.5]
    assert shifted(trace, ZERO_S).slow_time_s == [3.0]
