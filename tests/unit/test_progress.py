"""Progress: pace of runs side by side, joules of devices that take part, failures, tolerant reading."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

import pytest
import synthetic

from inference_energy.design import expand
from inference_energy.measure import attempts, progress
from inference_energy.records import write_record

RESOLVED = synthetic.small_campaign()
RUN_IDS = [run.run_id for run in expand(RESOLVED)]
RECORDS = synthetic.campaign_records(RESOLVED, extra_devices=1)


def _line(run: str, finished_s: float, wall_s: float = 30.0, **changes: Any) -> dict[str, Any]:
    return {"run": run, "finished_s": finished_s, "wall_s": wall_s, "energy_j": 100.0, "status": "ok", **changes}


def _write(folder: Path, lines: list[dict[str, Any]]) -> list[progress.Line]:
    for line in lines:
        attempts.append_line(folder / "logs" / "progress.jsonl", line)
    return progress.read(folder)


def test_a_report_counts_runs_and_joules_of_devices_that_take_part(tmp_path: Path) -> None:
    for i, record in enumerate(RECORDS[:2], start=1):
        output = tmp_path / "records" / f"{record.run_id}.json"
        write_record(output, record)
        said = progress.report(output, RUN_IDS, 20.0)
        assert said.startswith(f"[{i}/{len(RUN_IDS)}] {record.run_id}: ")
    started = [record.counter_started_j[0] or 0.0 for record in RECORDS[:2]]
    ended = [record.counter_ended_j[0] or 0.0 for record in RECORDS[:2]]
    energy_j = sum(ended) - sum(started)  # the second device idles and is nobody's
    assert f"{energy_j / 1000:.1f} kJ so far" in said
    assert progress.standing(tmp_path, RUN_IDS).energy_j == pytest.approx(energy_j, rel=1e-12)


def test_runs_that_followed_in_the_same_engine_are_lines_of_their_own(tmp_path: Path) -> None:
    """Three runs of one process that took 60 s: the first took what the others did not."""
    paths = [tmp_path / "records" / f"{record.run_id}.json" for record in RECORDS[:3]]
    for place, (path, record) in enumerate(zip(paths, RECORDS, strict=False)):
        write_record(path, record)
        os.utime(path, (1000.0 + 20 * place, 1000.0 + 20 * place))
    said = progress.report(paths[0], RUN_IDS, 60.0, paths[1:])
    lines = progress.read(tmp_path)
    assert [line.run for line in lines] == [record.run_id for record in RECORDS[:3]]
    assert [line.finished_s for line in lines] == [1000.0, 1020.0, 1040.0]
    walls_s = [record.process_ended_s for record in RECORDS[1:3]]
    assert [line.wall_s for line in lines] == pytest.approx([60.0 - sum(walls_s), *walls_s], rel=1e-12)
    assert "2 runs followed in its engine" in said
    assert progress.left_s(lines, 4) == pytest.approx(4 * 20.0, rel=1e-12)


def test_time_left_is_from_the_pace_and_not_from_the_length_of_a_run(tmp_path: Path) -> None:
    """Four lanes: a run ends every 7.5 s although each takes 30 s."""
    lines = _write(tmp_path, [_line(f"a/{i}.c1", 1000 + 7.5 * i) for i in range(12)])
    assert progress.left_s(lines, 40) == pytest.approx(40 * 7.5, rel=1e-12)


def test_a_pause_is_no_pace(tmp_path: Path) -> None:
    lines = _write(tmp_path, [_line(f"a/{i}.c1", second) for i, second in enumerate((0, 10, 90000, 90020, 90040))])
    assert progress.left_s(lines, 3) == pytest.approx(60.0, rel=1e-12)
    assert progress.left_s(lines[:3], 3) == pytest.approx(90.0, rel=1e-12)  # the first after the pause: its own wall
    assert progress.left_s([], 3) is None


def test_a_line_that_was_cut_off_and_a_run_twice(tmp_path: Path) -> None:
    _write(tmp_path, [_line("a/x.c1", 1.0, energy_j=5.0), _line("a/y.c1", 2.0), _line("a/x.c1", 3.0, energy_j=7.0)])
    path = tmp_path / "logs" / "progress.jsonl"
    path.write_text(path.read_text() + '{"run": "a/z', encoding="utf-8")
    lines = progress.read(tmp_path)
    assert [(line.run, line.energy_j) for line in lines] == [("a/y.c1", 100.0), ("a/x.c1", 7.0)]


def test_failures_are_said(tmp_path: Path) -> None:
    _write(tmp_path, [_line("a/x.c1", time.time(), energy_j=None, status="failed")])
    for _ in range(3):
        failed = {"failed_at_utc": "t", "kind": "A", "message": "b", "exit_status": 1}
        attempts.append_line(tmp_path / "attempts" / "a" / "x.c1.jsonl", failed)
    assert "3 failed attempts, 1 runs failed for good" in progress.standing(tmp_path, ["a/x.c1", "a/y.c1"]).sentence()


def test_only_runs_that_are_asked_for_are_planned(tmp_path: Path) -> None:
    assert progress.standing(tmp_path, RUN_IDS).n_planned == len(RUN_IDS)
    path = progress.asked_path(tmp_path)
    path.parent.mkdir()
    path.write_text("\n".join(RUN_IDS[:3]), encoding="utf-8")
    write_record(tmp_path / "records" / f"{RECORDS[5].run_id}.json", RECORDS[5])  # of another portion
    now = progress.standing(tmp_path, RUN_IDS)
    assert (now.n_done, now.n_planned) == (0, 3)


def test_many_processes_may_add_lines_at_once(tmp_path: Path) -> None:
    from concurrent.futures import ThreadPoolExecutor

    path = tmp_path / "many.jsonl"
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda i: attempts.append_line(path, {"i": i, "text": "x" * 300}), range(400)))
    assert sorted(json.loads(line)["i"] for line in path.read_text().splitlines()) == list(range(400))
