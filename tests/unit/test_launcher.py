"""The forking parent, for real: no device is touched in it, every run is a process of its own."""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tiny_campaign import TinyCampaign, children_of, holder_of_the_device, process_is_gone

from inference_energy.errors import (
    DesignError,
    DeviceBusyError,
    EngineError,
    MeterError,
    RecordError,
    SteadyStateError,
    TokenCountError,
)
from inference_energy.measure import launcher, qualify
from inference_energy.measure.launcher import EXPECTED_FAILURE, launch, parent_state, stop_parent

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def own_tmp(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A short folder for sockets and locks, so that no other parent and no other run is met."""
    tmp_path_factory.getbasetemp()  # made now, or it would be made inside, and go with it
    folder = Path(tempfile.mkdtemp(prefix="ie-"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TMPDIR", str(folder))
        patch.setattr(tempfile, "tempdir", str(folder))
        patch.delenv("INFERENCE_ENERGY_OWNER_PID", raising=False)
        yield folder
        stop_parent()
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="module")
def parent(own_tmp: Path) -> Iterator[int]:
    """A running parent's process id."""
    pid: int = parent_state()["pid"]
    yield pid
    assert stop_parent()
    assert process_is_gone(pid)


@pytest.fixture(scope="module")
def campaign(own_tmp: Path, parent: int) -> TinyCampaign:
    """Qualified by a forked process."""
    tiny = TinyCampaign(own_tmp / "results", idle_s=60.0)
    assert launch(tiny.request("qualify")) == 0
    return tiny


def test_the_parent_holds_the_imports_and_no_device(parent: int) -> None:
    state = parent_state()
    assert state == {"pid": parent, "cuda_initialised": False, "has_vllm": False, "n_device_files": 0}
    assert parent != os.getpid()
    maps = Path(f"/proc/{parent}/maps").read_text()
    assert "libtorch" in maps
    files = [os.readlink(f"/proc/{parent}/fd/{fd}") for fd in os.listdir(f"/proc/{parent}/fd")]  # noqa: PTH115, PTH208
    assert not [name for name in files if name.startswith("/dev/nvidia")]


def test_a_forked_run_is_another_process_and_does_its_work(parent: int, campaign: TinyCampaign, own_tmp: Path) -> None:
    (path,) = (campaign.folder / "qualification").glob("*.json")
    assert qualify.read(path).campaign == "tiny"
    holder = holder_of_the_device(own_tmp)
    assert holder["run"] == "qualification of tiny"
    assert holder["pid"] not in (parent, os.getpid())
    assert parent_state()["pid"] == parent  # the parent outlives its runs


def test_two_runs_are_two_processes(campaign: TinyCampaign, own_tmp: Path) -> None:
    pids = set()
    for _ in range(2):
        assert launch(campaign.request("qualify")) == 0
        pids.add(holder_of_the_device(own_tmp)["pid"])
    assert len(pids) == 2


@pytest.mark.parametrize("kind", ["fork", "cold"])
def test_a_failing_run_gives_its_exit_status_and_its_error_to_the_client(
    campaign: TinyCampaign, kind: str, capfd: pytest.CaptureFixture[str]
) -> None:
    request = replace(campaign.request(run_id="faults/none.c1"), launcher=kind)
    assert launch(request) == EXPECTED_FAILURE
    assert "error: run: 'faults/none.c1' is not in the design of 2 runs" in capfd.readouterr().err


def test_an_unexpected_error_gives_its_traceback(campaign: TinyCampaign, capfd: pytest.CaptureFixture[str]) -> None:
    number: Any = 5  # a file's name must be text
    assert launch(replace(campaign.request("qualify"), campaign_file=number)) == 1
    assert "Traceback (most recent call last)" in capfd.readouterr().err


def _client(campaign: TinyCampaign) -> subprocess.Popen[bytes]:
    """A client in a process of its own whose run idles for a minute."""
    code = (
        "import json, sys\n"
        "from inference_energy.measure.launcher import Request, launch\n"
        "sys.exit(launch(Request(**json.loads(sys.argv[1]))))\n"
    )
    return subprocess.Popen([sys.executable, "-c", code, json.dumps(campaign.request().to_dict())])


def _running(campaign: TinyCampaign, own_tmp: Path) -> int:
    """Process id of the run, as soon as it holds the device."""
    return int(holder_of_the_device(own_tmp, f"tiny/{campaign.run_id}")["pid"])


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_a_run_ends_with_its_client(parent: int, campaign: TinyCampaign, own_tmp: Path, number: signal.Signals) -> None:
    assert launch(campaign.request("qualify")) == 0  # so that the lock names no earlier run
    client = _client(campaign)
    run = _running(campaign, own_tmp)
    assert run != client.pid
    beside = children_of(run)
    client.send_signal(number)
    client.wait(10)
    assert all(process_is_gone(pid) for pid in [run, *beside])
    assert not campaign.record.exists()
    assert parent_state()["pid"] == parent


def test_a_killed_run_tells_its_client(campaign: TinyCampaign, own_tmp: Path) -> None:
    assert launch(campaign.request("qualify")) == 0
    client = _client(campaign)
    os.kill(_running(campaign, own_tmp), signal.SIGKILL)
    assert client.wait(10) == 256 - signal.SIGKILL  # -9 as an exit status


def test_stop_ends_a_parent_and_nobody_waits_for_it_before(parent: int, own_tmp: Path) -> None:
    ask = "from inference_energy.measure.launcher import parent_state; print(parent_state()['pid'])"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", "another-parent")  # another socket: the module's parent goes on
        # Its output is read to the end, so a parent that kept its client's files would be waited for.
        client = subprocess.run([sys.executable, "-c", ask], capture_output=True, text=True, check=True, timeout=60)
        other = int(client.stdout)
        assert other == parent_state()["pid"] != parent
        assert stop_parent() is True
        assert process_is_gone(other)
        assert stop_parent() is False
        assert not launcher.socket_path().exists()


def test_runs_of_vllm_have_a_parent_of_their_own_and_both_are_stopped(own_tmp: Path) -> None:
    """Importing vLLM changes PyTorch: runs of transformers must not be forked from a parent that did."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", "more-parents")  # other sockets: the module's parent goes on
        pids = [parent_state(engine)["pid"] for engine in launcher.PARENTS]
        assert pids[0] != pids[1]
        assert parent_state()["pid"] == pids[0]
        assert stop_parent() is True
        assert all(process_is_gone(pid) for pid in pids)


def test_a_parent_dies_with_its_owner(own_tmp: Path) -> None:
    owner = subprocess.Popen(["sleep", "60"])
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", "owned-parent")
        patch.setenv("INFERENCE_ENERGY_OWNER_PID", str(owner.pid))
        pid = parent_state()["pid"]
        owner.kill()
        owner.wait()
        assert process_is_gone(pid)


# --- why a run failed ------------------------------------------------------------------------------

WORDS = ("batching/x", "failed", "", "")


def _ended(tmp_path: Path, failure: str | None) -> int:
    """Exit status of a forked process that performs a run."""
    request = replace(TinyCampaign(tmp_path / "results").request(), failure=failure)
    child = os.fork()
    if child == 0:
        try:
            launcher.run_and_exit(request)
        finally:
            os._exit(99)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


@pytest.mark.parametrize(
    ("error", "status", "retry"),
    [
        (SteadyStateError(*WORDS), EXPECTED_FAILURE, True),
        (TokenCountError(*WORDS), EXPECTED_FAILURE, True),
        (EngineError(*WORDS), EXPECTED_FAILURE, True),
        (RuntimeError("CUDA error: an illegal memory access was encountered"), 1, True),
        (KeyError(), 1, True),
        (MeterError(*WORDS), EXPECTED_FAILURE, False),
        (DeviceBusyError(*WORDS), EXPECTED_FAILURE, False),
        (DesignError(*WORDS), EXPECTED_FAILURE, False),
        (RecordError(*WORDS), EXPECTED_FAILURE, False),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else "",
)
def test_a_failing_run_leaves_its_reason_and_whether_another_attempt_may_help(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, status: int, retry: bool
) -> None:
    def failing(_: object) -> None:
        raise error

    monkeypatch.setattr(launcher, "perform", failing)
    reason = tmp_path / "reason.json"
    assert _ended(tmp_path, str(reason)) == status
    assert json.loads(reason.read_text()) == {
        "kind": type(error).__name__,
        "message": str(error) or type(error).__name__,
        "retry": retry,
    }


@pytest.mark.parametrize("failure", [None, "no such folder/because a file is there/reason.json"])
def test_a_reason_that_nobody_wants_or_that_cannot_be_kept_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], failure: str | None
) -> None:
    def failing(_: object) -> None:
        raise SteadyStateError("batching/x", "no steady state", "", "")

    (tmp_path / "no such folder").write_text("a file")
    monkeypatch.setattr(launcher, "perform", failing)
    assert _ended(tmp_path, None if failure is None else str(tmp_path / failure)) == EXPECTED_FAILURE
    assert capfd.readouterr().err == "error: batching/x: no steady state.\n"


def test_a_failing_run_ends_the_processes_of_its_engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(_: object) -> None:
        process = multiprocessing.get_context("fork").Process(target=time.sleep, args=(60,), daemon=True)
        process.start()
        (tmp_path / "pid").write_text(str(process.pid))
        raise EngineError("batching/x", "failed", "", "")

    monkeypatch.setattr(launcher, "perform", failing)
    assert _ended(tmp_path, None) == EXPECTED_FAILURE
    assert process_is_gone(int((tmp_path / "pid").read_text()))
