"""Failed attempts: which count, that they survive a restart, and what a run becomes that fails every time."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tiny_campaign import TinyCampaign

from inference_energy import provenance
from inference_energy.design import expand
from inference_energy.measure import attempts, qualify
from inference_energy.measure.devices import describe, find_devices
from inference_energy.measure.session import Request
from inference_energy.records import read_record

UNSTEADY = {"kind": "SteadyStateError", "message": "no steady state", "retry": True}
BUSY = {"kind": "DeviceBusyError", "message": "another run holds it", "retry": False}


@pytest.fixture
def tiny(tmp_path: Path) -> TinyCampaign:
    """A campaign with a qualification of this machine."""
    made = TinyCampaign(tmp_path / "results")
    qualification = qualify.Qualification(
        sitting="S1",
        campaign="tiny",
        made_at_utc=provenance.now_utc(),
        machine="m",
        hardware=describe(find_devices("cpu")),
        driver=None,
        energy_method="codecarbon_estimate",
        period_s=1.0,
        period_min_s=None,
        period_max_s=None,
        resolution_j=0.0,
        read_latency_s=0.0,
        idle_power_w=None,
        load_power_w=None,
        counter_over_power_ratio=None,
        launch_latency_s=None,
        launch_latency_sampled_s=None,
        cpu_benchmark_s=0.01,
    )
    folder = made.folder / "qualification"
    folder.mkdir()
    (folder / "S1.json").write_text(qualification.model_dump_json(), encoding="utf-8")
    return made


class Launches:
    """A launch that ends as told, once a call: a status, or a status with a reason."""

    def __init__(self, *ends: int | tuple[int, dict[str, Any]]) -> None:
        self.ends, self.requests = list(ends), list[Request]()

    def __call__(self, request: Request) -> int:
        self.requests.append(request)
        end = self.ends[len(self.requests) - 1]
        if isinstance(end, int):
            return end
        Path(str(request.failure)).write_text(json.dumps(end[1]), encoding="utf-8")
        return end[0]


def _carry_out(tiny: TinyCampaign, launch: Callable[[Request], int]) -> int:
    return attempts.carry_out(tiny.request(), expand(tiny.resolved)[0], tiny.resolved, launch)


def _kept(tiny: TinyCampaign) -> list[attempts.Attempt]:
    return attempts.read(attempts.log_path(tiny.folder, expand(tiny.resolved)[0]))


def test_a_run_that_succeeds_is_started_once_and_leaves_no_attempts(tiny: TinyCampaign) -> None:
    launch = Launches(0)
    assert _carry_out(tiny, launch) == 0
    assert [request.attempt for request in launch.requests] == [1]
    assert not (tiny.folder / "attempts").exists()


def test_a_run_that_fails_once_is_started_again_and_told_so(tiny: TinyCampaign) -> None:
    launch = Launches((2, UNSTEADY), 0)
    assert _carry_out(tiny, launch) == 0
    assert [request.attempt for request in launch.requests] == [1, 2]
    assert launch.requests[1].started_s >= launch.requests[0].started_s
    (one,) = _kept(tiny)
    assert (one.kind, one.message, one.exit_status) == ("SteadyStateError", "no steady state", 2)
    assert one.failed_at_utc.endswith("Z")
    assert tiny.files() == {"campaign.yaml", "qualification/S1.json", f"attempts/{tiny.run_id}.jsonl"}


def test_after_three_failures_the_run_is_a_result_with_its_reasons_in_order(tiny: TinyCampaign) -> None:
    assert _carry_out(tiny, Launches(-9, (2, UNSTEADY), -9)) == 0
    record = read_record(tiny.record)
    assert record.status == "failed"
    assert record.status_detail == "Crash: the process ended with signal SIGKILL; SteadyStateError: no steady state"
    assert record.n_attempts == 3
    assert record.run_id == tiny.run_id
    assert record.identity.sitting == "S1"
    assert record.intervals == []
    assert record.workload is None
    assert record.counter_ended_j == [None] * len(record.hardware.devices)
    assert record.levels == expand(tiny.resolved)[0].levels
    assert [warning.code for warning in record.warnings] == ["attempts_failed"]
    assert record.hardware.cpu_name == provenance.cpu_name()


def test_attempts_count_over_restarts(tiny: TinyCampaign) -> None:
    launch = Launches((2, UNSTEADY), (2, UNSTEADY), -int(signal.SIGTERM))
    assert _carry_out(tiny, launch) == attempts.INTERRUPTED
    assert len(_kept(tiny)) == 2
    again = Launches((2, UNSTEADY))
    assert _carry_out(tiny, again) == 0
    assert [request.attempt for request in again.requests] == [3]
    assert read_record(tiny.record).status == "failed"


def test_a_workflow_that_ended_after_the_last_attempt_only_writes_the_record(tiny: TinyCampaign) -> None:
    log = attempts.log_path(tiny.folder, expand(tiny.resolved)[0])
    for _ in range(3):
        attempts.append_line(log, {"failed_at_utc": "t", "kind": "A", "message": "b", "exit_status": 1})
    assert _carry_out(tiny, Launches()) == 0
    assert read_record(tiny.record).status_detail == "A: b"


@pytest.mark.parametrize(
    ("end", "status"),
    [
        ((2, BUSY), 2),
        (-int(signal.SIGTERM), attempts.INTERRUPTED),
        (-int(signal.SIGINT), attempts.INTERRUPTED),
        ((1, {"kind": "KeyboardInterrupt", "message": "", "retry": True}), attempts.INTERRUPTED),
    ],
)
def test_what_no_setting_is_to_blame_for_counts_as_no_attempt(tiny: TinyCampaign, end: Any, status: int) -> None:
    launch = Launches(end)
    assert _carry_out(tiny, launch) == status
    assert len(launch.requests) == 1
    assert tiny.files() == {"campaign.yaml", "qualification/S1.json"}


def test_a_failure_before_the_instrument_is_qualified_counts_as_no_attempt(tiny: TinyCampaign) -> None:
    (tiny.folder / "qualification" / "S1.json").unlink()
    assert _carry_out(tiny, Launches(-9)) == -9
    assert tiny.files() == {"campaign.yaml"}


def test_the_reason_of_an_earlier_attempt_is_not_taken_for_that_of_this_one(tiny: TinyCampaign) -> None:
    stale = attempts.log_path(tiny.folder, expand(tiny.resolved)[0])
    stale = stale.with_name(f".{stale.stem}.reason.json")
    stale.parent.mkdir(parents=True)
    stale.write_text(json.dumps(BUSY))
    assert _carry_out(tiny, Launches(-9, 0)) == 0
    assert [one.kind for one in _kept(tiny)] == ["Crash"]


def test_a_line_that_was_cut_off_is_no_attempt(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    attempts.append_line(path, {"failed_at_utc": "t", "kind": "A", "message": "b", "exit_status": 1})
    path.write_text(path.read_text() + '{"failed_at_utc": "t", "ki')
    assert len(attempts.read(path)) == 1


def test_only_leftovers_of_processes_that_are_gone_are_removed(tmp_path: Path) -> None:
    gone = subprocess.Popen(["true"])
    gone.wait()
    kept = {f".a.json.{os.getpid()}.tmp", ".hidden", "a.json"}
    for name in {*kept, f".a.json.{gone.pid}.tmp"}:
        (tmp_path / name).touch()
    attempts.remove_leftovers(tmp_path, tmp_path / "missing")
    assert {path.name for path in tmp_path.iterdir()} == kept
