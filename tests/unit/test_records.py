"""Records are written whole or not at all, read back unchanged, and refused when they are of another kind."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from inference_energy.design import setting_id
from inference_energy.errors import RecordError
from inference_energy.readings import taking_part
from inference_energy.records import (
    READABLE_VERSIONS,
    SCHEMA_VERSION,
    Record,
    read_record,
    write_record,
    write_text_atomically,
)

GOLDEN = Path(__file__).resolve().parents[1] / "golden"


@pytest.fixture
def record() -> Record:
    return read_record(GOLDEN / "record_v1.json")


def _left_behind(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*") if path.is_file())


# --- reading and writing -------------------------------------------------------------------------


def test_a_record_reads_back_as_it_was_written(record: Record, tmp_path: Path) -> None:
    path = tmp_path / "records" / "batching" / "x.c1.json"
    write_record(path, record)
    assert read_record(path) == record
    assert _left_behind(tmp_path) == ["x.c1.json"]
    first = path.read_bytes()
    write_record(path, read_record(path))
    assert path.read_bytes() == first


@pytest.mark.parametrize("version", range(1, SCHEMA_VERSION + 1))
def test_every_version_has_a_stored_example_that_still_reads(version: int) -> None:
    assert version in READABLE_VERSIONS
    path = GOLDEN / f"record_v{version}.json"
    content = json.loads(path.read_text())
    assert content["schema_version"] == version
    identity = content["identity"]
    read = read_record(path)
    assert read.run_id == f"{identity['study']}/{identity['setting']}.c{identity['cycle']}"
    assert [interval.phase for interval in read.intervals] == [each["phase"] for each in content["intervals"]]


def test_the_first_version_says_nothing_of_what_came_later(record: Record) -> None:
    assert (record.n_attempts, record.launch.n_processes, record.launch.start, record.device_checks) == (1, 1, None, [])
    assert {interval.device_opened_s for interval in record.intervals} == {None}
    assert {interval.waited_s for interval in record.intervals} == {None}
    assert (record.engine, record.engine_samples, record.requests, record.launch.shared) == (None, None, None, None)
    assert {interval.iteration_first_token_s for interval in record.intervals} == {None}


def test_the_second_version_holds_what_several_gpus_need() -> None:
    """A run of tensor parallelism as it was measured on two NVIDIA H200s; only its trace is thinned, to ten samples."""
    record = read_record(GOLDEN / "record_v2.json")
    assert (record.levels.parallelism, record.levels.n_gpus, record.launch.n_processes) == ("tensor", 2, 2)
    assert taking_part(record) == [0, 1]
    assert len(record.trace.time_s) == len(record.trace.slow_time_s) == 10
    start = record.launch.start
    assert start is not None
    assert start.settled
    assert start.power_w == [84.873, 79.154]
    assert start.power_max_w == pytest.approx(98.528, abs=1e-3)
    windows = [interval for interval in record.intervals if interval.phase == "window"]
    assert len(windows) == 5
    for window in windows:
        assert window.device_opened_s is not None
        assert window.device_closed_s is not None
        assert max(window.device_opened_s) == window.opened_s  # each GPU's counter ticks at a moment of its own
        assert max(window.device_closed_s) == window.closed_s
        assert len(set(window.device_opened_s)) == 2
        assert window.waited_s == 0.0
        assert window.tokens is not None
        assert window.tokens.n_tokens_generated == 8 * 128 * len(window.iteration_duration_s)
    assert windows[0].counter_closed_j[1] == 75809.513
    assert [check.moment for check in record.device_checks] == ["before", "during", "after"]
    during = record.device_checks[1].devices
    assert [(state.metered, state.participates, state.n_own_processes) for state in during] == [(True, True, 1)] * 2
    assert setting_id(record.levels) == record.identity.setting


def test_the_third_version_holds_requests_that_arrive() -> None:
    """300 requests at once to vLLM's server on an NVIDIA H200, as measured but for a trace thinned to ten samples."""
    record = read_record(GOLDEN / "record_v3.json")
    shared, engine, samples, requests = record.launch.shared, record.engine, record.engine_samples, record.requests
    assert shared is not None
    assert (shared.position, shared.first_run) == (3, "arrival/llama-3.1-8b_bf16_b1_b8886722.c1")
    assert [interval.phase for interval in record.intervals] == ["warmup", "window", "idle_loaded"]  # the first loaded
    assert engine is not None
    assert (engine.name, engine.version, engine.graph_mode) == ("vllm_server", "0.22.0", "FULL_AND_PIECEWISE")
    assert (engine.n_kv_blocks, engine.n_tokens_per_kv_block, engine.n_preemptions) == (55398, 16, 0)
    assert samples is not None
    assert len(samples.time_s) == len(samples.n_running) == len(samples.kv_cache_fraction) == 21
    assert requests is not None
    assert set(requests.outcome) == {"ok"}
    assert len(requests.sent_s) == 300
    assert requests.n_tokens_counted == requests.n_tokens_reported == requests.n_tokens_requested
    assert record.workload is not None
    assert requests.n_input_tokens == record.workload.n_input_tokens_of
    window = record.intervals[1]
    assert window.tokens is not None
    assert window.tokens.n_tokens_generated == sum(requests.n_tokens_counted) == 300 * record.levels.n_output_tokens
    assert setting_id(record.levels) == record.identity.setting


