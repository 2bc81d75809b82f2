"""Edges on ticks, uncertainty by hand and by simulation, RAPL's counters."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from inference_energy.errors import MeterError
from inference_energy.measure.fakes import FakeCounter, FakePower, FakeSampler, VirtualClock
from inference_energy.measure.meter import Edge, RaplCounter, edge, rapl_packages, uncertainty_j
from inference_energy.measure.sampler import integrate_j


def _counter(clock: VirtualClock, power_w: float = 300.0, **arguments: float) -> FakeCounter:
    return FakeCounter(clock, [FakePower(clock, power_w)], **arguments)


# --- edges -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("late_s", [0.0, 0.001, 0.03, 0.0771, 0.0999])
@pytest.mark.parametrize("latency_s", [0.0001, 0.004, 0.02])
def test_an_edge_is_the_next_tick_to_within_half_its_blur(late_s: float, latency_s: float) -> None:
    clock = VirtualClock(50.0 + late_s)
    counter = _counter(clock, latency_s=latency_s, phase_s=0.02)
    found = edge(counter)
    ticks = 0.02 + 0.1 * np.arange(498, 505)
    off_s = float(np.abs(ticks - found.time_s).min())
    assert off_s <= found.blur_s[0] / 2 + 1e-9
    assert found.blur_s[0] <= latency_s + 0.001 + 1e-9  # it sleeps a hundredth of a period after a fast read
    assert found.energy_j == counter.shown_j(clock.now())
    assert 50.0 + late_s <= found.time_s <= 50.0 + late_s + 0.1 + 2 * latency_s


def test_energy_between_two_edges_is_exact_in_whole_periods() -> None:
    clock = VirtualClock(10.0)
    counter = _counter(clock, 250.0)
    opened = edge(counter)
    clock.sleep(3.21)
    closed = edge(counter)
    assert closed.energy_j[0] - opened.energy_j[0] == pytest.approx(250.0 * 3.3, abs=0.0011)
    assert closed.time_s - opened.time_s == pytest.approx(3.3, abs=0.004)


@pytest.mark.parametrize("latency_s", [0.0002, 0.004])
@pytest.mark.parametrize("late_s", [0.0, 0.013, 0.051, 0.09])
def test_every_device_has_an_edge_on_its_own_tick(latency_s: float, late_s: float) -> None:
    clock = VirtualClock(20.0 + late_s)
    powers = [FakePower(clock, power_w) for power_w in (700.0, 80.0, 300.0)]
    phases_s = [0.01, 0.055, 0.011]
    counter = FakeCounter(clock, powers, latency_s=latency_s, phase_s=phases_s)
    found = edge(counter)
    for device, phase_s in enumerate(phases_s):
        off_s = found.device_time_s[device] - phase_s
        assert abs(off_s / 0.1 - round(off_s / 0.1)) * 0.1 <= found.blur_s[device] / 2 + 1e-9
        assert found.blur_s[device] <= 3 * latency_s + 0.001 + 1e-9  # three devices are read in turn
        tick_s = phase_s + 0.1 * round(off_s / 0.1)
        assert found.energy_j[device] == pytest.approx(powers[device].energy_j(tick_s), abs=0.001)
    assert found.time_s == max(found.device_time_s)
    assert clock.now() - (20.0 + late_s) <= 0.1 + 8 * latency_s


def test_a_device_that_ticked_is_read_no_more() -> None:
    clock = VirtualClock(1.0)
    counter = FakeCounter(clock, [FakePower(clock, 100.0)] * 2, phase_s=[0.02, 0.08])
    asked: list[int] = []
    read_one = counter.read_one
    counter.read_one = lambda device: (asked.append(device), read_one(device))[1]  # type: ignore[method-assign,func-returns-value]
    found = edge(counter)
    assert asked[:4] == [0, 1, 0, 1]
    assert set(asked[asked.index(0) + 10 :]) == {1}
    assert found.blur_s[1] == pytest.approx(0.004)  # the last one alone is read twice as often


def test_a_device_that_stands_still_is_named() -> None:
    clock = VirtualClock()
    counter = FakeCounter(clock, [FakePower(clock, 100.0), FakePower(clock, 0.0)])
    with pytest.raises(MeterError, match=r"device 1: the counter stood still for 2\.0 s"):
        edge(counter)


def test_without_ticks_the_counter_is_read_at_once() -> None:
    clock = VirtualClock(7.33)
    counter = FakeCounter(clock, [FakePower(clock, 100.0)] * 2, ticks=False)
    assert edge(counter) == Edge([7.332] * 2, [0.004] * 2, counter.shown_j(7.332))
    assert clock.now() == pytest.approx(7.334)


# --- uncertainty -----------------------------------------------------------------------------------

EXAMPLE = {"power_w": 400.0, "tail_power_w": 125.0, "blur_s": 0.004, "resolution_j": 0.001, "period_s": 0.1}


def test_the_example_of_the_methodology_by_hand() -> None:
    aligned = uncertainty_j(**EXAMPLE, ticks=True, sample_period_s=0.025)
    assert aligned == pytest.approx(math.sqrt(1.6**2 / 6 + 1e-6 / 6 + 6.875**2 / 12))
    assert aligned == pytest.approx(2.0893, abs=1e-4)
    unaligned = uncertainty_j(**EXAMPLE, ticks=False, sample_period_s=0.025)
    assert unaligned == pytest.approx(40 / math.sqrt(6), rel=1e-6)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"power_w": 600.0, "tail_power_w": 600.0, "resolution_j": 0.0}, 600 * 0.004 / math.sqrt(6)),
        ({"power_w": 0.0, "tail_power_w": 0.0, "resolution_j": 6.0}, math.sqrt(6)),
        ({"blur_s": 0.0, "resolution_j": 0.0, "tail_power_w": 520.0}, 120 * 0.025 / math.sqrt(12)),
        ({"blur_s": 0.0, "resolution_j": 0.0, "tail_power_w": 520.0, "n_steps": 2}, 120 * 0.025 / math.sqrt(6)),
    ],
)
def test_each_term_alone(changes: dict[str, float], expected: float) -> None:
    assert uncertainty_j(**{**EXAMPLE, **changes}, ticks=True, sample_period_s=0.025) == pytest.approx(expected)


def _simulated(rng: np.random.Generator, *, ticks: bool, latency_s: float, tail_w: float) -> tuple[float, float]:
    """Error of one window's energy against the truth, and its stated uncertainty."""
    clock = VirtualClock(rng.uniform(0, 10))
    power = FakePower(clock, tail_w)
    counter = FakeCounter(clock, [power], latency_s=latency_s, phase_s=rng.uniform(0, 0.1), ticks=ticks)
    sampler = FakeSampler(counter)
    sampler.start()
    clock.sleep(0.3 + rng.uniform(0, 0.1))
    power.draw(400.0)
    clock.sleep(0.2)
    opened = edge(counter)
    clock.sleep(rng.uniform(1.0, 1.2))
    ended_s = clock.now()
    if ticks:
        power.draw(tail_w)
    closed = edge(counter)
    power.draw(tail_w)
    clock.sleep(0.1)
    trace = sampler.stop()
    tail_j = integrate_j(trace.time_s, trace.power_instant_w[0], ended_s, closed.time_s) if ticks else 0.0
    assert tail_j is not None
    found_j = closed.energy_j[0] - opened.energy_j[0] - tail_j
    until_s = ended_s if ticks else closed.time_s
    stated_j = uncertainty_j(
        power_w=400.0,
        tail_power_w=tail_w,
        blur_s=max(*opened.blur_s, *closed.blur_s),
        resolution_j=counter.resolution_j,
        period_s=counter.period_s,
        ticks=ticks,
        sample_period_s=0.025,
    )
    return found_j - (power.energy_j(until_s) - power.energy_j(opened.time_s)), stated_j


