"""Which devices there are, who may use them, and the lock that ends with its holder."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import fake_pynvml
import pytest
from fake_pynvml import FakeGpu

from inference_energy.errors import DeviceBusyError, MeterError
from inference_energy.measure import devices as module
from inference_energy.measure.devices import DeviceSet, describe, find_devices, lock, make_counter, require_idle
from inference_energy.measure.fakes import VirtualClock
from inference_energy.measure.meter import NvmlCounter, SystemClock

ONE = DeviceSet("gpu", names=["fake"], uuids=["GPU-one"])
OTHER = DeviceSet("gpu", names=["fake"], uuids=["GPU-other"])


@pytest.fixture(autouse=True)
def _locks_of_this_test(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(module.tempfile, "gettempdir", lambda: str(tmp_path))


# --- the lock ----------------------------------------------------------------------------------------


@contextlib.contextmanager
def _held_elsewhere(devices: DeviceSet, holder: str) -> Iterator[int]:
    """Another process that holds the lock; gives its process id."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        with lock(devices, holder, 0, SystemClock()):
            os.write(write, b"held")
            time.sleep(60)
        os._exit(0)
    os.read(read, 4)
    try:
        yield child
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(child, signal.SIGKILL)
        with contextlib.suppress(ChildProcessError):
            os.waitpid(child, 0)


def test_a_second_holder_is_refused_and_told_who_holds_it() -> None:
    with (
        _held_elsewhere(ONE, "first/batching/x.c1") as pid,
        pytest.raises(DeviceBusyError) as caught,
        lock(ONE, "second", 0, SystemClock()),
    ):
        pytest.fail("held twice")
    assert '"run": "first/batching/x.c1"' in str(caught.value)
    assert f'"pid": {pid}' in str(caught.value)
    assert "Wait for it, or end it" in str(caught.value)


def test_waiting_has_an_end() -> None:
    clock = VirtualClock()
    with _held_elsewhere(ONE, "first"), pytest.raises(DeviceBusyError), lock(ONE, "second", 30.0, clock):
        pytest.fail("held twice")
    assert 30.0 <= clock.now() <= 30.1


def test_a_holder_that_ends_meanwhile_is_waited_for() -> None:
    with _held_elsewhere(ONE, "first") as pid:

        class Killing(VirtualClock):
            def sleep(self, duration_s: float) -> None:
                super().sleep(duration_s)
                if self.now() > 1:
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)
                    with contextlib.suppress(ChildProcessError):
                        os.waitpid(pid, 0)

        with lock(ONE, "second", 30.0, Killing()):
            pass


def test_a_killed_holder_leaves_no_lock() -> None:
    with _held_elsewhere(ONE, "first") as pid:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        with lock(ONE, "second", 0, SystemClock()):
            pass


def test_another_device_is_free() -> None:
    with _held_elsewhere(ONE, "first"), lock(OTHER, "second", 0, SystemClock()):
        pass


def test_the_lock_is_free_after_an_error() -> None:
    with pytest.raises(ValueError, match="boom"), lock(ONE, "first", 0, SystemClock()):
        raise ValueError("boom")
    with lock(ONE, "second", 0, SystemClock()):
        pass


def test_a_helper_forked_meanwhile_does_not_keep_the_lock() -> None:
    with lock(ONE, "first", 0, SystemClock()):
        helper = os.fork()
        if helper == 0:
            time.sleep(60)
            os._exit(0)
    try:
        with lock(ONE, "second", 0, SystemClock()):
            pass
    finally:
        os.kill(helper, signal.SIGKILL)
        os.waitpid(helper, 0)


# --- devices -----------------------------------------------------------------------------------------


def test_a_wanted_gpu_that_is_not_there_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    for gpus in (None, []):
        fake_pynvml.install(monkeypatch, gpus)
        with pytest.raises(MeterError, match="NVML finds no GPU"):
            find_devices("gpu")
        assert find_devices("auto").kind == "cpu"


def test_cpu_is_taken_where_it_is_wanted(monkeypatch: pytest.MonkeyPatch) -> None:
    fake_pynvml.install(monkeypatch, [FakeGpu()])
    cpu = find_devices("cpu")
    assert (cpu.kind, cpu.handles, cpu.participates[0]) == ("cpu", [], True)
    require_idle(cpu, VirtualClock())
    assert describe(cpu).devices[0].power_limit_w is None


@pytest.mark.parametrize(
    ("visible", "lead"), [(None, 0), ("", 0), ("1", 1), ("1,0", 1), ("GPU-1aaa", 1), ("GPU-1", 1), ("7", 0)]
)
def test_the_first_visible_gpu_takes_part(monkeypatch: pytest.MonkeyPatch, visible: str | None, lead: int) -> None:
    fake_pynvml.install(monkeypatch, [FakeGpu(), FakeGpu()])
    if visible is None:
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    else:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    found = find_devices("auto")
    assert found.lead == lead
    assert found.participates == [lead == 0, lead == 1]
    described = describe(found)
    assert described.description.startswith("2 x NVIDIA H200, ")
    assert [device.power_limit_w for device in described.devices] == [700.0, 700.0]
    assert len({device.uuid_hash for device in described.devices}) == 2
    assert all("GPU-" not in device.uuid_hash for device in described.devices)


def test_a_gpu_has_nvmls_counter(monkeypatch: pytest.MonkeyPatch) -> None:
    fake_pynvml.install(monkeypatch, [FakeGpu(100.0), FakeGpu(0.0)])
    counter = make_counter(find_devices("gpu"), SystemClock())
    assert isinstance(counter, NvmlCounter)
    reading = counter.read()
    assert reading.energy_j == [pytest.approx(100 * reading.time_s, rel=1e-4), 0.0]


def test_a_cpu_without_rapl_has_no_counter(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "rapl_packages", list)
    assert make_counter(DeviceSet("cpu", names=["CPU"], uuids=["c"]), SystemClock()) is None


# --- other users -------------------------------------------------------------------------------------


def test_processes_on_the_gpu_that_takes_part_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    fake_pynvml.install(monkeypatch, [FakeGpu(pids=[11, 12]), FakeGpu()])
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    clock = VirtualClock()
    with pytest.raises(DeviceBusyError, match=r"GPU 0 \(NVIDIA H200\): other processes use it: 11, 12\."):
        require_idle(find_devices("gpu"), clock, wait_s=5.0)
    assert 5.0 <= clock.now() <= 5.3


def test_processes_on_another_gpu_are_not(monkeypatch: pytest.MonkeyPatch) -> None:
    fake_pynvml.install(monkeypatch, [FakeGpu(), FakeGpu(pids=[11])])
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    clock = VirtualClock()
    require_idle(find_devices("gpu"), clock)
    assert clock.now() == 0.0


def test_processes_that_go_are_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    gpu = FakeGpu(pids=[11])
    fake_pynvml.install(monkeypatch, [gpu])

    class Ending(VirtualClock):
        def sleep(self, duration_s: float) -> None:
            super().sleep(duration_s)
            if self.now() > 1:
                gpu.pids = []

    require_idle(find_devices("gpu"), Ending(), wait_s=5.0)
