"""The campaign that the repository archives, from its archive to its report, without a GPU."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest
from workflow_project import ROOT, Project, planned

from inference_energy import policy
from inference_energy.questions import QUESTIONS

pytestmark = pytest.mark.slow
ARCHIVE = ROOT / "results" / "h200-pilot"
FILES = ("records.parquet", "campaign.yaml", "SHA256SUMS")
ARCHIVED = ("--config", "campaigns=[{name: h200-pilot, source: archived}]")


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A project with nothing but the archive, carried to its report."""
    missing = [name for name in FILES if not (ARCHIVE / name).exists()]
    assert not missing, f"{ARCHIVE} is no archive: {missing} missing. Restore it: git checkout -- {ARCHIVE}"
    made = Project(tmp_path_factory.mktemp("archived") / "project")
    copy = made.folder / "results" / "h200-pilot"
    shutil.copytree(ARCHIVE / "qualification", copy / "qualification")
    for name in FILES:
        shutil.copy(ARCHIVE / name, copy / name)
    n_notebooks = len(list((ROOT / "notebooks").glob("*.ipynb")))
    follows = {"aggregate": 1, "check": 1, "analyse": len(QUESTIONS), "context": 1, "page": n_notebooks, "index": 1}
    assert planned(made.snakemake(*ARCHIVED)) == {**follows, "all": 1}
    return made


@pytest.fixture
def results(project: Project) -> Path:
    return project.folder / "results" / "h200-pilot"


def test_it_comes_to_its_report_and_stays(project: Project, results: Path) -> None:
    pages = {path.stem for path in (results / "report").glob("*.html")}
    assert pages == {"index", *(path.stem for path in (ROOT / "notebooks").glob("*.ipynb"))}
    assert planned(project.snakemake(*ARCHIVED)) == {}


def test_the_readme_says_what_the_archive_says(project: Project, results: Path) -> None:
    told = (ROOT / "README.md").read_text(encoding="utf-8")
    told = told.partition("<!-- results -->\n")[2].partition("\n<!-- /results -->")[0]
    found = str(policy.headlines(policy.load(results.parent, results.name)))
    assert told == found, "README.md is out of date: inference-energy headlines results/h200-pilot"


def test_the_committed_pages_are_the_ones_the_archive_gives(project: Project, results: Path) -> None:
    for page in sorted((ARCHIVE / "report").glob("*.html")):
        made = (results / "report" / page.name).read_text(encoding="utf-8")
        assert without_versions(made) == without_versions(page.read_text(encoding="utf-8")), (
            f"{page} is out of date: snakemake --cores all, then commit it"
        )


def without_versions(page: str) -> str:
    """The page less its footer, which names the versions it was made with, and lines of assumptions' sources."""
    return re.sub(r"<footer.*?</footer>|<code>[^<]*:\d+</code>", "", page, flags=re.DOTALL)


def test_an_altered_archive_is_refused(project: Project, results: Path) -> None:
    records = results / "records.parquet"
    content = bytearray(records.read_bytes())
    content[len(content) // 2] ^= 1
    records.write_bytes(content)
    try:
        output = project.snakemake(*ARCHIVED, status=1)
    finally:
        shutil.copy(ARCHIVE / "records.parquet", records)
    assert f"error: {records.relative_to(project.folder)}: altered: SHA-256" in output
    assert "Restore it: git checkout" in output
    assert "Traceback" not in output


@pytest.mark.parametrize("name", FILES)
def test_a_missing_file_is_named(project: Project, results: Path, name: str) -> None:
    (results / name).rename(results / "elsewhere")
    try:
        output = project.snakemake(*ARCHIVED, status=1)
    finally:
        (results / "elsewhere").rename(results / name)
    assert f"error: results/h200-pilot/{name}: missing." in output
    assert "Traceback" not in output
