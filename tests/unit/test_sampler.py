"""Integration by hand, and what runs beside a measured process: real helper processes, a fake driver."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from multiprocessing.connection import Connection
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import fake_pynvml
import psutil
import pytest
from fake_pynvml import FakeGpu

from inference_energy.errors import MeterError
from inference_energy.measure import sampler as sampler_module
from inference_energy.measure.devices import find_devices
from inference_energy.measure.meter import SystemClock
from inference_energy.measure.sampler import (
    CodeCarbonCompanion,
    CodeCarbonCounter,
    NoSampler,
    NvmlSampler,
    _Helper,
    empty_trace,
    integrate_j,
)

# --- integration -----------------------------------------------------------------------------------

TIMES = [0.0, 1.0, 2.0, 3.0, 4.0]
POWERS: list[float | None] = [100.0, 100.0, 200.0, 200.0, 0.0]


@pytest.mark.parametrize(
    ("start_s", "end_s", "expected"),
    [
        (0.0, 4.0, 100 + 150 + 200 + 100),
        (1.0, 2.0, 150),
        (1.5, 2.5, 0.5 * (150 + 200) / 2 + 100),  # from the middle of the ramp
        (1.25, 1.75, 0.5 * 150),  # between two samples
        (2.0, 2.0, 0),
        (-1.0, 1.0, 200),  # a missing end within two spacings: the nearest sample holds
        (3.0, 5.0, 100),
    ],
)
def test_integrals_by_hand(start_s: float, end_s: float, expected: float) -> None:
    assert integrate_j(TIMES, POWERS, start_s, end_s) == pytest.approx(expected)


def test_missing_samples_are_bridged() -> None:
    assert integrate_j(TIMES, [100.0, None, 200.0, None, 0.0], 0.0, 4.0) == pytest.approx(300 + 200)


@pytest.mark.parametrize(("start_s", "end_s"), [(-2.1, 1.0), (1.0, 6.1), (3.0, 2.0)])
def test_what_is_not_spanned_is_unknown(start_s: float, end_s: float) -> None:
    assert integrate_j(TIMES, POWERS, start_s, end_s) is None


@pytest.mark.parametrize("powers", [[None] * 5, [100.0, None, None, None, None]])
def test_too_few_samples_are_unknown(powers: list[float | None]) -> None:
    assert integrate_j(TIMES, powers, 0.0, 1.0) is None


# --- helper processes --------------------------------------------------------------------------------


def _echo(pipe: Connection) -> None:
    while True:
        question = pipe.recv()
        if question == "sleep":
            time.sleep(60)
        pipe.send(os.getpid() if question == "pid" else question)


def _gone(pid: int, within_s: float = 5.0) -> bool:
    deadline_s = time.monotonic() + within_s
    while time.monotonic() < deadline_s:
        if not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
            return True
        time.sleep(0.01)
    return False


def test_a_helper_lives_in_a_process_of_its_own_and_ends_on_demand() -> None:
    helper = _Helper(_echo)
    pid = helper.ask("pid", 5)
    assert pid != os.getpid()
    helper.end()
    assert _gone(pid)
    with pytest.raises(MeterError, match="ended before 'pid'"):
        helper.ask("pid", 5)


def test_a_helper_that_does_not_answer_is_an_error() -> None:
    helper = _Helper(_echo)
    with pytest.raises(MeterError, match=r"no answer to 'sleep' within 0\.1 s"):
        helper.ask("sleep", 0.1)
    helper.end()


def test_a_helper_dies_with_its_parent_however_that_ends() -> None:
    read, write = os.pipe()
    parent = os.fork()
    if parent == 0:
        os.write(write, f"{_Helper(_echo).ask('pid', 5)}\n".encode())
        time.sleep(60)
        os._exit(0)
    helper_pid = int(os.read(read, 100))
    assert psutil.pid_exists(helper_pid)
    os.kill(parent, signal.SIGKILL)
    os.waitpid(parent, 0)
    try:
        assert _gone(helper_pid)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(helper_pid, signal.SIGKILL)


# --- the NVML sampler --------------------------------------------------------------------------------


def _sampled(monkeypatch: pytest.MonkeyPatch, gpus: list[FakeGpu], duration_s: float = 0.4) -> Any:
    fake_pynvml.install(monkeypatch, gpus)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    sampler = NvmlSampler(find_devices("gpu"), period_s=0.01)
    sampler.start()
    time.sleep(duration_s)
    return sampler.stop()


def test_two_gpus_are_sampled_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    begun_s = time.monotonic()
    trace = _sampled(monkeypatch, [FakeGpu(100.0, pids=[1]), FakeGpu(250.0, pids=[1, 2, 3])])
    n, m = len(trace.time_s), len(trace.slow_time_s)
    assert 5 <= n <= 45  # at most one every 10 ms; fewer on a busy machine
    assert m == -(-n // 10)
    assert all(later > earlier for earlier, later in zip(trace.time_s, trace.time_s[1:], strict=False))
    assert begun_s <= trace.time_s[0] <= trace.time_s[-1] <= time.monotonic()
    assert trace.power_instant_w == [[100.0] * n, [250.0] * n]
    assert trace.power_average_w == [[101.0] * n, [251.0] * n]
    for device, power_w in enumerate((100.0, 250.0)):
        gained_j = trace.counter_j[device][-1] - trace.counter_j[device][0]
        assert gained_j == pytest.approx(power_w * (trace.time_s[-1] - trace.time_s[0]), rel=0.05)
    assert trace.sm_clock_mhz == [[1980.0] * m] * 2
    assert trace.memory_clock_mhz == [[3201.0] * m] * 2
    assert trace.gpu_utilisation_fraction == [[0.5] * m, [0.51] * m]
    assert trace.throttle_reasons == [[0] * m, [4] * m]
    assert trace.n_other_processes == [[0] * m, [3] * m]  # one is ours where we take part


def test_what_the_driver_does_not_know_is_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    trace = _sampled(monkeypatch, [FakeGpu(has_power=False, temperature_c=None)], 0.1)
    assert set(trace.power_instant_w[0]) == {None}
    assert set(trace.power_average_w[0]) == {None}
    assert set(trace.temperature_c[0]) == {None}
    assert None not in trace.counter_j[0]


def test_only_metered_gpus_are_sampled_and_all_visible_ones_are_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sampler_module, "CHECK_EVERY_S", 0.1)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    fake_pynvml.install(monkeypatch, [FakeGpu(100.0, pids=[999_999_999]), FakeGpu(250.0, pids=[os.getpid()])])
    sampler = NvmlSampler(find_devices("gpu").only(1), period_s=0.01)
    begun_s = time.monotonic()
    sampler.start()
    time.sleep(0.5)
    assert sampler.checks() == []
    trace = sampler.stop()
    assert {tuple(series) for series in trace.power_instant_w} == {(250.0,) * len(trace.time_s)}
    checks = sampler.checks()
    assert 2 <= len(checks) <= 6
    assert begun_s <= checks[0].time_s < checks[-1].time_s <= time.monotonic()
    for check in checks:
        assert check.moment == "during"
        assert [(d.metered, d.participates) for d in check.devices] == [(False, False), (True, True)]
        assert [(d.n_own_processes, d.n_other_processes) for d in check.devices] == [(0, 1), (1, 0)]
        assert [d.power_w for d in check.devices] == [100.0, 250.0]


def test_without_a_start_there_is_no_trace(monkeypatch: pytest.MonkeyPatch) -> None:
    fake_pynvml.install(monkeypatch, [FakeGpu()])
    assert NvmlSampler(find_devices("gpu"), 0.01).stop() == NoSampler().stop() == empty_trace()
    assert NvmlSampler(find_devices("gpu"), 0.01).checks() == NoSampler().checks() == []


# --- CodeCarbon --------------------------------------------------------------------------------------


class _Tracker:
    """CodeCarbon's tracker as far as we use it: one more kWh of each with every task."""

    fails = False

    def __init__(self, **options: Any) -> None:
        if _Tracker.fails:
            raise OSError("no")
        self.n, self.running = 0, False

    def start_task(self) -> None:
        assert not self.running
        self.running = True

    def stop_task(self) -> Any:
        assert self.running
        self.running = False
        self.n += 1
        return SimpleNamespace(duration=float(self.n), gpu_energy=1e-6, cpu_energy=2e-6 * self.n, ram_energy=1e-6)


