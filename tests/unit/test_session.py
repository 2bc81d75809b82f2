"""A measuring process on fake GPUs, from its claim to its record: every process is real, the driver is not.

Each run is forked from this process, as the launcher's parent forks it. GPU `n` draws 100 (n + 1) W throughout, so that
energies tell which GPUs were metered.
"""

from __future__ import annotations

import functools
import itertools
import json
import os
import signal
import time
from pathlib import Path
from typing import Any

import fake_pynvml
import pytest
import synthetic
from fake_pynvml import FakeGpu
from tiny_campaign import HARDWARE_YAML, process_is_gone

from inference_energy import provenance
from inference_energy.config import ResolvedCampaign
from inference_energy.design import Run, expand
from inference_energy.errors import EngineError
from inference_energy.measure import launcher, locks, qualify, sampler, session
from inference_energy.measure.fakes import FakeEngine
from inference_energy.measure.meter import SystemClock
from inference_energy.measure.sampler import CodeCarbonCompanion
from inference_energy.measure.session import Request
from inference_energy.records import Record, read_record

N_GPUS = 4
MOMENTS = ["before", "during", "after"]
#: Two settings of replicas on two GPUs, one of one GPU beside others, and one of one GPU alone.
SETTINGS: list[dict[str, Any]] = [
    {"batch_size": 1, "parallelism": "replicas", "n_gpus": 2},
    {"batch_size": 2, "parallelism": "replicas", "n_gpus": 2},
    {"batch_size": 3},
    {"batch_size": 4, "neighbours": "none"},
    *({"batch_size": 5 + n, "engine": "vllm", "engine_process": "shared"} for n in range(3)),
]
SHARED = (4, 5, 6)
MEASUREMENT: dict[str, Any] = {
    "device": "gpu",
    "idle_s": 0.05,
    "idle_loaded_s": 0.05,
    "window_min_s": 0.1,
    "sample_period_s": 0.01,
    "lock_wait_s": 20.0,
    "warm_up": {"n_agree": 2, "agreement_fraction": 0.9},
    "start": {"power_above_idle_max_w": 500.0},
}


class Campaign:
    """A campaign below `folder` on a machine of four fake GPUs.

    Attributes
    ----------
    seen : Path
        Folder in which a measuring process leaves what it was given.
    """

    def __init__(self, folder: Path) -> None:
        study = {"question": "FAKE?", "fixed": {"model": "llama-3.2-1b"}, "settings": SETTINGS}
        self.resolved: ResolvedCampaign = synthetic.small_campaign(studies={"fakes": study}, measurement=MEASUREMENT)
        self.folder, self.seen = folder / "results" / "synthetic", folder / "seen"
        self.folder.mkdir(parents=True)
        self.seen.mkdir()
        self.file = self.folder / "campaign.yaml"
        self.file.write_text(self.resolved.dump(), encoding="utf-8")

    def run(self, number: int) -> Run:
        """The run of a setting in the first cycle."""
        batch_size = SETTINGS[number]["batch_size"]
        return next(run for run in expand(self.resolved) if run.levels.batch_size == batch_size)

    def start(self, number: int | None, failure: Path | None = None, **more: Any) -> int:
        """Fork the measuring process of a setting (None: of the qualification); its process id."""
        run_id = "" if number is None else self.run(number).run_id
        record, qualifications = self.folder / "records" / f"{run_id}.json", self.folder / "qualification"
        request = Request(
            action="qualify" if number is None else "measure",
            campaign_file=str(self.file),
            run_id=run_id,
            output=str(qualifications if number is None else record),
            hardware_yaml=str(HARDWARE_YAML),
            launcher="fork",
            started_s=time.monotonic(),
            attempt=2,
            command="inference-energy measure",
            failure=None if failure is None else str(failure),
            **more,
        )
        child = os.fork()
        if child == 0:
            launcher.run_and_exit(request)
        return child

    def record(self, number: int) -> Record:
        """What was measured of a setting."""
        return read_record(self.folder / "records" / f"{self.run(number).run_id}.json")

    def qualifications(self) -> list[str]:
        """Names of the files."""
        return sorted(path.name for path in (self.folder / "qualification").glob("*.json"))

    def told(self, number: int) -> dict[str, Any]:
        """What the measuring process of a setting was given."""
        content: dict[str, Any] = json.loads((self.seen / str(SETTINGS[number]["batch_size"])).read_text())
        return content


