"""The whole DAG, from a clean copy of the project to its report, with real runs on this machine's CPU."""

from __future__ import annotations

import itertools
import json
import os
import signal
import time
from pathlib import Path

import pytest
from workflow_project import ROOT, SMOKE, Project, planned

from inference_energy.questions import QUESTIONS
from inference_energy.render import loaded_tables

pytestmark = pytest.mark.slow
NOTEBOOKS = {path.stem: loaded_tables(path) for path in (ROOT / "notebooks").glob("*.ipynb")}
PAGES = {"page": len(NOTEBOOKS), "pdf": 1, "index": 1, "all": 1}
REPORT = {"context": 1, **PAGES}
FOLLOWS = {"aggregate": 1, "check": 1, "analyse": len(QUESTIONS), **REPORT}
SMOKE_ALONE = ("--configfile", str(SMOKE))


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A project whose smoke campaign was carried to its report by plain `snakemake --cores all`."""
    made = Project(tmp_path_factory.mktemp("smoke") / "project")
    output = made.snakemake("--cores", "all", *SMOKE_ALONE)
    assert planned(output) == {"measure": 4, **FOLLOWS}
    return made


@pytest.fixture(scope="module")
def results(project: Project) -> Path:
    return project.folder / "results" / "smoke"


def _records(results: Path) -> list[Path]:
    return sorted((results / "records").glob("*/*.json"))


def test_plain_snakemake_takes_the_profile(project: Project, results: Path) -> None:
    """One measurement at a time, in the planned order."""
    output = project.snakemake(*SMOKE_ALONE, "--dry-run")
    assert "workflow specific profile workflow/profiles/default" in output
    runs = [json.loads(path.read_text()) for path in _records(results)]
    runs.sort(key=lambda record: record["identity"]["order"])
    times = [(run["identity"]["started_at_utc"], run["identity"]["ended_at_utc"]) for run in runs]
    assert [run["identity"]["order"] for run in runs] == [0, 1, 2, 3]
    # What was asked for, though a forked process has its parent's command line.
    assert all(run["provenance"]["command"].startswith("inference-energy measure ") for run in runs)
    assert all(ended <= started for (_, ended), (started, _) in itertools.pairwise(times))


def test_everything_is_there(results: Path) -> None:
    assert len(_records(results)) == 4
    assert {path.stem for path in (results / "tables").glob("*.parquet")} >= {"runs", "windows", "energy_summary"}
    pages = {path.name for path in (results / "report").glob("*.html")}
    assert "index.html" in pages
    assert len(pages) == 1 + REPORT["page"]
    assert list((results / "figures").glob("*.svg"))
    assert "passed" in (results / "logs" / "check.log").read_text()
    assert not list(results.rglob("*.tmp"))


def test_a_second_call_finds_nothing_to_do(project: Project) -> None:
    assert planned(project.snakemake(*SMOKE_ALONE)) == {}


@pytest.mark.parametrize(
    ("option", "repeated"),
    [
        ("analysis={decoding_margin_fraction: 0.1}", {"analyse": 2, **REPORT}),  # decoding_equivalence and claims
        ("report={n_response_tokens: 100}", REPORT),
    ],
)
def test_a_changed_parameter_repeats_what_follows(project: Project, option: str, repeated: dict[str, int]) -> None:
    assert planned(project.snakemake(*SMOKE_ALONE, "--config", option, "--dry-run")) == repeated


@pytest.mark.parametrize(
    ("path", "added", "repeated"),
    [
        ("notebooks/03_method.ipynb", "\n", {"page": 1, "index": 1, "all": 1}),
        ("src/inference_energy/measure/steady.py", "# A comment.\n", {}),
        ("src/inference_energy/templates/page.html", "\n", PAGES),
        ("src/inference_energy/measure/steady.py", "# ASSUME: something.\n", REPORT),
    ],
)
def test_a_changed_source_repeats_what_follows(
    project: Project, path: str, added: str, repeated: dict[str, int]
) -> None:
    source = project.folder / path
    before = source.read_text()
    source.write_text(before + added)
    try:
        assert planned(project.snakemake(*SMOKE_ALONE, "--dry-run")) == repeated
    finally:
        source.write_text(before)


@pytest.mark.parametrize("question", ["variance_split", "level_ratio", "anchors"])
def test_an_edited_analysis_repeats_what_depends_on_it(project: Project, question: str) -> None:
    """Its table, the tables made from that, and the pages that load one of them; nothing else."""
    repeated = {question}
    for name, asked in QUESTIONS.items():  # a question stands after those whose tables it reads
        repeated |= {name} if repeated & set(asked.inputs) else set()
    pages = [page for page, loaded in NOTEBOOKS.items() if repeated & set(loaded or QUESTIONS)]
    assert 0 < len(pages) < len(NOTEBOOKS)
    expected = {"analyse": len(repeated), "page": len(pages), "index": 1, "all": 1}
    source = project.folder / "src" / "inference_energy" / "analyse" / f"{question}.py"
    before = source.read_text()
    source.write_text(before + "# A comment.\n")
    try:
        made = planned(project.snakemake(*SMOKE_ALONE, "--dry-run"))
    finally:
        source.write_text(before)
    assert made == expected | ({"pdf": 1} if "14_policy_report" in pages else {})


def test_a_job_that_starts_again_leaves_its_record_as_it_is(project: Project, results: Path) -> None:
    """Snakemake deletes a job's outputs before the job, unless told otherwise: records are permanent."""
    before = {path: path.read_bytes() for path in _records(results)}
    targets = [str(path.relative_to(project.folder)) for path in before]
    output = project.snakemake(*SMOKE_ALONE, "--forcerun", "measure", "--until", "measure", "--", *targets)
    assert planned(output) == {"measure": 4}
    assert output.count("already measured") == 4
    assert {path: path.read_bytes() for path in _records(results)} == before