def test_the_third_version_holds_first_tokens() -> None:
    """128 prompts at once in an engine that had served another run, on an NVIDIA H200; the trace is thinned alike."""
    record = read_record(GOLDEN / "record_v3_offline.json")
    assert record.requests is None
    assert record.launch.shared is not None
    assert record.launch.shared.position == 1
    windows = [interval for interval in record.intervals if interval.phase == "window"]
    assert [len(window.iteration_duration_s) for window in windows] == [4, 5, 5, 5, 4]
    assert windows[0].iteration_first_token_s is not None
    assert windows[0].iteration_first_token_s[:2] == pytest.approx([0.0778285, 0.0792234], abs=1e-7)
    for window in windows:
        firsts = window.iteration_first_token_s or []
        assert all(0 < one < whole for one, whole in zip(firsts, window.iteration_duration_s, strict=True))
    assert setting_id(record.levels) == record.identity.setting


def test_the_stored_example_keeps_its_numbers(record: Record) -> None:
    windows = [interval for interval in record.intervals if interval.phase == "window"]
    assert len(windows) == 5
    assert windows[0].counter_opened_j[0] == 1992.0
    assert windows[0].counter_closed_j[0] == 2532.0
    assert windows[0].tokens is not None
    assert windows[0].tokens.n_tokens_generated == 3072
    assert record.trace.counter_j[1][2] is None
    assert record.hardware.devices[1].participates is False


def test_the_stored_example_keeps_its_setting_id(record: Record) -> None:
    """A setting's name hashes all its levels: a change of defaults or factors would orphan every archive."""
    assert setting_id(record.levels) == record.identity.setting


# --- what is refused -----------------------------------------------------------------------------


def _changed(tmp_path: Path, change: Callable[[dict[str, Any]], object]) -> Path:
    content = json.loads((GOLDEN / "record_v1.json").read_text())
    change(content)
    path = tmp_path / "changed.json"
    path.write_text(json.dumps(content))
    return path


@pytest.mark.parametrize(("version", "shown"), [(0, "0"), (4, "4"), ("1", "'1'"), (None, "None")])
def test_another_schema_version_is_refused(tmp_path: Path, version: object, shown: str) -> None:
    path = _changed(tmp_path, lambda content: content.update(schema_version=version))
    with pytest.raises(RecordError) as caught:
        read_record(path)
    assert str(caught.value) == (
        f"{path}: schema version {shown}. Expected: version 1 or 2 or 3."
        " Use the release that wrote it, or measure it again."
    )


@pytest.mark.parametrize(
    ("change", "where"),
    [
        (lambda c: c.pop("identity"), "identity"),
        (lambda c: c["intervals"][3].pop("uncertainty_j"), "intervals.3.uncertainty_j"),
        (lambda c: c.update(note="by hand"), "note"),
        (lambda c: c["meter"].update(period_s="often"), "meter.period_s"),
        (lambda c: c["intervals"][0].update(phase="lunch"), "intervals.0.phase"),
        (lambda c: c.update(status="fine"), "status"),
    ],
)
def test_a_record_that_lacks_or_adds_something_is_refused(
    tmp_path: Path, change: Callable[[dict[str, Any]], object], where: str
) -> None:
    path = _changed(tmp_path, change)
    with pytest.raises(RecordError) as caught:
        read_record(path)
    assert str(caught.value).startswith(f"{path}: {where}: ")
    assert f"Expected: a record of version {SCHEMA_VERSION}." in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_record_says_how_to_get_it(tmp_path: Path) -> None:
    with pytest.raises(RecordError, match=r"x\.json: no such record\. Measure it: inference-energy measure"):
        read_record(tmp_path / "x.json")


@pytest.mark.parametrize("text", ["", "{", '{"schema_version": 1', "\xff"])
def test_a_half_written_file_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "x.json"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(RecordError, match=r"is no JSON.*Delete it: the run is repeated"):
        read_record(path)


def test_a_list_is_no_record(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    path.write_text("[1]")
    with pytest.raises(RecordError, match="schema version None"):
        read_record(path)


# --- faults while writing ------------------------------------------------------------------------


def test_a_full_disk_leaves_nothing(record: Record, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    path = tmp_path / "x.json"
    with pytest.raises(RecordError) as caught:
        write_record(path, record)
    assert str(caught.value) == (
        f"{path}: cannot be written: No space left on device. Expected: a writable folder with room."
        " Free some space and run again: no record is lost."
    )
    assert _left_behind(tmp_path) == []


def test_a_full_disk_keeps_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "x.txt"
    write_text_atomically(path, "old")
    monkeypatch.setattr(os, "fsync", _raise_disk_full)
    with pytest.raises(RecordError):
        write_text_atomically(path, "new")
    assert path.read_text() == "old"
    assert _left_behind(tmp_path) == ["x.txt"]


def _raise_disk_full(_: int) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_folder_that_is_a_file_is_an_error(record: Record, tmp_path: Path) -> None:
    (tmp_path / "records").write_text("not a folder")
    with pytest.raises(RecordError, match="Expected: a writable folder with room"):
        write_record(tmp_path / "records" / "x.json", record)


WRITER = """
import sys
from pathlib import Path
from inference_energy import records
path = Path(sys.argv[1])
record = records.read_record(Path(sys.argv[2]))
text = record.model_dump_json() + " " * 5_000_000  # long enough to be caught half-way
print("ready", flush=True)
while True:
    records.write_text_atomically(path, text)
"""


def test_kill_9_during_a_write_leaves_no_half_record(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    for delay_s in (0.0, 0.005, 0.013, 0.03):
        process = subprocess.Popen(
            [sys.executable, "-c", WRITER, str(path), str(GOLDEN / "record_v1.json")], stdout=subprocess.PIPE, text=True
        )
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        time.sleep(delay_s)
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()
        if path.exists():
            read_record(path)  # whole, or it would raise
            path.unlink()
        assert all(name.startswith(".x.json.") and name.endswith(".tmp") for name in _left_behind(tmp_path))