def _ended(pid: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


class _NoCodeCarbon(CodeCarbonCompanion):
    """Says which GPUs it was given; a driver that is not there cannot be asked."""

    given: list[int] = []  # noqa: RUF012 - of the process, which measures once

    def __init__(self, gpu_ids: list[int], country: str) -> None:
        super().__init__(gpu_ids, country)
        type(self).given = gpu_ids

    def _tracker(self) -> Any:
        raise OSError("no CodeCarbon here")


def _engine(folder: Path, run: Run, *_: Any) -> FakeEngine:
    """Iterations of 20 ms on the GPUs that CUDA would see."""
    told = {
        "codecarbon": _NoCodeCarbon.given,
        "cuda": os.environ["CUDA_VISIBLE_DEVICES"],
        "order": os.environ["CUDA_DEVICE_ORDER"],
    }
    (folder / str(run.levels.batch_size)).write_text(json.dumps(told))
    clock: Any = SystemClock()
    uuids = os.environ["CUDA_VISIBLE_DEVICES"].split(",")
    return FakeEngine(run.levels, [], clock, itertools.repeat(0.02), load_s=0.05, uuids=uuids)


def _noted(folder: Path, make: Any, run: Run, *rest: Any) -> FakeEngine:
    """As `make`, and note that an engine was made."""
    with (folder / "made").open("a") as file:
        file.write("one\n")
    engine: FakeEngine = make(run, *rest)
    return engine


@pytest.fixture
def gpus(monkeypatch: pytest.MonkeyPatch) -> list[FakeGpu]:
    """The machine; a known load takes half a second."""
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    found = [FakeGpu(100.0 * (n + 1)) for n in range(N_GPUS)]
    fake_pynvml.install(monkeypatch, found)

    def under_load(*_: Any) -> dict[str, Any]:
        time.sleep(0.5)
        return {"counter_over_power_ratio": 1.0}

    monkeypatch.setattr(qualify, "_under_load", under_load)
    monkeypatch.setattr(qualify, "observe", functools.partial(qualify.observe, duration_s=0.2))
    monkeypatch.setattr(session, "CodeCarbonCompanion", _NoCodeCarbon)
    monkeypatch.setattr(sampler, "CHECK_EVERY_S", 0.1)
    return found


@pytest.fixture
def campaign(tmp_path: Path, gpus: list[FakeGpu], monkeypatch: pytest.MonkeyPatch) -> Campaign:
    made = Campaign(tmp_path)
    monkeypatch.setattr(locks.tempfile, "gettempdir", lambda: str(tmp_path))
    monkeypatch.setattr(session, "_engine", functools.partial(_engine, made.seen))
    return made


def _uuids(record: Record) -> list[str]:
    return [device.uuid_hash for device in record.hardware.devices]


def _hashed(*numbers: int) -> list[str]:
    return [provenance.short_hash(f"GPU-{number}aaa") for number in numbers]


def _require_powers(record: Record, expected_w: list[float]) -> None:
    """The energies are those of these devices, in this order."""
    for window in (each for each in record.intervals if each.phase == "window"):
        assert window.device_opened_s is not None
        assert window.device_closed_s is not None
        edges = (window.counter_opened_j, window.counter_closed_j, window.device_opened_s, window.device_closed_s)
        powers_w = [(last - first) / (end - start) for first, last, start, end in zip(*edges, strict=True)]  # type: ignore[operator]
        assert powers_w == pytest.approx(expected_w, rel=0.02)


# --- who is metered --------------------------------------------------------------------------------


def test_runs_side_by_side_claim_gpus_of_their_own_and_share_a_sitting(campaign: Campaign) -> None:
    """The second begins a second later, while the first still qualifies its GPUs: the sitting has its name already."""
    first = campaign.start(0)
    while not (campaign.folder / "qualification" / ".sitting").exists():
        time.sleep(0.01)
    begun = provenance.now_utc()[:19]
    while provenance.now_utc()[:19] == begun:  # a sitting's name has the second in which it began
        time.sleep(0.01)
    second = campaign.start(1)
    assert (_ended(first), _ended(second)) == (0, 0)
    one, two = campaign.record(0), campaign.record(1)
    assert (_uuids(one), _uuids(two)) == (_hashed(0, 1), _hashed(2, 3))
    assert one.identity.sitting == two.identity.sitting
    sitting = one.identity.sitting
    assert campaign.qualifications() == sorted(f"{sitting}.{uuid_hash[:6]}.json" for uuid_hash in _hashed(0, 1, 2, 3))
    for record, powers_w in ((one, [100.0, 200.0]), (two, [300.0, 400.0])):
        assert [device.participates for device in record.hardware.devices] == [True, True]
        assert record.meter.qualification == f"{sitting}.{_uuids(record)[0][:6]}.json"  # the first GPU's
        assert record.hardware.description.startswith("4 x NVIDIA H200, ")
        assert len(record.trace.counter_j) == 2
        _require_powers(record, powers_w)


def test_the_devices_that_a_run_claims_are_those_that_cuda_and_codecarbon_see(campaign: Campaign) -> None:
    first, second = campaign.start(0), campaign.start(1)
    assert (_ended(first), _ended(second)) == (0, 0)
    places = {tuple(_uuids(campaign.record(number))): number for number in (0, 1)}
    for gpu_ids, uuids in (([0, 1], "GPU-0aaa,GPU-1aaa"), ([2, 3], "GPU-2aaa,GPU-3aaa")):
        told = campaign.told(places[tuple(_hashed(*gpu_ids))])
        assert told == {"codecarbon": gpu_ids, "cuda": uuids, "order": "PCI_BUS_ID"}


def test_a_run_beside_others_meters_its_own_gpu_and_one_alone_all(campaign: Campaign) -> None:
    assert _ended(campaign.start(2)) == 0
    assert campaign.told(2) == {"codecarbon": [0], "cuda": "GPU-0aaa", "order": "PCI_BUS_ID"}
    assert _ended(campaign.start(3)) == 0
    beside, alone = campaign.record(2), campaign.record(3)
    assert _uuids(beside) == _hashed(0)
    _require_powers(beside, [100.0])
    assert _uuids(alone) == _hashed(0, 1, 2, 3)
    assert [device.participates for device in alone.hardware.devices] == [True, False, False, False]
    _require_powers(alone, [100.0, 200.0, 300.0, 400.0])
    assert campaign.told(3) == {"codecarbon": [0], "cuda": "GPU-0aaa", "order": "PCI_BUS_ID"}
    for record in (beside, alone):  # every GPU of the machine is looked at, metered or not
        assert [check.moment for check in record.device_checks] == MOMENTS
        metered = [uuid_hash in _uuids(record) for uuid_hash in _hashed(0, 1, 2, 3)]
        for check in record.device_checks:
            assert [state.uuid_hash for state in check.devices] == _hashed(0, 1, 2, 3)
            assert [state.metered for state in check.devices] == metered
            assert [state.participates for state in check.devices] == [True, False, False, False]
            assert [state.power_w for state in check.devices] == [100.0, 200.0, 300.0, 400.0]


def test_a_look_at_the_gpus_before_the_run_is_none_during_it(
    campaign: Campaign, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sampler, "CHECK_EVERY_S", 60.0)  # the sampler looks once, as it starts
    assert _ended(campaign.start(2)) == 0
    assert [check.moment for check in campaign.record(2).device_checks] == ["before", "after"]


def test_a_run_alone_waits_for_the_others_and_they_for_it(campaign: Campaign) -> None:
    assert _ended(campaign.start(None)) == 0
    pids = []
    for number in (2, 3, 0):
        pids.append(campaign.start(number))
        time.sleep(0.3)  # it claims, so that the next comes after it
    assert [_ended(pid) for pid in pids] == [0, 0, 0]
    spans = []
    for number in (2, 3, 0):
        record = campaign.record(number)
        before, _, after = record.device_checks
        spans.append((record.monotonic_started_s + before.time_s, record.monotonic_started_s + after.time_s))
    one, alone, two = spans
    assert alone[0] > one[1]
    assert alone[0] > two[1] or alone[1] < two[0]


def test_the_environment_limits_what_is_claimed(campaign: Campaign, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,1")
    assert _ended(campaign.start(0)) == 0
    assert _uuids(campaign.record(0)) == _hashed(1, 3)
    assert campaign.told(0) == {"codecarbon": [1, 3], "cuda": "GPU-1aaa,GPU-3aaa", "order": "PCI_BUS_ID"}
    _require_powers(campaign.record(0), [200.0, 400.0])


# --- qualification ---------------------------------------------------------------------------------


def test_a_gpu_is_qualified_once_a_sitting_before_the_run_begins(campaign: Campaign) -> None:
    assert _ended(campaign.start(2)) == 0
    (name,) = campaign.qualifications()
    path = campaign.folder / "qualification" / name
    os.utime(path, (time.time() - 60, time.time() - 60))
    assert _ended(campaign.start(0)) == 0  # takes that GPU and another
    sitting = campaign.record(0).identity.sitting
    assert campaign.qualifications() == sorted(f"{sitting}.{uuid_hash[:6]}.json" for uuid_hash in _hashed(0, 1))
    assert campaign.record(0).meter.qualification == name
    assert time.time() - path.stat().st_mtime < 30  # the sitting goes on
    for number in (0, 2):
        assert campaign.record(number).launch.started_to_load_s < 0.5  # the known load alone takes as long
        assert campaign.record(number).n_attempts == 2
        assert campaign.record(number).provenance.command == "inference-energy measure"


def test_asking_for_a_qualification_qualifies_every_gpu_anew_and_at_once(campaign: Campaign) -> None:
    started_s = time.monotonic()
    assert _ended(campaign.start(None)) == 0
    once_s = time.monotonic() - started_s
    first = campaign.qualifications()
    assert len(first) == N_GPUS
    found = [qualify.read(campaign.folder / "qualification" / name) for name in first]
    assert len({each.sitting for each in found}) == 1
    assert sorted(each.idle_power_w or 0.0 for each in found) == pytest.approx([100.0, 200.0, 300.0, 400.0], rel=0.25)
    assert once_s < N_GPUS * 0.5 + 1.0
    assert _ended(campaign.start(None)) == 0
    again = campaign.qualifications()
    assert [name for name in again if name not in first] == [f"{name.removesuffix('.json')}.2.json" for name in first]


def test_a_gpu_that_cannot_be_qualified_is_not_measured_on(
    campaign: Campaign, gpus: list[FakeGpu], capfd: pytest.CaptureFixture[str]
) -> None:
    gpus[1].name = "NVIDIA H2000"
    failure = campaign.seen / "reason.json"
    assert _ended(campaign.start(0, failure)) == launcher.EXPECTED_FAILURE
    said = capfd.readouterr().err
    assert "no entry for 'NVIDIA H2000'" in said
    assert "error: campaign synthetic: 1 of 2 devices could not be qualified; the reason is above." in said
    assert json.loads(failure.read_text())["retry"] is False  # the machine is to blame
    assert not (campaign.folder / "records").exists()
    assert len(campaign.qualifications()) == 1  # the other GPU's


# --- one engine for several runs -------------------------------------------------------------------


def _others(campaign: Campaign, first: int) -> list[str]:
    return [campaign.run(number).run_id for number in SHARED if number != first]


def test_runs_that_share_an_engine_are_measured_in_one_process(
    campaign: Campaign, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session, "_engine", functools.partial(_noted, campaign.seen, session._engine))
    assert _ended(campaign.start(5, also=_others(campaign, 5))) == 0
    records = [campaign.record(number) for number in (5, 4, 6)]  # first the one that was asked for
    assert len((campaign.seen / "made").read_text().splitlines()) == 1
    shared = [record.launch.shared for record in records]
    assert [place and place.position for place in shared] == [0, 1, 2]
    assert {place and place.first_run for place in shared} == {records[0].run_id}
    assert len({place and place.process for place in shared}) == 1
    assert [[each.phase for each in record.intervals][:3] for record in records] == [
        ["idle", "load", "warmup"],
        ["warmup", "window", "window"],
        ["warmup", "window", "window"],
    ]
    assert [record.launch.started_to_load_s is None for record in records] == [False, True, True]
    assert [record.device_checks[0].moment for record in records] == ["before"] * 3
    assert [record.n_attempts for record in records] == [2, 1, 1]  # the attempts of the run that was started again
    for earlier, later in itertools.pairwise(records):  # each has its own stretch of the counter and of the trace
        assert earlier.monotonic_started_s + earlier.process_ended_s <= later.monotonic_started_s
        assert later.trace.time_s[0] >= -0.01
        assert earlier.engine is not None
        _require_powers(later, [100.0])


def test_a_run_that_fails_beside_others_is_left_to_its_own_attempts(
    campaign: Campaign, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    class Failing(FakeEngine):
        def take(self, levels: Any, prompts: Any) -> None:
            if levels.batch_size == 6:
                raise EngineError("fake", "broke")
            super().take(levels, prompts)

    def failing(run: Run, *_: Any) -> FakeEngine:
        clock: Any = SystemClock()
        return Failing(run.levels, [], clock, itertools.repeat(0.02), load_s=0.05, uuids=["GPU-0aaa"])

    monkeypatch.setattr(session, "_engine", failing)
    assert _ended(campaign.start(4, also=_others(campaign, 4))) == 0
    assert "error: fake: broke" in capfd.readouterr().err
    found = {path.stem for path in (campaign.folder / "records").rglob("*.json")}
    assert found == {f"{campaign.run(4).setting}.c1"}


def test_what_is_measured_or_comes_too_late_is_left(campaign: Campaign) -> None:
    assert _ended(campaign.start(6)) == 0
    before = (campaign.folder / "records" / f"{campaign.run(6).run_id}.json").read_bytes()
    assert _ended(campaign.start(4, also=_others(campaign, 4))) == 0
    assert (campaign.folder / "records" / f"{campaign.run(6).run_id}.json").read_bytes() == before
    (campaign.folder / "records" / f"{campaign.run(5).run_id}.json").unlink()
    (campaign.folder / "records" / f"{campaign.run(4).run_id}.json").unlink()
    assert _ended(campaign.start(4, also=_others(campaign, 4), stop_at_s=time.time() - 1)) == 0
    assert not (campaign.folder / "records" / f"{campaign.run(5).run_id}.json").exists()
    assert campaign.record(4).status == "ok"


def test_a_run_is_measured_by_one_process_only(campaign: Campaign) -> None:
    """Another process is at run 5: who shares its engine leaves it out, who is asked for it waits for the record."""
    paths = {number: campaign.folder / "records" / f"{campaign.run(number).run_id}.json" for number in SHARED}
    clock: Any = SystemClock()
    with session._sole(paths[5], "another process", 0.0, clock):
        assert _ended(campaign.start(4, also=_others(campaign, 4))) == 0
        assert [paths[number].exists() for number in SHARED] == [True, False, True]
        pid = campaign.start(5)
        time.sleep(0.3)
        assert os.waitpid(pid, os.WNOHANG) == (0, 0)
        paths[5].write_text("a record", encoding="utf-8")
    assert _ended(pid) == 0
    assert paths[5].read_text(encoding="utf-8") == "a record"


def test_a_run_that_another_process_gave_up_is_measured(campaign: Campaign) -> None:
    path = campaign.folder / "records" / f"{campaign.run(5).run_id}.json"
    clock: Any = SystemClock()
    with session._sole(path, "another process", 0.0, clock):
        pid = campaign.start(5)
        time.sleep(0.3)
    assert _ended(pid) == 0
    assert 0.0 < (campaign.record(5).launch.started_to_load_s or 0.0) < 0.3  # the wait is no part of the run


# --- the end of a run ------------------------------------------------------------------------------


def test_a_run_whose_engine_works_elsewhere_becomes_no_record(
    campaign: Campaign, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def elsewhere(run: Run, *_: Any) -> FakeEngine:
        clock: Any = SystemClock()
        return FakeEngine(run.levels, [], clock, itertools.repeat(0.02), uuids=["GPU-3aaa"])

    monkeypatch.setattr(session, "_engine", elsewhere)
    assert _ended(campaign.start(2)) == launcher.EXPECTED_FAILURE
    said = capfd.readouterr().err
    assert "device set: the engine runs on GPU-3aaa, the meter reads GPU-0aaa" in said
    assert not (campaign.folder / "records").exists()


def test_a_killed_run_frees_its_gpus(campaign: Campaign) -> None:
    assert _ended(campaign.start(None)) == 0
    pid = campaign.start(3)
    deadline_s = time.monotonic() + 20
    while not (campaign.seen / "4").exists():
        assert time.monotonic() < deadline_s
        time.sleep(0.01)
    os.kill(pid, signal.SIGKILL)
    assert _ended(pid) == -signal.SIGKILL
    assert process_is_gone(pid)
    assert _ended(campaign.start(3)) == 0
    assert _uuids(campaign.record(3)) == _hashed(0, 1, 2, 3)
