"""Which devices there are, who may use them, and the lock that ends with its holder."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import fake_pynvml
import pytest
from fake_pynvml import FakeGpu

from inference_energy import provenance
from inference_energy.errors import DeviceBusyError, MeterError
from inference_energy.measure import devices as module, locks
from inference_energy.measure.devices import (
    DeviceSet,
    check_devices,
    claim,
    describe,
    find_devices,
    make_counter,
    require_idle,
)
from inference_energy.measure.fakes import VirtualClock
from inference_energy.measure.meter import NvmlCounter, SystemClock


def _gpus(n: int, claimable: tuple[int, ...] | None = None) -> DeviceSet:
    uuids = [f"GPU-{i}" for i in range(n)]
    return DeviceSet("gpu", names=["fake"] * n, uuids=uuids, claimable=claimable or tuple(range(n)))


@pytest.fixture(autouse=True)
def _locks_of_this_test(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(locks.tempfile, "gettempdir", lambda: str(tmp_path))


def _claimed(found: DeviceSet, n: int = 1, *, alone: bool = False, wait_s: float = 0.0) -> DeviceSet:
    """What a claim gives, which ends at once."""
    with claim(found, n, alone, "mine", wait_s, SystemClock()) as devices:
        return devices


# --- claims ------------------------------------------------------------------------------------------


@contextlib.contextmanager
def _held_elsewhere(found: DeviceSet, holder: str, n: int = 1, *, alone: bool = False) -> Iterator[int]:
    """Another process that claims; gives its process id."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        with claim(found, n, alone, holder, 0, SystemClock()):
            os.write(write, b"held")
            time.sleep(60)
        os._exit(0)
    os.read(read, 4)
    try:
        yield child
    finally:
        _end(child)


