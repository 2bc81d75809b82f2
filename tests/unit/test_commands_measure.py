"""The commands that plan and measure, as they are typed: what they print, and how they end."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

import pytest
import synthetic
from fake_run import FakeRun
from tiny_campaign import TinyCampaign

from inference_energy import archive, cli, commands_measure
from inference_energy.config import ResolvedCampaign
from inference_energy.design import expand
from inference_energy.measure import attempts, launcher, progress, session
from inference_energy.records import Record, read_record, write_record

CONFIG = synthetic.REPOSITORY / "config"
H200 = str(CONFIG / "campaigns" / "h200.yaml")
RESOLVED = synthetic.small_campaign()


def _status(*arguments: object) -> int:
    """Exit status of a command."""
    with pytest.raises(SystemExit) as ended:
        cli.main([str(argument) for argument in arguments])
    return int(ended.value.code or 0)


@pytest.fixture
def results(tmp_path: Path) -> Path:
    """Results with a synthetic campaign of which three of eight runs are measured."""
    folder = tmp_path / "results" / "synthetic"
    folder.mkdir(parents=True)
    (folder / "campaign.yaml").write_text(RESOLVED.dump(), encoding="utf-8")
    for record in synthetic.campaign_records(RESOLVED)[:3]:
        write_record(folder / "records" / f"{record.run_id}.json", record)
    return tmp_path / "results"


def _plan(campaign: object, results: Path, *more: object) -> int:
    return _status("plan", campaign, "--config-dir", CONFIG, "--results", results, *more)


# --- plan ------------------------------------------------------------------------------------------


def test_the_ids_are_printed_in_the_order_of_measuring(results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert _plan(results / "synthetic" / "campaign.yaml", results, "--ids") == 0
    said = capsys.readouterr()
    assert said.out.splitlines() == [run.run_id for run in expand(RESOLVED)]
    assert said.err == ""


def test_ids_of_some_portions_and_cycles_only(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runs = expand(synthetic.resolved_campaign("h200"))
    assert _plan(H200, tmp_path / "none", "--ids", "--portions", 2, 3, "--cycles", 1) == 0
    expected = [run.run_id for run in runs if run.portion in (2, 3) and run.traversal == 1]
    assert capsys.readouterr().out.splitlines() == expected
    assert 0 < len(expected) < len(runs) / 4
    assert _plan(H200, tmp_path / "none", "--ids", "--studies", "tf32", "lengths", "--cycles", 2) == 0
    expected = [run.run_id for run in runs if run.study in ("tf32", "lengths") and run.traversal == 2]
    assert capsys.readouterr().out.splitlines() == expected
    assert not (tmp_path / "none").exists()  # planning writes nothing


def test_a_plan_says_what_is_measured_and_what_the_rest_takes(
    results: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    campaign = results / "synthetic" / "campaign.yaml"
    before = sorted(results.rglob("*"))
    assert _plan(campaign, results, "--hardware", "SYNTHETIC GPU", "--gpus", 2, "--time", 30) == 0
    said = capsys.readouterr().out
    assert "synthetic: 8 runs, 4 settings in 2 cycles; 3 runs are measured, 5 are left" in said
    assert "From 3 earlier runs, 3 settings" in said
    assert "On 2 GPUs side by side: " in said
    assert "30 s on 2 GPUs reach " in said
    assert "of 5 runs" in said
    assert sorted(results.rglob("*")) == before


def test_a_longer_time_reaches_further(results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    reached = []
    for seconds in (0, 15, 1e6):
        assert _plan(results / "synthetic" / "campaign.yaml", results, "--time", seconds) == 0
        line = next(line for line in capsys.readouterr().out.splitlines() if " on 1 GPUs reach " in line)
        reached.append(int(line.partition(" reach ")[2].split()[0]))
    assert reached[0] == 0 < reached[1] < reached[2] == 5


def test_price_grid_and_building_can_be_chosen_and_must_be_known(
    results: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    campaign = results / "synthetic" / "campaign.yaml"
    assert _plan(campaign, results, "--grid", "Germany", "--price", "household in Germany") == 0
    assert "household in Germany" in capsys.readouterr().out
    assert _plan(campaign, results, "--grid", "Atlantis") == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert "'Atlantis' is not there" in said.err
    assert said.err.startswith("error: ")
    assert len(said.err.splitlines()) == 1


def test_without_earlier_records_a_plan_says_what_windows_and_idle_take(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _plan(CONFIG / "campaigns" / "local.yaml", tmp_path / "none") == 0
    said = capsys.readouterr().out
    assert "local: 12 runs, 6 settings in 2 cycles; 0 runs are measured, 12 are left" in said
    assert "No earlier records to estimate from" in said


# --- measure ---------------------------------------------------------------------------------------


@pytest.fixture
def tiny(tmp_path: Path) -> TinyCampaign:
    return TinyCampaign(tmp_path / "results")


def _measure(tiny: TinyCampaign, run_id: str | None = None, *also: str) -> int:
    asked = ("--run", run_id or tiny.run_id, "--also", *also)
    return _status("measure", tiny.file, "--config-dir", CONFIG, "--results", tiny.results, *asked)


def _any_record(tiny: TinyCampaign) -> None:
    record = synthetic.campaign_records(tiny.resolved)[0]
    assert record.run_id == tiny.run_id
    write_record(tiny.record, record)


def test_a_measured_run_is_asked_for_with_all_that_its_process_needs(
    tiny: TinyCampaign, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked: list[session.Request] = []

    def launch(request: session.Request) -> int:
        asked.append(request)
        _any_record(tiny)
        return 0

    monkeypatch.setattr(launcher, "launch", launch)
    monkeypatch.setattr("sys.argv", ["/somewhere/inference-energy", "measure", "it"])
    assert _measure(tiny) == 0
    (request,) = asked
    assert (request.action, request.run_id, request.output) == ("measure", tiny.run_id, str(tiny.record))
    assert (request.campaign_file, request.launcher, request.attempt) == (str(tiny.file), "fork", 1)
    assert request.command == "inference-energy measure it"
    assert 0 <= time.monotonic() - request.started_s < 60
    assert capsys.readouterr().err.startswith(f"[1/2] {tiny.run_id}: ")
    assert [path.name for path in tiny.folder.glob("logs/*")] == ["progress.jsonl"]


SHARED = {"engine": "vllm", "engine_process": "shared", "prefill": "chunked"}


def test_an_engine_serves_what_it_can_and_no_setting_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = [SHARED, SHARED | {"batch_size": 2}, SHARED | {"execution": "graphs"}, {}]
    tiny = TinyCampaign(tmp_path / "results", settings=settings)
    runs = {
        (run.levels.engine, run.levels.execution, run.levels.batch_size, run.cycle): run.run_id
        for run in expand(tiny.resolved)
    }
    first, later = runs["vllm", "eager_mode", 1, 1], runs["vllm", "eager_mode", 2, 2]
    asked: list[session.Request] = []

    def launch(request: session.Request) -> int:
        asked.append(request)
        return launcher.EXPECTED_FAILURE

    monkeypatch.setattr(launcher, "launch", launch)
    assert _measure(tiny, first, later) == launcher.EXPECTED_FAILURE
    assert [request.also for request in asked] == [[later]]  # another setting, in another cycle
    capsys.readouterr()
    for other, said in (
        (runs["vllm", "eager_mode", 1, 2], "is asked for 2 times"),
        (runs["vllm", "graphs", 1, 1], "needs another engine"),
        (runs["transformers", "eager_mode", 1, 1], "needs another engine"),
    ):
        assert _measure(tiny, first, later, other) == 2
        assert said in capsys.readouterr().err
    assert len(asked) == 1


def test_a_run_that_is_measured_is_left_as_it_is(
    tiny: TinyCampaign, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    _any_record(tiny)
    before = tiny.record.read_bytes()
    monkeypatch.setattr(launcher, "launch", None)  # nobody is asked
    assert _measure(tiny) == 0
    assert capsys.readouterr().err == f"{tiny.run_id}: already measured ({tiny.record})\n"
    assert tiny.record.read_bytes() == before


@pytest.mark.parametrize(
    ("ended", "status", "words"),
    [
        (launcher.EXPECTED_FAILURE, 2, ""),  # the measuring process has said why
        (attempts.INTERRUPTED, 130, ""),
        (1, 2, "its process ended with status 1; there is no record"),
        (-9, 2, "its process ended with status -9 (killed); there is no record"),
    ],
)
def test_a_run_without_a_record_ends_the_command_with_its_status(
    tiny: TinyCampaign,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    ended: int,
    status: int,
    words: str,
) -> None:
    monkeypatch.setattr(attempts, "carry_out", lambda *_: ended)
    assert _measure(tiny) == status
    said = capsys.readouterr().err
    error = f"error: run {tiny.run_id}: {words}. The error is above; run again to repeat it.\n"
    assert said == (error if words else "")
    assert not tiny.record.exists()


def test_leftovers_of_a_killed_process_are_cleared_away(tiny: TinyCampaign, monkeypatch: pytest.MonkeyPatch) -> None:
    gone = 2**22 + 1  # above the greatest process id
    folders = [tiny.record.parent, tiny.folder / "qualification", tiny.folder / "attempts" / "faults", tiny.folder]
    for folder in folders:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f".x.json.{gone}.tmp").write_text("half")
        (folder / f".x.json.{os.getpid()}.tmp").write_text("half, but somebody is at it")
    monkeypatch.setattr(attempts, "carry_out", lambda *_: attempts.INTERRUPTED)
    assert _measure(tiny) == 130
    assert sorted(tiny.folder.rglob("*.tmp")) == sorted(folder / f".x.json.{os.getpid()}.tmp" for folder in folders)


def test_a_replay_needs_no_device_and_a_run_of_its_archive(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    archived = FakeRun()
    content = archived.resolved.model_dump(mode="json")
    content["campaign"] |= {"name": "replayed"}
    content["campaign"]["measurement"] |= {"source": "replay", "replay_of": "synthetic"}
    resolved = ResolvedCampaign.model_validate(content)
    results = tmp_path / "results"
    campaign = results / "replayed" / "campaign.yaml"
    campaign.parent.mkdir(parents=True)
    campaign.write_text(resolved.dump(), encoding="utf-8")
    folders, records = [], [archived.measured()]

    def read_archive(folder: Path) -> tuple[ResolvedCampaign, list[Record]]:
        folders.append(folder)
        return archived.resolved, records

    monkeypatch.setattr(archive, "read_archive", read_archive)
    monkeypatch.setattr(launcher, "launch", None)  # nobody is asked
    first, second = (run.run_id for run in expand(resolved))
    assert first == records[0].run_id
    options = ("measure", campaign, "--config-dir", CONFIG, "--results", results, "--run")
    assert _status(*options, first) == 0
    record = read_record(campaign.parent / "records" / f"{first}.json")
    assert (record.run_id, record.meter.energy_method, record.provenance.replay_of) == (first, "replay", "synthetic")
    assert folders == [results / "synthetic"]
    assert _status(*options, second) == 2
    assert f"run {second}: is not in the archive {results / 'synthetic'}" in capsys.readouterr().err


# --- qualify and launcher --------------------------------------------------------------------------


def test_a_qualification_is_printed(
    tiny: TinyCampaign, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tiny.folder / "qualification"
    folder.mkdir()
    (folder / "earlier.json").write_text("{}")

    def launch(request: session.Request) -> int:
        assert (request.action, request.output) == ("qualify", str(folder))
        (folder / "S2.a.json").write_text('{"a": 1}')
        (folder / "S2.b.json").write_text('{"b": 2}')
        return 0

    monkeypatch.setattr(launcher, "launch", launch)
    options = ("qualify", tiny.file, "--config-dir", CONFIG, "--results", tiny.results)
    assert _status(*options) == 0
    assert capsys.readouterr().out == '{"a": 1}\n{"b": 2}\n'
    monkeypatch.setattr(launcher, "launch", lambda _: 2)
    assert _status(*options) == 2
    assert capsys.readouterr().err == "error: qualification: failed with status 2. The reason is above.\n"


def test_no_parent_is_nothing_to_stop(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(launcher, "socket_path", lambda _: tmp_path / "none.sock")
    assert _status("launcher", "stop") == 0
    assert capsys.readouterr().err == "no parent was running\n"
    monkeypatch.setattr(launcher, "parent_state", lambda: {"pid": 7})
    assert _status("launcher", "state") == 0
    assert json.loads(capsys.readouterr().out) == {"pid": 7}


# --- run -------------------------------------------------------------------------------------------

#: Stands in for Snakemake: planning tells how many jobs there are, working takes a while.
SNAKEMAKE = """
import sys, time
if "--dry-run" in sys.argv:
    print("{planned}")
    sys.exit({status})