@pytest.mark.parametrize(
    ("ticks", "latency_s", "tail_w"),
    [(True, 0.004, 125.0), (True, 0.004, 400.0), (True, 0.02, 300.0), (True, 0.0002, 80.0), (False, 0.001, 125.0)],
)
def test_the_stated_uncertainty_covers_the_error_and_is_no_excuse(ticks: bool, latency_s: float, tail_w: float) -> None:
    rng = np.random.default_rng(7)
    errors = [_simulated(rng, ticks=ticks, latency_s=latency_s, tail_w=tail_w) for _ in range(400)]
    ratios = np.array([error / stated for error, stated in errors])
    assert np.sqrt(np.mean(ratios**2)) < 1.1  # the stated size is not too small
    assert np.sqrt(np.mean(ratios**2)) > 0.4  # nor padded
    assert np.mean(np.abs(ratios) <= 2) >= 0.95


# --- RAPL ------------------------------------------------------------------------------------------


def _package(root: Path, name: str, energy_uj: int, wrap_uj: int = 10_000_000) -> Path:
    folder = root / name
    folder.mkdir()
    (folder / "energy_uj").write_text(f"{energy_uj}\n")
    (folder / "max_energy_range_uj").write_text(f"{wrap_uj}\n")
    return folder


def test_rapl_reads_packages_and_leaves_out_their_parts(tmp_path: Path) -> None:
    first, second = _package(tmp_path, "intel-rapl:0", 1_500_000), _package(tmp_path, "intel-rapl:1", 250_000)
    _package(tmp_path, "intel-rapl:0:0", 99)
    (tmp_path / "intel-rapl:2").mkdir()  # a counter that cannot be read
    assert rapl_packages(tmp_path) == [first, second]
    counter = RaplCounter(tmp_path)
    assert counter.read().energy_j == [1.5, 0.25]
    assert (counter.n_devices, counter.read_one(1).energy_j) == (2, [0.25])


def test_rapl_undoes_wraps_of_each_package(tmp_path: Path) -> None:
    first, second = _package(tmp_path, "intel-rapl:0", 9_000_000), _package(tmp_path, "intel-rapl:1", 1_000_000)
    counter = RaplCounter(tmp_path)
    readings = [counter.read().energy_j]
    for one_uj, other_uj in ((500_000, 2_000_000), (8_000_000, 3_000_000), (1_000_000, 3_000_000)):
        (first / "energy_uj").write_text(str(one_uj))
        (second / "energy_uj").write_text(str(other_uj))
        readings.append(counter.read().energy_j)
    assert readings == [[9.0, 1.0], [10.5, 2.0], [18.0, 3.0], [21.0, 3.0]]


def test_no_rapl_is_an_error(tmp_path: Path) -> None:
    assert rapl_packages(tmp_path) == []
    with pytest.raises(MeterError, match="no readable energy counter"):
        RaplCounter(tmp_path)