def _end(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
    with contextlib.suppress(ChildProcessError):
        os.waitpid(pid, 0)


def test_a_second_holder_is_refused_and_told_who_holds_it() -> None:
    with _held_elsewhere(_gpus(1), "first/batching/x.c1") as pid, pytest.raises(DeviceBusyError) as caught:
        _claimed(_gpus(1))
    assert '"run": "first/batching/x.c1"' in str(caught.value)
    assert f'"pid": {pid}' in str(caught.value)
    assert "0 of 1 devices are free" in str(caught.value)


def test_the_first_free_gpus_are_claimed_and_the_view_holds_them_alone() -> None:
    found = _gpus(4)
    with _held_elsewhere(found, "first"), _held_elsewhere(found, "second"):
        one = _claimed(found)
        assert (one.uuids, one.takes_part, one.lead, one.participates) == (["GPU-2"], (0,), 0, [True])
        assert one.visible.uuids == found.uuids
        two = _claimed(found, 2)
        assert (two.uuids, two.takes_part, two.participates) == (["GPU-2", "GPU-3"], (0, 1), [True, True])
        assert two.only(1).uuids == ["GPU-3"]
        assert two.only(1).visible.uuids == found.uuids
        with pytest.raises(DeviceBusyError, match=r"2 of 4 devices are free.*first.*second.*3 free within 0 s"):
            _claimed(found, 3)
        assert _claimed(found, 2).uuids == two.uuids  # what was refused held on to nothing


def test_a_run_alone_holds_all_and_meters_those_that_rest() -> None:
    found = _gpus(4)
    with claim(found, 2, True, "alone", 0, SystemClock()) as devices:
        assert devices.uuids == found.uuids
        assert devices.participates == [True, True, False, False]
    with _held_elsewhere(found, "alone", alone=True), pytest.raises(DeviceBusyError, match="0 of 4"):
        _claimed(found)
    with _held_elsewhere(found, "neighbour"), pytest.raises(DeviceBusyError, match=r"3 of 4.*neighbour"):
        _claimed(found, alone=True)


def test_only_claimable_gpus_are_claimed() -> None:
    found = _gpus(4, claimable=(1, 3))
    assert _claimed(found).uuids == ["GPU-1"]
    assert _claimed(found, alone=True).uuids == ["GPU-1", "GPU-3"]
    with _held_elsewhere(_gpus(4), "other"):  # holds GPU 0, which is not ours
        assert _claimed(found, 2).uuids == ["GPU-1", "GPU-3"]
    with pytest.raises(MeterError, match="3 GPUs are asked for, 2 of 4 may be claimed"):
        _claimed(found, 3)


def test_processes_on_a_cpu_share_it() -> None:
    cpu = DeviceSet("cpu", names=["CPU"] * 2, uuids=["c0", "c1"], claimable=(0,))
    with claim(cpu, 3, True, "replicas", 0, SystemClock()) as devices:
        assert devices == cpu
        with pytest.raises(DeviceBusyError):
            _claimed(cpu)


def test_many_claimants_never_hold_a_gpu_twice(tmp_path: Path) -> None:
    """Eight processes claim one to three of four GPUs over and over; a marker file proves who is on which."""
    children = []
    for number in range(8):
        child = os.fork()
        if child == 0:
            status = 1
            with contextlib.suppress(Exception):
                for turn in range(8):
                    n = 1 + (number + turn) % 3
                    with claim(_gpus(4), n, number == 7, f"run {number}", 60, SystemClock()) as devices:
                        for uuid in devices.uuids:
                            os.close(os.open(tmp_path / uuid, os.O_CREAT | os.O_EXCL))
                        time.sleep(0.002)
                        for uuid in devices.uuids:
                            (tmp_path / uuid).unlink()
                status = 0
            os._exit(status)
        children.append(child)
    assert [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children] == [0] * 8


def test_waiting_has_an_end() -> None:
    clock = VirtualClock()
    with (
        _held_elsewhere(_gpus(1), "first"),
        pytest.raises(DeviceBusyError),
        claim(_gpus(1), 1, False, "second", 30.0, clock),
    ):
        pytest.fail("held twice")
    assert 30.0 <= clock.now() <= 30.1


def test_a_holder_that_ends_meanwhile_is_waited_for() -> None:
    with _held_elsewhere(_gpus(1), "first") as pid:

        class Killing(VirtualClock):
            def sleep(self, duration_s: float) -> None:
                super().sleep(duration_s)
                if self.now() > 1:
                    _end(pid)

        with claim(_gpus(1), 1, False, "second", 30.0, Killing()):
            pass


def test_a_killed_holder_leaves_no_lock() -> None:
    with _held_elsewhere(_gpus(4), "first", 4) as pid:
        _end(pid)
        assert len(_claimed(_gpus(4), 4).uuids) == 4


def test_the_claim_ends_with_an_error() -> None:
    with pytest.raises(ValueError, match="boom"), claim(_gpus(1), 1, False, "first", 0, SystemClock()):
        raise ValueError("boom")
    assert _claimed(_gpus(1)).uuids == ["GPU-0"]


def test_a_helper_forked_meanwhile_does_not_keep_the_lock() -> None:
    with claim(_gpus(1), 1, False, "first", 0, SystemClock()):
        helper = os.fork()
        if helper == 0:
            time.sleep(60)
            os._exit(0)
    try:
        assert _claimed(_gpus(1)).uuids == ["GPU-0"]
    finally:
        _end(helper)


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
    ("visible", "claimable"),
    [(None, (0, 1, 2)), ("1", (1,)), ("2,0", (0, 2)), ("GPU-1aaa", (1,)), ("GPU-2, 0", (0, 2)), ("0,7", (0,))],
)
def test_only_gpus_that_the_environment_names_may_be_claimed(
    monkeypatch: pytest.MonkeyPatch, visible: str | None, claimable: tuple[int, ...]
) -> None:
    fake_pynvml.install(monkeypatch, [FakeGpu(), FakeGpu(), FakeGpu()])
    if visible is None:
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    else:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    found = find_devices("auto")
    assert (found.claimable, found.lead, len(found.visible.names)) == (claimable, claimable[0], 3)
    claimed = _claimed(found)
    described = describe(claimed)
    assert described.description.startswith("3 x NVIDIA H200, ")  # a fact about the machine
    (device,) = described.devices
    assert (device.participates, device.power_limit_w) == (True, 700.0)
    assert device.uuid_hash == provenance.short_hash(f"GPU-{claimable[0]}aaa")


def test_an_environment_that_hides_all_gpus_leaves_the_cpu_and_a_wrong_one_is_an_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fake_pynvml.install(monkeypatch, [FakeGpu()])
    for hidden in ("", "-1"):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", hidden)
        assert find_devices("auto").kind == "cpu"
        with pytest.raises(MeterError, match="CUDA_VISIBLE_DEVICES hides all"):
            find_devices("gpu")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "7")
    with pytest.raises(MeterError, match="CUDA_VISIBLE_DEVICES=7: names no GPU of this machine"):
        find_devices("auto")


