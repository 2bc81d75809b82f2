"""The gate at the start of a run: it opens when power and temperature have fallen, or time is up."""

from __future__ import annotations

import fake_pynvml
import pytest
from fake_pynvml import FakeGpu

from inference_energy.config import StartGate
from inference_energy.measure.devices import DeviceSet, find_devices
from inference_energy.measure.fakes import VirtualClock
from inference_energy.measure.rest import wait_until_rested

GATE = StartGate(power_above_idle_max_w=15, temperature_max_c=50, wait_max_s=5)


class Cooling(VirtualClock):
    """A clock on which a GPU draws 120 W and is 55 degrees warm until given moments."""

    def __init__(self, gpu: FakeGpu, power_falls_s: float, heat_falls_s: float) -> None:
        super().__init__()
        self._gpu, self._power_falls_s, self._heat_falls_s = gpu, power_falls_s, heat_falls_s
        self.sleep(0)

    def sleep(self, duration_s: float) -> None:
        super().sleep(duration_s)
        self._gpu.power_w = 120.0 if self.now() < self._power_falls_s else 78.0
        self._gpu.temperature_c = 55 if self.now() < self._heat_falls_s else 48


def _found(monkeypatch: pytest.MonkeyPatch, gpus: list[FakeGpu]) -> DeviceSet:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    fake_pynvml.install(monkeypatch, gpus)
    return find_devices("gpu")


@pytest.mark.parametrize(
    ("power_falls_s", "heat_falls_s", "waited_s", "settled"),
    [(0.0, 0.0, 0.0, True), (0.9, 0.0, 0.9, True), (0.9, 2.5, 2.5, True), (9.0, 0.0, 5.0, False), (0, 9, 5.0, False)],
)
def test_the_gate_opens_when_the_gpu_has_rested(
    monkeypatch: pytest.MonkeyPatch, power_falls_s: float, heat_falls_s: float, waited_s: float, settled: bool
) -> None:
    gpu = FakeGpu()
    found = _found(monkeypatch, [FakeGpu(700.0, temperature_c=80), gpu]).only(1)
    start = wait_until_rested(found, GATE, 79.0, Cooling(gpu, power_falls_s, heat_falls_s))
    assert start is not None
    assert start.waited_s == pytest.approx(waited_s, abs=0.021)
    assert start.settled is settled
    assert start.power_w == [120.0 if power_falls_s > 5 else 78.0]
    assert start.temperature_c == [55.0 if heat_falls_s > 5 else 48.0]
    assert (start.power_max_w, start.temperature_max_c) == (94.0, 50)


def test_every_gpu_that_takes_part_must_have_rested(monkeypatch: pytest.MonkeyPatch) -> None:
    found = _found(monkeypatch, [FakeGpu(78.0), FakeGpu(120.0), FakeGpu(700.0)])
    for n_working, settled in ((1, True), (2, False)):
        start = wait_until_rested(found.view([0, 1, 2], n_working), GATE, 79.0, VirtualClock())
        assert start is not None
        assert start.settled is settled
        assert start.power_w == [78.0, 120.0][:n_working]


def test_what_is_not_known_is_no_reason_to_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    found = _found(monkeypatch, [FakeGpu(700.0, has_power=False, temperature_c=None)])
    start = wait_until_rested(found, GATE, 79.0, VirtualClock())
    assert start is not None
    assert (start.settled, start.waited_s, start.power_w, start.temperature_c) == (True, 0.0, [None], [None])
    hot = _found(monkeypatch, [FakeGpu(700.0)])
    unqualified = wait_until_rested(hot, GATE, None, VirtualClock())
    assert unqualified is not None
    assert (unqualified.settled, unqualified.power_max_w) == (True, None)


def test_a_cpu_has_no_gate() -> None:
    assert wait_until_rested(DeviceSet("cpu", names=["CPU"], uuids=["c"]), GATE, 79.0, VirtualClock()) is None
