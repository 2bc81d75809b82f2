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
from inference_energy.measure.fakes import FakeCounter, FakePower, VirtualClock
from inference_energy.measure.qualify import Qualification, observe

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
    known = DeviceSet("gpu", names=["other", "NVIDIA H200"], uuids=["a", "b"], lead=1)
    assert qualify.require_known(known, HARDWARE_YAML) is not None
    with pytest.raises(ConfigError, match=r"no entry for 'NVIDIA H2000'.*Did you mean NVIDIA H200\?"):
        qualify.require_known(DeviceSet("gpu", names=["NVIDIA H2000"], uuids=["a"]), HARDWARE_YAML)
    assert qualify.require_known(CPU, HARDWARE_YAML) is None


def test_a_machine_without_a_counter_is_qualified_as_an_estimate(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(qualify, "make_counter", lambda devices, clock: None)
    path = qualify.qualify(tmp_path, "c", CPU, Measurement(), HARDWARE_YAML)
    found = qualify.read(path)
    assert found.energy_method == "codecarbon_estimate"
    assert path.name == f"{found.sitting}.json"
    assert found.cpu_benchmark_s > 0


def test_a_refused_instrument_leaves_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(qualify, "make_counter", lambda devices, clock: None)
    with pytest.raises(MeterError):
        qualify.qualify(tmp_path, "c", CPU, Measurement(window_min_s=1.0), HARDWARE_YAML)
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
