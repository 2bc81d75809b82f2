"""The campaigns that the repository archives, from their archives to their reports, without a GPU."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest
from workflow_project import ROOT, Project, planned

from inference_energy import policy, tables
from inference_energy.archive import read_archive
from inference_energy.questions import QUESTIONS

pytestmark = pytest.mark.slow
FILES = ("records.parquet", "campaign.yaml", "SHA256SUMS")
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))


@pytest.mark.parametrize("name", ["h200-pilot", "h200"])
def test_an_archive_can_be_read(name: str) -> None:
    resolved, records = read_archive(ROOT / "results" / name)
    assert resolved.campaign.name == name
    assert {record.identity.campaign for record in records} == {name}


@pytest.fixture(scope="module", params=["h200"])  # pages of the pilot are made in the same way, in two minutes more
def archive(request: pytest.FixtureRequest) -> Path:
    """A folder that git keeps: the campaign of every study, measured in part."""
    folder: Path = ROOT / "results" / request.param
    missing = [name for name in FILES if not (folder / name).exists()]
    assert not missing, f"{folder} is no archive: {missing} missing. Restore it: git checkout -- {folder}"
    return folder


@pytest.fixture(scope="module")
def archived(archive: Path) -> tuple[str, str]:
    """Arguments that ask for this campaign alone."""
    return "--config", f"campaigns=[{{name: {archive.name}, source: archived}}]"


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory, archive: Path, archived: tuple[str, str]) -> Project:
    """A project with nothing but the archive, carried to its report."""
    made = Project(tmp_path_factory.mktemp("archived") / "project")
    copy = made.folder / "results" / archive.name
    shutil.copytree(archive / "qualification", copy / "qualification")
    for audited in (ROOT / "results").glob("audit-*"):
        shutil.copytree(audited, copy.parent / audited.name)
    for name in FILES:
        shutil.copy(archive / name, copy / name)
    follows = {"aggregate": 1, "check": 1, "analyse": len(QUESTIONS), "context": 1, "page": len(NOTEBOOKS), "pdf": 1}
    assert planned(made.snakemake(*archived)) == {**follows, "index": 1, "all": 1}
    return made


@pytest.fixture
def results(project: Project, archive: Path) -> Path:
    return project.folder / "results" / archive.name


def test_it_comes_to_its_report_and_stays(project: Project, results: Path, archived: tuple[str, str]) -> None:
    pages = {path.stem for path in (results / "report").glob("*.html")}
    assert pages == {"index", *(path.stem for path in NOTEBOOKS)}
    assert planned(project.snakemake(*archived)) == {}


def test_every_notebook_becomes_a_self_contained_page(project: Project, results: Path) -> None:
    about = policy.read_about(results / "tables" / "about.json")
    pages = [results / "report" / f"{notebook.stem}.html" for notebook in NOTEBOOKS]
    for page in pages:
        html = page.read_text(encoding="utf-8")
        assert not re.search(r"<(link|iframe)\b|<script\b[^>]*\bsrc\b", html)
        assert not re.search(r"""(?:src|href)\s*=\s*["']?\s*(?:https?:)?//""", html)
        assert not re.search(r"@import|url\(\s*[\"']?http", html)
        assert 'id="show-code"' in html
        assert "<title>" in html
        assert '<html lang="en">' in html
        assert all('alt="' in image for image in re.findall(r"<img\b[^>]*>", html))
        assert html.rindex(about.commit) > html.rindex("</main>")
    index = (results / "report" / "index.html").read_text(encoding="utf-8")
    assert re.findall(r'<a href="([^"]+\.html)">', index) == [page.name for page in pages]
    assert ">Can the numbers of this campaign be trusted?</a>" in index
    drawn = {path.stem for path in (results / "figures").glob("*.svg")}
    n_saved = sum(notebook.read_text(encoding="utf-8").count("figures.save(") for notebook in NOTEBOOKS)
    assert len(drawn) == n_saved > 20  # none under another's name, and none left out without data
    assert drawn == {path.stem for path in (results / "figures").glob("*.csv")}


def test_the_readme_says_what_the_archive_says(project: Project, results: Path) -> None:
    told = (ROOT / "README.md").read_text(encoding="utf-8")
    if results.name == "h200":
        quality = tables.read("campaign_quality", results / "tables").iloc[-1]
        assert f"{quality['n_runs']} of {quality['n_planned_runs']} planned runs" in " ".join(told.split())
        told = told.partition("<!-- results -->\n")[2].partition("\n<!-- /results -->")[0]
        found = str(policy.headlines(policy.load(results.parent, results.name)))
        assert told == found, "README.md is out of date: inference-energy headlines results/h200"


def test_the_committed_pages_are_the_ones_the_archive_gives(project: Project, results: Path, archive: Path) -> None:
    for page in sorted((archive / "report").glob("*.html")):
        made = (results / "report" / page.name).read_text(encoding="utf-8")
        assert without_versions(made) == without_versions(page.read_text(encoding="utf-8")), (
            f"{page} is out of date: snakemake --cores all, then commit it"
        )
    for page in (archive / "report").glob("*.pdf"):
        assert page.read_bytes() == (results / "report" / page.name).read_bytes(), f"{page} is out of date"


def without_versions(page: str) -> str:
    """The page less its footer, which names the versions it was made with, and lines of assumptions' sources."""
    return re.sub(r"<footer.*?</footer>|<code>[^<]*:\d+</code>", "", page, flags=re.DOTALL)


def test_an_altered_archive_is_refused(
    project: Project, results: Path, archive: Path, archived: tuple[str, str]
) -> None:
    records = results / "records.parquet"
    content = bytearray(records.read_bytes())
    content[len(content) // 2] ^= 1
    records.write_bytes(content)
    try:
        output = project.snakemake(*archived, status=1)
    finally:
        shutil.copy(archive / "records.parquet", records)
    assert f"error: {records.relative_to(project.folder)}: altered: SHA-256" in output
    assert "Restore it: git checkout" in output
    assert "Traceback" not in output


@pytest.mark.parametrize("name", FILES)
def test_a_missing_file_is_named(project: Project, results: Path, archived: tuple[str, str], name: str) -> None:
    (results / name).rename(results / "elsewhere")
    try:
        output = project.snakemake(*archived, status=1)
    finally:
        (results / "elsewhere").rename(results / name)
    assert f"error: results/{results.name}/{name}: missing." in output
    assert "Traceback" not in output
