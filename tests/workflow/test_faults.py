"""Faults while measuring for real: the CPU engine, a tiny model, the real lock and the real files.

A run that is to be killed is forked from this process, which holds the imports and has used none of
them, as the launcher's parent does; it kills itself with SIGKILL at a chosen moment.
"""

from __future__ import annotations

import errno
import os
import resource
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import synthetic
from tiny_campaign import CLI, TinyCampaign, children_of, holder_of_the_device, process_is_gone

from inference_energy import records
from inference_energy.errors import MeterError, RecordError
from inference_energy.measure import launcher, session
from inference_energy.measure.devices import claim, find_devices
from inference_energy.measure.engines.transformers import TransformersEngine, import_everything
from inference_energy.measure.meter import SystemClock
from inference_energy.measure.sampler import CodeCarbonCompanion
from inference_energy.records import Record, read_record, write_record

pytestmark = pytest.mark.slow
ANY_RECORD = synthetic.campaign_records(synthetic.small_campaign())[0]


@pytest.fixture(scope="module", autouse=True)
def own_tmp(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A short folder for sockets and locks: no other parent and no other run is met."""
    tmp_path_factory.getbasetemp()  # made now, or it would be made inside, and go with it
    folder = Path(tempfile.mkdtemp(prefix="ie-"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TMPDIR", str(folder))
        patch.setattr(tempfile, "tempdir", str(folder))
        yield folder
        launcher.stop_parent()
    shutil.rmtree(folder, ignore_errors=True)  # the parent takes its socket away meanwhile


@pytest.fixture(scope="module")
def campaign(own_tmp: Path) -> TinyCampaign:
    """A qualified campaign; this process holds the imports for runs that it forks."""
    import codecarbon  # noqa: F401

    import_everything()
    tiny = TinyCampaign(own_tmp / "results")
    session.perform(tiny.request("qualify"))
    return tiny


def _forked(body: Callable[[], None]) -> tuple[int, list[int]]:
    """How a forked process that does `body` ended (as `subprocess` says it), and its children meanwhile."""
    child = os.fork()
    if child == 0:
        try:
            body()
        finally:
            os._exit(3)
    seen: set[int] = set()
    while True:
        pid, status = os.waitpid(child, os.WNOHANG)
        if pid:
            return os.waitstatus_to_exitcode(status), sorted(seen)
        seen |= set(children_of(child))
        time.sleep(0.02)


def _die(*_: Any, **__: Any) -> Any:
    os.kill(os.getpid(), signal.SIGKILL)


def _die_in(iteration: int) -> Callable[[TransformersEngine], Any]:
    """A stand-in for `iterate` that kills the process in the iteration of this number."""
    iterate, count = TransformersEngine.iterate, iter(range(10**6))

    def dying(engine: TransformersEngine, *arguments: Any, **options: Any) -> Any:
        return _die() if next(count) == iteration else iterate(engine, *arguments, **options)

    return dying


def _require_untouched(campaign: TinyCampaign, files: set[str]) -> None:
    """No new file, and the device is free; threads of a killed helper may hold it for some milliseconds."""
    assert campaign.files() == files
    with claim(find_devices("cpu"), 1, False, "test", 5.0, SystemClock()):
        pass


# --- SIGKILL ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("moment", "patched"),
    [
        ("load", (TransformersEngine, "load", _die)),
        ("warm-up", (TransformersEngine, "iterate", _die_in(1))),
        ("window", (TransformersEngine, "iterate", _die_in(20))),
    ],
    ids=["load", "warm-up", "window"],
)
def test_a_run_killed_while_measuring_leaves_nothing(
    campaign: TinyCampaign, monkeypatch: pytest.MonkeyPatch, moment: str, patched: tuple[Any, str, Any]
) -> None:
    files = campaign.files()
    monkeypatch.setattr(*patched)
    status, children = _forked(lambda: session.perform(campaign.request()))
    assert status == -signal.SIGKILL, f"the run did not reach its {moment}"
    assert children, "CodeCarbon's process was not seen"
    assert all(process_is_gone(pid) for pid in children)
    _require_untouched(campaign, files)


@pytest.mark.parametrize("call", ["fsync", "open"])
def test_a_run_killed_while_writing_leaves_no_half_record(
    campaign: TinyCampaign, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    monkeypatch.setattr(session._Measuring, "_record", lambda *_: ANY_RECORD)
    if call == "fsync":
        monkeypatch.setattr(records.os, "fsync", _die)
    else:
        monkeypatch.setattr(Path, "replace", _die)
    status, _ = _forked(lambda: session.perform(campaign.request()))
    assert status == -signal.SIGKILL
    monkeypatch.undo()
    assert not campaign.record.exists()
    left = list(campaign.record.parent.iterdir())
    assert all(path.name.startswith(".") and path.name.endswith(".tmp") for path in left)
    for path in left:  # a killed process cannot clean up; nobody takes such a file for a record
        path.unlink()
    _require_untouched(campaign, campaign.files())


def test_after_all_this_the_run_is_measured(campaign: TinyCampaign) -> None:
    done = subprocess.run(campaign.measure_command(), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    record = read_record(campaign.record)
    assert record.run_id == campaign.run_id
    assert record.status == "ok"
    assert sum(interval.phase == "window" for interval in record.intervals) == 5
    assert record.launch.launcher == "fork"
    assert record.launch.parent_cuda_initialised is False
    again = subprocess.run(campaign.measure_command(), capture_output=True, text=True, check=False)
    assert again.returncode == 0
    assert "already measured" in again.stderr


def _again(campaign: TinyCampaign) -> session.Request:
    """To measure a run that has a record, into another file."""
    return replace(campaign.request(), output=str(campaign.record.with_name("again.json")))


# --- refusals --------------------------------------------------------------------------------------


def test_a_second_campaign_on_the_device_is_refused_and_told_who_holds_it(own_tmp: Path) -> None:
    first = TinyCampaign(own_tmp / "results", "first", idle_s=60.0)
    second = TinyCampaign(own_tmp / "results", "second")
    for tiny in (first, second):
        session.perform(tiny.request("qualify"))
    running = subprocess.Popen(first.measure_command())
    try:
        holder = holder_of_the_device(own_tmp, f"first/{first.run_id}")
        refused = subprocess.run(second.measure_command(), capture_output=True, text=True, check=False)
    finally:
        running.kill()
        running.wait()
    assert refused.returncode == 2
    (line,) = refused.stderr.splitlines()
    assert line.startswith("error: ")
    assert f'0 of 1 devices are free; other runs hold the rest: {{"run": "first/{first.run_id}", "pid": ' in line
    assert f'"pid": {holder["pid"]}, ' in line
    assert "Wait for them, or end them." in line
    assert not second.record.exists()
    assert process_is_gone(holder["pid"])
    _require_untouched(second, second.files())


def test_an_unknown_run_is_refused(campaign: TinyCampaign) -> None:
    files = campaign.files()
    done = subprocess.run(campaign.measure_command("faults/x.c1"), capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr == (
        "error: run: 'faults/x.c1' is not in the design of 2 runs. Expected: <study>/<setting>.c<cycle>."
        " inference-energy plan lists them.\n"
    )
    assert campaign.files() == files


def test_no_meter_at_all_is_an_error(campaign: TinyCampaign, monkeypatch: pytest.MonkeyPatch) -> None:
    files = campaign.files()

    def broken(_: CodeCarbonCompanion) -> Any:
        raise OSError("no sensors")

    monkeypatch.setattr(session, "make_counter", lambda *_: None)
    monkeypatch.setattr(CodeCarbonCompanion, "_tracker", broken)
    with pytest.raises(MeterError, match="no energy meter: no NVML, no readable RAPL, and CodeCarbon does not start"):
        session.perform(_again(campaign))
    _require_untouched(campaign, files)


def test_a_record_of_another_version_stops_the_tables(own_tmp: Path) -> None:
    resolved = synthetic.small_campaign()
    folder = own_tmp / "results" / "synthetic"
    folder.mkdir()
    (folder / "campaign.yaml").write_text(resolved.dump(), encoding="utf-8")
    for record in synthetic.campaign_records(resolved):
        write_record(folder / "records" / f"{record.run_id}.json", record)
    path = folder / "records" / f"{ANY_RECORD.run_id}.json"
    text = path.read_text(encoding="utf-8")
    path.write_text(text.replace('"schema_version":2', '"schema_version":7'), encoding="utf-8")
    command = [*CLI, "aggregate", str(folder), "--source", "measured"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr == (
        f"error: {path}: schema version 7. Expected: version 1 or 2 or 3. Use the release that wrote it, or measure it"
        " again.\n"
    )
    assert not (folder / "tables").exists()


# --- a full disk -----------------------------------------------------------------------------------


def _written(campaign: TinyCampaign, record: Record, monkeypatch: pytest.MonkeyPatch) -> str:
    """The error with which a run whose record is `record` ends."""
    monkeypatch.setattr(session._Measuring, "_record", lambda *_: record)
    with pytest.raises(RecordError) as caught:
        session.perform(_again(campaign))
    monkeypatch.undo()
    assert _again(campaign).output in str(caught.value)
    return str(caught.value)


def test_a_file_that_cannot_grow_is_a_clear_error(campaign: TinyCampaign, monkeypatch: pytest.MonkeyPatch) -> None:
    files = campaign.files()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
    try:
        words = _written(campaign, ANY_RECORD, monkeypatch)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert "cannot be written: File too large. Expected: a writable folder with room." in words
    _require_untouched(campaign, files)


def test_a_full_disk_is_a_clear_error_and_says_what_to_do(
    campaign: TinyCampaign, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = campaign.files()

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(records.os, "fsync", full)
    words = _written(campaign, ANY_RECORD, monkeypatch)
    assert "cannot be written: No space left on device." in words
    assert words.endswith("Free some space and run again: no record is lost.")
    _require_untouched(campaign, files)
