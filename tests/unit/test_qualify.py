"""Qualification: what an instrument is seen to do, what is refused, and how long a sitting lasts."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import pytest
import synthetic

from inference_energy import provenance
from inference_energy.config import Measurement
from inference_energy.errors import ConfigError, MeterError, RecordError
from inference_energy.measure import qualify
from inference_energy.measure.devices import DeviceSet
from inference_energy.measure.fakes import FakeCounter, FakePower, FakeSampler, VirtualClock
from inference_energy.measure.qualify import Qualification, observe
from inference_energy.measure.sampler import empty_trace

HARDWARE_YAML = synthetic.REPOSITORY / "config/hardware.yaml"
CPU = DeviceSet("cpu", names=["CPU"], uuids=["cpu0"])


def _counter(power_w: float = 80.0, **arguments: Any) -> FakeCounter:
    clock = VirtualClock()
    return FakeCounter(clock, [FakePower(clock, 0.0), FakePower(clock, power_w)], **arguments)


# --- what is seen ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("period_s", "resolution_j", "latency_s", "power_w"),
    [(0.1, 0.001, 0.004, 80.0), (0.1, 0.001, 0.0003, 123.4567), (0.02, 0.25, 0.001, 313.7), (0.25, 1.0, 0.01, 77.7)],
)
def test_the_instrument_is_seen_as_it_is(
    period_s: float, resolution_j: float, latency_s: float, power_w: float
) -> None:
    counter = _counter(power_w, period_s=period_s, resolution_j=resolution_j, latency_s=latency_s, phase_s=0.007)
    seen = observe(counter, lead=1)
    assert seen["period_s"] == pytest.approx(period_s, abs=latency_s / 2 + 1e-9)
    assert seen["period_min_s"] == pytest.approx(period_s, abs=1.5 * latency_s + 1e-9)
    assert seen["period_max_s"] == pytest.approx(period_s, abs=1.5 * latency_s + 1e-9)
    assert seen["read_latency_s"] == pytest.approx(latency_s)
    step_j = seen["resolution_j"]
    assert step_j is not None
    assert step_j / resolution_j == pytest.approx(round(step_j / resolution_j), abs=1e-6)
    if power_w != 80.0:  # equal steps of 8 J tell no finer resolution
        assert step_j == pytest.approx(resolution_j)
    assert seen["idle_power_w"] == pytest.approx(power_w, rel=0.01)


def test_a_counter_that_is_too_slow_is_refused() -> None:
    with pytest.raises(MeterError, match="4 new values in 2 s"):
        observe(_counter(period_s=0.5, latency_s=0.01), lead=1)


def test_a_counter_that_stops_while_observed_is_refused() -> None:
    with pytest.raises(MeterError, match="2 new values in 2 s"):
        observe(_counter(stops_at_s=0.35), lead=1)


# --- what is refused ---------------------------------------------------------------------------------


def _qualification(**changes: Any) -> Qualification:
    hardware = synthetic.campaign_records(synthetic.small_campaign())[0].hardware
    device = hardware.devices[0].model_copy(update={"uuid_hash": provenance.short_hash("cpu0"), "participates": True})
    hardware = hardware.model_copy(update={"devices": [device]})
    content = {
        "sitting": "20000101T000000-abcdef",
        "campaign": "synthetic",
        "made_at_utc": provenance.now_utc(),
        "machine": qualify.machine_hash(CPU),
        "hardware": hardware,
        "driver": None,
        "energy_method": "nvml_total_energy",
        "period_s": 0.1,
        "period_min_s": 0.09,
        "period_max_s": 0.11,
        "resolution_j": 0.001,
        "read_latency_s": 0.004,
        "idle_power_w": 78.0,
        "load_power_w": 690.0,
        "counter_over_power_ratio": 1.0,
        "launch_latency_s": 6e-6,
        "launch_latency_sampled_s": 6e-6,
        "cpu_benchmark_s": 0.01,
    }
    return Qualification.model_validate(content | changes)


@pytest.mark.parametrize(
    ("changes", "window_min_s", "words"),
    [
        ({"period_s": 0.15}, 2.9, r"a new value comes every 0\.150 s.*windows of at least 3\.0 s"),
        ({"energy_method": "codecarbon_estimate", "period_s": 1.0}, 1.9, r"windows of at least 2\.0 s"),
        ({"counter_over_power_ratio": 1.06}, 3.0, r"reads 1\.060 of integrated instant power"),
        ({"counter_over_power_ratio": 0.94}, 3.0, r"1 within 5%"),
    ],
)
def test_an_unfit_instrument_is_refused(changes: dict[str, Any], window_min_s: float, words: str) -> None:
    with pytest.raises(MeterError, match=words):
        qualify.require_fit(_qualification(**changes), Measurement(window_min_s=window_min_s))


@pytest.mark.parametrize(
    ("changes", "window_min_s"),
    [
        ({"period_s": 0.15}, 3.0),
        ({"energy_method": "codecarbon_estimate", "period_s": 1.0, "counter_over_power_ratio": None}, 2.0),
        ({"energy_method": "rapl", "period_s": 0.001, "counter_over_power_ratio": None}, 0.1),
        ({"counter_over_power_ratio": 1.04}, 3.0),
    ],
)
def test_a_fit_instrument_is_accepted(changes: dict[str, Any], window_min_s: float) -> None:
    qualify.require_fit(_qualification(**changes), Measurement(window_min_s=window_min_s))


def test_an_unknown_gpu_is_refused_and_a_cpu_needs_no_facts() -> None:
    known = DeviceSet("gpu", names=["other", "NVIDIA H200"], uuids=["a", "b"], takes_part=(1,))
    assert qualify.require_known(known, HARDWARE_YAML) is not None
    with pytest.raises(ConfigError, match=r"no entry for 'NVIDIA H2000'.*Did you mean NVIDIA H200\?"):
        qualify.require_known(DeviceSet("gpu", names=["NVIDIA H2000"], uuids=["a"]), HARDWARE_YAML)
    assert qualify.require_known(CPU, HARDWARE_YAML) is None


def test_a_machine_without_a_counter_is_qualified_as_an_estimate(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(qualify, "make_counter", lambda devices, clock: None)
    path = qualify.qualify(tmp_path, "c", CPU, Measurement(), HARDWARE_YAML, "20260101T000000-abcdef")
    found = qualify.read(path)
    assert found.energy_method == "codecarbon_estimate"
    uuid_hash = provenance.short_hash("cpu0")
    assert path.name == f"20260101T000000-abcdef.{uuid_hash[:6]}.json"
    assert found.sitting == "20260101T000000-abcdef"
    assert qualify.current(tmp_path, CPU) == path
    again = qualify.qualify(tmp_path, "c", CPU, Measurement(), HARDWARE_YAML, found.sitting)
    assert again != path  # records name the first: it stays
    assert qualify.read(path) == found
    assert qualify.current(tmp_path, CPU) == again
    assert found.cpu_benchmark_s > 0


def test_a_refused_instrument_leaves_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(qualify, "make_counter", lambda devices, clock: None)
    with pytest.raises(MeterError):
        qualify.qualify(tmp_path, "c", CPU, Measurement(window_min_s=1.0), HARDWARE_YAML, "s")
    assert list(tmp_path.iterdir()) == []


# --- sittings ----------------------------------------------------------------------------------------


def _kept(folder: Path, age_s: float = 0.0, **changes: Any) -> Path:
    found = _qualification(**changes)
    path = folder / f"{found.sitting}.json"
    path.write_text(found.model_dump_json())
    moment_s = time.time() - age_s
    os.utime(path, (moment_s, moment_s))
    return path


def test_a_sitting_goes_on_until_a_break(tmp_path: Path) -> None:
    assert qualify.current(tmp_path, CPU) is None
    path = _kept(tmp_path, age_s=qualify.SITTING_BREAK_S - 60)
    assert qualify.current(tmp_path, CPU) == path
    _kept(tmp_path, age_s=qualify.SITTING_BREAK_S + 1)
    assert qualify.current(tmp_path, CPU) is None


def test_another_machine_or_device_is_another_sitting(tmp_path: Path) -> None:
    _kept(tmp_path)
    assert qualify.current(tmp_path, DeviceSet("cpu", names=["CPU"], uuids=["cpu1"])) is None
    _kept(tmp_path, machine="000000000000")
    assert qualify.current(tmp_path, CPU) is None


def test_another_boot_is_another_sitting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _kept(tmp_path)
    monkeypatch.setattr(provenance, "boot_id", lambda: "another")
    assert qualify.current(tmp_path, CPU) is None


def test_the_latest_sitting_counts(tmp_path: Path) -> None:
    _kept(tmp_path, sitting="20000101T000000-abcdef")
    later = _kept(tmp_path, sitting="20000102T000000-abcdef")
    assert qualify.current(tmp_path, CPU) == later


# --- several GPUs ------------------------------------------------------------------------------------

GPUS = DeviceSet("gpu", names=["g"] * 4, uuids=[f"GPU-{i}" for i in range(4)], claimable=(0, 1, 2, 3))


def _kept_of(folder: Path, index: int, *, sitting: str = "20260101T000000-abcdef", age_s: float = 0.0) -> Path:
    hardware = _qualification().hardware
    device = hardware.devices[0].model_copy(update={"uuid_hash": provenance.short_hash(f"GPU-{index}")})
    changes = {"machine": qualify.machine_hash(GPUS), "hardware": hardware.model_copy(update={"devices": [device]})}
    path = _kept(folder, age_s, sitting=sitting, **changes)
    return path.rename(folder / f"{sitting}.{device.uuid_hash[:6]}.json")


def test_each_gpu_has_a_qualification_of_its_own_in_a_sitting_they_share(tmp_path: Path) -> None:
    first, third = _kept_of(tmp_path, 0), _kept_of(tmp_path, 2)
    assert qualify.current(tmp_path, GPUS.only(0)) == first
    assert qualify.current(tmp_path, GPUS.only(2)) == third
    assert qualify.current(tmp_path, GPUS.only(1)) is None
    assert qualify.current(tmp_path, GPUS.view([1, 2], 2)) is None  # the lead counts
    assert qualify.machine_hash(GPUS.only(1)) == qualify.machine_hash(GPUS)
    assert qualify.sitting_of(tmp_path, GPUS.only(1)) == "20260101T000000-abcdef"
    assert qualify.new_sitting(tmp_path, GPUS.only(1)) == "20260101T000000-abcdef"


def test_a_sitting_goes_on_while_any_gpu_is_used(tmp_path: Path) -> None:
    idle = _kept_of(tmp_path, 0, age_s=qualify.SITTING_BREAK_S + 600)
    used = _kept_of(tmp_path, 1, age_s=60)
    assert qualify.current(tmp_path, GPUS.only(0)) == idle
    os.utime(used, (0, 0))
    assert qualify.current(tmp_path, GPUS.only(0)) is None
    assert qualify.sitting_of(tmp_path, GPUS) is None


def test_qualifications_of_an_earlier_sitting_do_not_count(tmp_path: Path) -> None:
    _kept_of(tmp_path, 0, sitting="20260101T000000-abcdef")
    later = _kept_of(tmp_path, 1, sitting="20260102T000000-abcdef")
    assert qualify.current(tmp_path, GPUS.only(0)) is None
    assert qualify.current(tmp_path, GPUS.only(1)) == later


def test_processes_that_begin_at_once_share_the_sitting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    begun = iter(range(10))
    monkeypatch.setattr(provenance, "now_utc", lambda: f"2026-01-01T00:00:0{next(begun)}+00:00")
    folder = tmp_path / "qualification"
    names = {qualify.new_sitting(folder, GPUS.only(index)) for index in range(4)}
    assert names == {f"20260101T000000-{qualify.machine_hash(GPUS)[:6]}"}
    elsewhere = DeviceSet("gpu", names=["g"], uuids=["GPU-x"])
    assert qualify.new_sitting(folder, elsewhere).endswith(qualify.machine_hash(elsewhere)[:6])
    os.utime(folder / ".sitting", (0, 0))
    assert qualify.new_sitting(folder, GPUS).startswith("20260101T00000")
    assert qualify.new_sitting(folder, GPUS) not in names


def test_a_damaged_qualification_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    path.write_text("{")
    with pytest.raises(RecordError, match="is no qualification"):
        qualify.read(path)


def test_the_lag_is_where_power_has_fallen_half_way() -> None:
    time_s = [i * 0.025 for i in range(80)]
    ended_s, lag_s = 1.0, 0.045
    power_w = [500.0 if t < ended_s + lag_s else 120.0 for t in time_s]
    found = qualify.lag_s(time_s, power_w, ended_s)
    assert found == pytest.approx(lag_s, abs=0.0125)  # half a sample
    ramp = [500.0 - 380.0 * min(1.0, max(0.0, (t - ended_s) / 0.2)) for t in time_s]
    assert qualify.lag_s(time_s, ramp, ended_s) == pytest.approx(0.1, abs=1e-9)


def test_a_trace_that_does_not_show_the_fall_has_no_lag() -> None:
    time_s = [i * 0.025 for i in range(80)]
    assert qualify.lag_s(time_s, [500.0] * 80, 1.0) is None
    assert qualify.lag_s(time_s, [None] * 80, 1.0) is None
    assert qualify.lag_s(time_s, [500.0] * 80, 5.0) is None


def test_a_load_in_pieces_is_judged_by_all_of_them() -> None:
    clock = VirtualClock(5.0)
    power = FakePower(clock, 80.0)
    counter = FakeCounter(clock, [power], phase_s=0.03)
    sampler = FakeSampler(counter)
    sampler.start()
    pieces = []
    for fall_s in (0.02, 0.3, 0.05):  # how long power stays up after the work: one is an outlier
        opened = counter.next_edge()
        power.draw(600.0)
        clock.sleep(1.7)
        ended_s = clock.now()
        clock.sleep(fall_s)
        power.draw(120.0)
        closed = counter.next_edge()
        clock.sleep(qualify.SETTLE_S)
        pieces.append(qualify.Piece(opened, ended_s, closed, clock.now()))
    seen = qualify.judged(pieces, sampler.stop(), 0)
    assert seen["power_lag_s"] == pytest.approx(0.05, abs=0.02)
    assert seen["counter_over_power_ratio"] == pytest.approx(1.0, abs=0.02)
    assert seen["load_power_w"] == pytest.approx(585, abs=15)


def test_without_samples_the_load_tells_the_counters_power_alone() -> None:
    clock = VirtualClock()
    counter = FakeCounter(clock, [FakePower(clock, 600.0)])
    opened = counter.next_edge()
    clock.sleep(1.0)
    piece = qualify.Piece(opened, clock.now(), counter.next_edge(), clock.now())
    trace = empty_trace().model_copy(update={"power_instant_w": [[]]})
    seen = qualify.judged([piece], trace, 0)
    assert (seen["counter_over_power_ratio"], seen["power_lag_s"]) == (None, None)
    assert seen["load_power_w"] == pytest.approx(600, rel=0.01)