def test_a_reopened_set_finds_its_gpus_by_uuid(monkeypatch: pytest.MonkeyPatch) -> None:
    fake_pynvml.install(monkeypatch, [FakeGpu(), FakeGpu()])
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    claimed = _claimed(find_devices("gpu"))
    again = dataclasses.replace(claimed, handles=["stale"]).reopened()
    assert (again.handles, again.visible.handles) == ([1], [0, 1])
    cpu = find_devices("cpu")
    assert cpu.reopened() == cpu.only(0) == cpu


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


@pytest.fixture
def _all_visible(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)


@pytest.mark.usefixtures("_all_visible")
def test_processes_on_the_gpu_that_takes_part_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    fake_pynvml.install(monkeypatch, [FakeGpu(), FakeGpu(pids=[11, 12])])
    clock = VirtualClock()
    with pytest.raises(DeviceBusyError, match=r"GPU 1 \(NVIDIA H200\): other processes use it: 11, 12\."):
        require_idle(find_devices("gpu").only(1), clock, wait_s=5.0)
    assert 5.0 <= clock.now() <= 5.3


@pytest.mark.usefixtures("_all_visible")
def test_processes_on_another_gpu_are_not_unless_the_run_is_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    fake_pynvml.install(monkeypatch, [FakeGpu(), FakeGpu(pids=[11])])
    clock = VirtualClock()
    found = find_devices("gpu")
    require_idle(_claimed(found), clock)
    assert clock.now() == 0.0
    with pytest.raises(DeviceBusyError, match="GPU 1"):
        require_idle(_claimed(found, alone=True), clock)


def test_processes_that_go_are_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    gpu = FakeGpu(pids=[11])
    fake_pynvml.install(monkeypatch, [gpu])

    class Ending(VirtualClock):
        def sleep(self, duration_s: float) -> None:
            super().sleep(duration_s)
            if self.now() > 1:
                gpu.pids = []

    require_idle(find_devices("gpu"), Ending(), wait_s=5.0)


@pytest.mark.usefixtures("_all_visible")
def test_a_check_tells_own_from_other_processes_on_every_visible_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    child = os.fork()
    if child == 0:
        time.sleep(60)
        os._exit(0)
    try:
        ours = FakeGpu(400.0, pids=[os.getpid(), child, 999_999_999])
        theirs = FakeGpu(300.0, pids=[999_999_999], temperature_c=None)
        fake_pynvml.install(monkeypatch, [ours, theirs, FakeGpu(80.0, has_power=False)])
        check = check_devices(_claimed(find_devices("gpu")), "during", 7.0, os.getpid())
    finally:
        _end(child)
    assert (check.moment, check.time_s) == ("during", 7.0)
    assert [device.uuid_hash for device in check.devices] == [provenance.short_hash(f"GPU-{i}aaa") for i in range(3)]
    assert [(device.metered, device.participates) for device in check.devices] == [(True, True), *[(False, False)] * 2]
    assert [(d.n_own_processes, d.n_other_processes) for d in check.devices] == [(2, 1), (0, 1), (0, 0)]
    assert [(d.power_w, d.temperature_c) for d in check.devices] == [(400.0, 40.0), (300.0, None), (None, 40.0)]


@pytest.mark.usefixtures("_all_visible")
def test_where_no_process_is_known_one_on_a_gpu_that_takes_part_is_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    """NVML in a container may give the host's process ids."""
    gpus = [FakeGpu(pids=[999_999_998, 999_999_999]), FakeGpu(pids=[999_999_997]), FakeGpu()]
    fake_pynvml.install(monkeypatch, gpus)
    devices = _claimed(find_devices("gpu"), 1, alone=True)
    check = check_devices(devices, "during", 0.0, os.getpid())
    assert [(d.n_own_processes, d.n_other_processes) for d in check.devices] == [(1, 1), (0, 1), (0, 0)]
    assert [(d.metered, d.participates) for d in check.devices] == [(True, True), (True, False), (True, False)]


def test_a_cpu_has_nothing_to_check() -> None:
    assert check_devices(find_devices("cpu"), "before", 0.0, os.getpid()).devices == []
