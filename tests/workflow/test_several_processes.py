"""Several processes that generate together, and traffic, from the command line to the tables: on this machine's CPU.

The three runs are measured side by side, each with a device lock of its own: what counts here is what they generate,
wait for and record, not how much energy that takes.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tiny_campaign import CLI, TinyCampaign

from inference_energy import tables
from inference_energy.design import expand
from inference_energy.measure import session
from inference_energy.readings import taking_part
from inference_energy.records import Record, read_record

pytestmark = pytest.mark.slow
DELAY_S, PAUSE_S, N_OUTPUT = 0.15, 0.5, 8
#: Two of two batches a pass; a burst is one pass of a process.
REPLICAS: dict[str, Any] = {
    "parallelism": "replicas",
    "n_gpus": 2,
    "batch_size": 2,
    "n_prompts": 8,
    "traffic": "burst",
    "delay_min_s": DELAY_S,
    "delay_max_s": DELAY_S,
    "burst_interval_s": PAUSE_S,
    "burst_size": 2,
}
DUPLICATED: dict[str, Any] = {
    "parallelism": "replicas_duplicated",
    "n_gpus": 2,
    "batch_size": 3,
    "traffic": "constant",
    "delay_min_s": 0.2,
    "delay_max_s": 0.2,
    "delay_every": "query",
}
TENSOR: dict[str, Any] = {"parallelism": "tensor", "n_gpus": 2, "batch_size": 4}


@pytest.fixture(scope="module")
def campaign() -> Iterator[TinyCampaign]:
    """The first cycle, measured."""
    folder = Path(tempfile.mkdtemp(prefix="ie-"))
    tiny = TinyCampaign(folder / "results", settings=[REPLICAS, DUPLICATED, TENSOR], idle_s=0.1)
    session.perform(tiny.request("qualify"))
    measuring = []
    for number, run in enumerate(run for run in expand(tiny.resolved) if run.cycle == 1):
        own = folder / str(number)
        own.mkdir()
        environment = {**os.environ, "TMPDIR": str(own)}
        with (own / "output.txt").open("wb") as output:
            command = tiny.measure_command(run.run_id)
            measuring.append(
                (own, environment, subprocess.Popen(command, env=environment, stdout=output, stderr=output))
            )
    try:
        for own, _, process in measuring:
            assert process.wait(timeout=150) == 0, (own / "output.txt").read_text()
        yield tiny
    finally:
        for _, environment, process in measuring:
            process.kill()
            process.wait()
            subprocess.run([*CLI, "launcher", "stop"], env=environment, capture_output=True, check=False)
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="module")
def records(campaign: TinyCampaign) -> dict[str, Record]:
    """By parallelism."""
    found = [read_record(path) for path in (campaign.folder / "records").rglob("*.json")]
    assert len(found) == 3
    return {record.levels.parallelism: record for record in found}


def _windows(record: Record) -> list[tuple[int, int, float, float]]:
    """Iterations, output tokens, simulated waiting and duration of each window."""
    found = []
    for interval in record.intervals:
        if interval.phase == "window":
            assert interval.tokens is not None
            assert interval.waited_s is not None
            tokens = interval.tokens
            assert tokens.n_tokens_requested == tokens.n_tokens_generated == tokens.n_tokens_non_padding
            assert tokens.n_input_tokens == tokens.n_tokens_requested  # prompts are as long as answers
            n_iterations, work_s = len(interval.iteration_duration_s), sum(interval.iteration_duration_s)
            found.append((n_iterations, tokens.n_tokens_generated, interval.waited_s, work_s))
    assert len(found) == 5
    return found


def test_a_record_says_how_many_processes_generated(records: dict[str, Record]) -> None:
    for parallelism, record in records.items():
        assert (record.status, record.launch.n_processes, record.n_attempts) == ("ok", 2, 1), parallelism
        assert record.launch.parent_cuda_initialised is False
        assert taking_part(record)  # the CPU, which the processes share
    assert len({record.identity.sitting for record in records.values()}) == 1


@pytest.mark.parametrize(
    ("parallelism", "n_answers", "n_answers_per_pass", "n_batches"),
    [("replicas", 2 * 2, 8, 2), ("replicas_duplicated", 2 * 3, 6, 1), ("tensor", 4, 4, 1)],
)
def test_tokens_are_counted_over_all_processes(
    records: dict[str, Record], parallelism: str, n_answers: int, n_answers_per_pass: int, n_batches: int
) -> None:
    record = records[parallelism]
    for n_iterations, n_tokens, _, _ in _windows(record):
        assert n_iterations > 0
        assert n_tokens == n_iterations * n_answers * N_OUTPUT
    assert record.workload is not None
    assert (record.workload.n_prompts, record.workload.n_batches) == (n_answers_per_pass, n_batches)


def test_replicas_share_the_prompts_and_duplicates_repeat_them(records: dict[str, Record]) -> None:
    for parallelism, n_prompts in (("replicas", 8), ("replicas_duplicated", 3), ("tensor", 4)):
        workload = records[parallelism].workload
        assert workload is not None
        assert workload.n_non_padding_input_tokens == n_prompts * 8  # of different prompts


def test_waiting_is_that_of_whole_bursts_and_belongs_to_the_window(records: dict[str, Record]) -> None:
    windows = _windows(records["replicas"])
    n_iterations = sum(n for n, *_ in windows)
    assert n_iterations % 2 == 0  # the windows together hold whole bursts
    assert sum(waited_s for _, _, waited_s, _ in windows) == pytest.approx(
        n_iterations * DELAY_S + n_iterations / 2 * PAUSE_S, rel=1e-9
    )
    for _, _, waited_s, work_s in windows:
        assert work_s > waited_s > 0
    for n, _, waited_s, work_s in _windows(records["replicas_duplicated"]):
        assert waited_s == pytest.approx(n * 3 * 0.2, rel=1e-9)  # a batch waits for each of its queries
        assert work_s > waited_s
    assert [waited_s for _, _, waited_s, _ in _windows(records["tensor"])] == [0.0] * 5


def test_the_tables_accept_them(campaign: TinyCampaign, records: dict[str, Record]) -> None:
    command = [*CLI, "aggregate", str(campaign.folder), "--source", "measured", "--allow-missing"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    runs = tables.read("runs", campaign.folder / "tables").set_index("parallelism")
    assert set(runs.index) == set(records)
    assert (runs["n_processes"] == 2).all()
    assert (runs["status"] == "ok").all()
    windows = tables.read("windows", campaign.folder / "tables")
    for name, record in records.items():
        mine = windows[windows["setting"] == record.identity.setting]
        assert mine["n_output_tokens_measured"].tolist() == [n_tokens for _, n_tokens, _, _ in _windows(record)]
        assert mine["waited_s"].tolist() == [waited_s for _, _, waited_s, _ in _windows(record)]
        assert (mine["energy_j_per_output_token"] > 0).all(), name
        assert runs.loc[name, "energy_j_per_output_token"] > 0