time.sleep({work_s})
sys.exit(5)
"""


@pytest.fixture
def stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    def make(work_s: float, planned: str = "", status: int = 0) -> None:
        (tmp_path / "snakemake.py").write_text(SNAKEMAKE.format(work_s=work_s, planned=planned, status=status))
        monkeypatch.setenv("PYTHONPATH", str(tmp_path))

    return make


def test_a_workflow_that_ends_in_time_keeps_its_status(
    stand_in: Any, results: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stand_in(0)
    assert _status("run", "--budget-s", 30, "--results", results, "--", "--cores", 1) == 5
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("planned", "status", "words"),
    [
        (r"job  count\nmeasure  12\ntotal  30", 0, "12 runs are left: the same command goes on with them"),
        (r"job  count\npage  5\ntotal  6", 0, "Every run is measured, tables or pages are left: the same command goes"),
        ("Nothing to be done", 0, "Nothing is left to do"),
        ("a lock", 1, "The same command goes on"),
    ],
)
def test_a_spent_budget_says_what_is_left(
    stand_in: Any, results: Path, capsys: pytest.CaptureFixture[str], planned: str, status: int, words: str
) -> None:
    stand_in(60, planned, status)
    assert _status("run", "--budget-s", 0.5, "--results", results, "--", "--cores", 1) == 0
    first, *others = capsys.readouterr().err.splitlines()
    assert first == "0 s are spent: finished what was in progress. Stopped as asked, whatever Snakemake calls it"
    assert others[-1].startswith(words)


def test_campaigns_measured_meanwhile_say_where_they_stand(
    stand_in: Any, results: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    stand_in(60, "Nothing to be done")
    monkeypatch.setattr(commands_measure, "_device_here", lambda _: "SYNTHETIC GPU")
    log = results / "synthetic" / "logs" / "progress.jsonl"
    runs = [run.run_id for run in expand(RESOLVED)]
    for run_id in runs[:3]:
        progress.report(results / "synthetic" / "records" / f"{run_id}.json", runs, 10.0)
    for age_s, is_told in ((3600, False), (-60, True)):
        os.utime(log, (time.time() - age_s, time.time() - age_s))
        assert _status("run", "--budget-s", 0.3, "--results", results, "--", "--cores", 1) == 0
        said = capsys.readouterr().err
        assert ("synthetic: 3 of 8 runs; " in said) is is_told
        assert ("kJ so far" in said) is is_told
        assert ("by earlier records the rest takes" in said) is is_told