@pytest.fixture
def companion(monkeypatch: pytest.MonkeyPatch) -> CodeCarbonCompanion:
    module: Any = ModuleType("codecarbon")
    module.OfflineEmissionsTracker = _Tracker
    monkeypatch.setitem(sys.modules, "codecarbon", module)
    return CodeCarbonCompanion([], "DEU")


def test_codecarbon_gives_a_lap_for_every_edge_in_joules(companion: CodeCarbonCompanion) -> None:
    companion.start()
    assert companion.ready()
    companion.lap()
    companion.lap()
    laps = companion.laps()
    assert [lap and lap.duration_s for lap in laps] == [1.0, 2.0]
    assert [lap and lap.cpu_energy_j for lap in laps] == pytest.approx([7.2, 14.4])
    assert [lap and lap.gpu_energy_j for lap in laps] == pytest.approx([3.6, 3.6])
    companion.lap()
    assert [lap and lap.duration_s for lap in companion.laps()] == [3.0]  # of the next run: they begin anew
    companion.end()
    assert companion.laps() == []


def test_codecarbon_that_does_not_start_costs_no_run(
    companion: CodeCarbonCompanion, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_Tracker, "fails", True)
    companion.start()
    assert companion.ready() is False
    companion.lap()
    assert companion.laps() == [None]