def test_a_failing_run_stops_its_own_campaign_only(project: Project, results: Path) -> None:
    study = {"question": "Which fails?", "settings": [{"batch_size": 2, "prompts": "text:missing.txt"}, {}]}
    project.campaign("failing", studies={"batching": study})
    project.campaign("smoke")
    (results / "report" / "index.html").unlink()
    both = "campaigns=[{name: failing, source: measured}, {name: smoke, source: measured}]"
    output = project.snakemake("--config", both, status=1)
    failing = project.folder / "results" / "failing"
    assert len(_records(failing)) == 2
    assert not (failing / "tables" / "runs.parquet").exists()
    assert (results / "report" / "index.html").exists()
    assert "error: prompts: missing.txt: cannot be read: No such file or directory." in output
    last = output[output.index("Failed, with the reason in the log") :]
    assert last.count("results/failing/logs/batching/tiny-llama_fp32_b2_") == 2
    assert "results/smoke" not in last
    assert "Traceback" not in output


def test_a_deleted_record_is_measured_again_and_no_other(project: Project, results: Path) -> None:
    """All that follows is planned; the tables stand for it here: the whole was made once, by the fixture."""
    lost, *kept = _records(results)
    before = {path: path.stat().st_mtime_ns for path in kept}
    lost.unlink()
    follows = FOLLOWS | {"analyse": sum(bool(question.inputs) for question in QUESTIONS.values())}
    assert planned(project.snakemake(*SMOKE_ALONE, "--dry-run")) == {"measure": 1, **follows}
    assert planned(project.snakemake(*SMOKE_ALONE, "--until", "aggregate")) == {"measure": 1, "aggregate": 1}
    assert lost.exists()
    assert {path: path.stat().st_mtime_ns for path in kept} == before


def test_interrupted_then_with_a_budget_then_planned(tmp_path: Path) -> None:
    """An interrupted run leaves nothing behind; a budget lets the run in progress finish; both go on later."""
    project = Project(tmp_path / "project")
    records = project.folder / "results" / "smoke" / "records"

    process = project.start("snakemake", *SMOKE_ALONE)
    _wait_for(lambda: "Measuring batching/" in project.output)
    time.sleep(5)
    os.killpg(process.pid, signal.SIGINT)
    assert process.wait(timeout=60) != 0
    assert [path for path in records.rglob("*") if path.is_file()] == []

    command = ("inference-energy", "run", "--budget-s", "8", "--", "--cores", "1", *SMOKE_ALONE)
    assert project.start(*command).wait(timeout=120) == 0
    assert len([path for path in records.rglob("*") if path.is_file()]) == 1
    assert project.output.endswith("3 runs are left: the same command goes on with them\n")
    assert "Traceback" not in project.output

    assert planned(project.snakemake(*SMOKE_ALONE, "--dry-run"))["measure"] == 3


def _wait_for(condition: object, timeout_s: float = 60) -> None:
    deadline_s = time.monotonic() + timeout_s
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < deadline_s
        time.sleep(0.1)
