"""Documentation says what is there: commands, keys, files, pins, assumptions."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from pydantic import BaseModel

from inference_energy import config, facts

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = [
    ROOT / "README.md",
    ROOT / "CHANGELOG.md",
    *sorted((ROOT / "docs").glob("*.md")),
    ROOT / "config" / "README.md",
    ROOT / "resources" / "published" / "README.md",
    ROOT / "requirements" / "README.md",
]
SECTIONS = [
    config.StudyConfig,
    config.CampaignChoice,
    config.Analysis,
    config.Report,
    config.Campaign,
    config.Fraction,
    config.Study,
    config.StartGate,
    config.Endpoint,
    config.Measurement,
    config.WarmUp,
    config.Setting,
    facts.Fact,
    facts.ModelFacts,
    facts.HardwareFacts,
    facts.ContextFacts,
]
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


# --- commands ------------------------------------------------------------------------------------


def _make_targets() -> set[str]:
    return set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE))


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_make_command_exists(path: Path) -> None:
    named = set(re.findall(r"`make ([a-z-]+)[` ]|^make ([a-z-]+)", path.read_text(), flags=re.MULTILINE))
    assert {a or b for a, b in named} <= _make_targets()


def test_the_readme_names_the_commands() -> None:
    text = (ROOT / "README.md").read_text()
    for target in ("study", "test", "lab"):
        assert f"make {target}" in text
        assert target in _make_targets()


def test_every_make_target_is_phony_and_explained() -> None:
    makefile = (ROOT / "Makefile").read_text()
    phony = set(re.search(r"^\.PHONY: (.*)$", makefile, flags=re.MULTILINE)[1].split())  # type: ignore[index]
    assert phony == _make_targets()
    listed = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for target in phony:
        assert f"make {target}" in listed


def test_every_inference_energy_command_exists() -> None:
    known = subprocess.run(
        [sys.executable, "-m", "inference_energy.cli", "--help"], capture_output=True, text=True, check=True
    ).stdout
    for path in DOCUMENTS:
        for command in re.findall(r"inference-energy ([a-z]+)\b", path.read_text()):
            assert re.search(rf"^\s+{command}\b", known, flags=re.MULTILINE), f"{path.name}: {command}"


# --- keys ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("section", SECTIONS, ids=lambda section: section.__name__)
def test_the_config_readme_explains_every_key(section: type[BaseModel]) -> None:
    text = (ROOT / "config" / "README.md").read_text()
    missing = [name for name in section.model_fields if f"`{name}`" not in text]
    assert not missing, f"config/README.md does not explain {missing} of {section.__name__}"


def test_the_config_readme_names_no_key_that_is_gone() -> None:
    """First cells of its tables are keys."""
    known = {name for section in SECTIONS for name in section.model_fields}
    rows = re.findall(r"^\| `([a-z_]+)` \|", (ROOT / "config" / "README.md").read_text(), flags=re.MULTILINE)
    assert len(rows) > 40
    assert set(rows) <= known


# --- files and links -----------------------------------------------------------------------------


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(path: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", path.read_text()):
        if "://" not in target:
            assert (path.parent / target).exists(), f"{path.name} links to {target}"


def test_every_published_table_is_described() -> None:
    text = (ROOT / "resources" / "published" / "README.md").read_text()
    files = sorted(path.name for path in (ROOT / "resources" / "published").glob("*.csv"))
    assert files
    assert [name for name in files if f"`{name}`" not in text] == []
    assert set(re.findall(r"`(\w+\.csv)`", text)) <= set(files)


# --- releases ------------------------------------------------------------------------------------


def test_every_release_says_first_which_results_changed() -> None:
    releases = re.split(r"^## ", (ROOT / "CHANGELOG.md").read_text(), flags=re.MULTILINE)[1:]
    assert releases
    for release in releases:
        assert re.search(r"^### (.*)$", release, flags=re.MULTILINE)[1] == "Results changed", release  # type: ignore[index]


def test_the_version_is_the_same_everywhere() -> None:
    import inference_energy

    version = PYPROJECT["project"]["version"]
    assert yaml.safe_load((ROOT / "CITATION.cff").read_text())["version"] == version
    assert f"## {version}" in (ROOT / "CHANGELOG.md").read_text()
    assert getattr(inference_energy, "__version__", version) == version


# --- pins ----------------------------------------------------------------------------------------


def _lock() -> dict[str, str]:
    lines = (ROOT / "requirements" / "lock.txt").read_text().splitlines()
    pins = dict(line.split("==") for line in lines if line and not line.startswith("#"))
    return {name.lower().replace("_", "-"): version for name, version in pins.items()}


def test_the_lock_holds_the_projects_pins() -> None:
    project = PYPROJECT["project"]
    wanted = [*project["dependencies"], *project["optional-dependencies"]["dev"]]
    lock = _lock()
    for requirement in wanted:
        name, _, version = requirement.partition("==")
        if version:
            assert lock[name.lower().replace("_", "-")] == version, requirement
        else:
            assert re.split(r"[<>=]", requirement)[0] in lock


def test_the_lock_is_for_every_machine() -> None:
    text = (ROOT / "requirements" / "lock.txt").read_text()
    assert "nvidia-c" not in text.replace("nvidia-ml-py", "")
    assert not re.search(r"^(triton|cuda-)|@|\+cpu", text, flags=re.MULTILINE)


def test_conda_users_get_the_same_pins() -> None:
    (pip,) = [
        part["pip"]
        for part in yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]
        if isinstance(part, dict)
    ]
    assert pip == ["-c requirements/lock.txt", "-e .[dev]"]


# --- assumptions and sources ---------------------------------------------------------------------


def marks(text: str) -> Iterator[tuple[str, bool]]:
    """Every line that marks an assumption or a source, and whether the mark has its form."""
    for line in text.splitlines():
        if re.search(r"(^|\s)# ?(ASSUME|SOURCE|ASSUMPTION|ASSUMES)\b", line):
            yield line.strip(), bool(re.search(r"# (ASSUME|SOURCE): [\"'A-Z0-9a-z]\S*( \S+){2,}", line))


def test_marks_have_their_form() -> None:
    paths = [
        path
        for folder in ("src", "workflow", "config")
        for path in (ROOT / folder).rglob("*")
        if path.suffix in {".py", ".smk", ".yaml"}
    ]
    found = [mark for path in paths for mark in marks(path.read_text(encoding="utf-8"))]
    assert found
    assert [line for line, has_form in found if not has_form] == []


@pytest.mark.parametrize(
    ("line", "has_form"),
    [
        ("x = 1  # ASSUME: idle power does not change", True),
        ("# SOURCE: NVML API reference, section 2.14", True),
        ("# ASSUME idle power does not change", False),
        ("# SOURCE:", False),
        ("# ASSUMPTION: idle power does not change", False),
    ],
)
def test_marks_are_told_apart(line: str, has_form: bool) -> None:
    assert list(marks(line)) == [(line, has_form)]