def test_codecarbon_as_a_counter_adds_cpu_and_ram(companion: CodeCarbonCompanion) -> None:
    companion.start()
    assert companion.ready()
    counter = CodeCarbonCounter(companion, SystemClock())
    assert [counter.read().energy_j[0] for _ in range(2)] == pytest.approx([7.2 + 3.6, 7.2 + 3.6 + 14.4 + 3.6])
    assert counter.ticks is False
    assert (counter.n_devices, counter.read_one(0).energy_j) == (1, [pytest.approx(28.8 + 21.6 + 3.6)])
    companion.laps()


def test_a_counter_without_a_reading_is_an_error(
    companion: CodeCarbonCompanion, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_Tracker, "fails", True)
    companion.start()
    with pytest.raises(MeterError, match="gave no reading"):
        companion.lap_now()
    companion.laps()


#: The real CodeCarbon on four fake GPUs of 100 to 400 W; the arguments are numbers of GPUs.
REAL_CODECARBON = """
import sys, time
import fake_pynvml, pytest
from types import SimpleNamespace
fake_pynvml.install(pytest.MonkeyPatch(), [fake_pynvml.FakeGpu(100.0 * (n + 1)) for n in range(4)])
nvml = sys.modules["pynvml"]  # and what CodeCarbon asks besides
nvml.NVMLError_NotSupported = fake_pynvml.NVMLError
nvml.nvmlDeviceGetPowerUsage = nvml.nvmlDeviceGetComputeMode = lambda handle: 0
nvml.nvmlDeviceGetGraphicsRunningProcesses = lambda handle: []
nvml.nvmlDeviceGetMemoryInfo = lambda handle: SimpleNamespace(total=2, free=1, used=1)
from inference_energy.measure.sampler import CodeCarbonCompanion
companion = CodeCarbonCompanion([int(number) for number in sys.argv[1:]], "DEU")
companion.start()
assert companion.ready()
companion.lap()
time.sleep(1.5)
companion.lap()
lap = companion.laps()[-1]
print(lap.gpu_energy_j / lap.duration_s)
"""


@pytest.mark.slow
def test_codecarbon_reads_the_gpus_whose_numbers_it_is_given(tmp_path: Path) -> None:
    smi = tmp_path / "nvidia-smi"  # CodeCarbon asks for NVIDIA's GPUs where there is this command
    smi.write_text("#!/bin/sh\n")
    smi.chmod(0o755)
    path = os.pathsep.join([str(Path(__file__).parent), *sys.path])
    environment = {**os.environ, "PYTHONPATH": path, "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    environment.pop("CUDA_VISIBLE_DEVICES", None)
    command = [sys.executable, "-c", REAL_CODECARBON, "1", "3"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert float(done.stdout.splitlines()[-1]) == pytest.approx(200 + 400, rel=0.05)


def test_a_companion_that_was_not_started_has_nothing() -> None:
    idle = CodeCarbonCompanion([], "DEU")
    idle.lap()
    assert idle.ready() is False
    assert idle.laps() == []
    with pytest.raises(MeterError, match="was not started"):
        idle.lap_now()
