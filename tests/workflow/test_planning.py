"""What Snakemake plans and refuses, before it runs anything; and that the workflow keeps its own rules."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from workflow_project import ROOT, SMOKE, Project, planned

#: Blocks of a rule, in the one order they come in.
BLOCKS = ("input", "output", "log", "conda", "threads", "resources", "priority", "params", "message", "shell")


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    return Project(tmp_path_factory.mktemp("planning") / "project")


def test_the_published_grid_is_planned_and_nothing_is_written(project: Project) -> None:
    output = project.snakemake("--dry-run", "--configfile", "config/campaigns/thesis.yaml", "--resources", "gpu=4")
    assert planned(output)["measure"] == 2 * 1056 * 2
    assert "left out" not in output
    assert not (project.folder / "results").exists()


def test_lint_finds_nothing(project: Project) -> None:
    assert "in a good condition" in project.snakemake("--lint", "--configfile", str(SMOKE))


def test_cycles_can_be_asked_for_one_by_one(project: Project) -> None:
    assert planned(project.snakemake("-n", "--configfile", str(SMOKE), "--config", "cycles=[1]"))["measure"] == 2


def test_portions_can_be_asked_for_one_by_one(project: Project) -> None:
    asked = ("--configfile", "config/campaigns/h200.yaml", "--config", "portions=[2]", "cycles=[1]")
    assert planned(project.snakemake("-n", "--resources", "gpu=4", *asked))["measure"] == 43 + 3


def test_runs_that_need_more_gpus_than_are_lent_are_left_out_and_counted(project: Project) -> None:
    output = project.snakemake("-n", "--configfile", "config/campaigns/thesis.yaml")  # the profile lends one
    assert "thesis: 3168 runs need more GPUs than 1 and are left out." in output
    assert planned(output)["measure"] == 4224 - 3168
    assert "aggregate" in planned(output)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (("campaign:", "campain:"), ["campain", "campaign"]),
        (("n_windows:", "n_window:"), ["n_window", "Did you mean n_windows?"]),
        (("batch_size:", "batch_sise:"), ["studies.batching.vary.batch_sise", "Did you mean batch_size?"]),
        (("model: tiny-llama", "model: tiny-lama"), ["'tiny-lama'", "Did you mean tiny-llama?"]),
        (("[1, 4]", "[0, 4]"), ["studies.batching.vary.batch_size", "0"]),
    ],
)
def test_a_bad_campaign_is_one_paragraph(project: Project, change: tuple[str, str], words: list[str]) -> None:
    text = (ROOT / SMOKE).read_text()
    assert change[0] in text
    (project.folder / "bad.yaml").write_text(text.replace(*change))
    _refused(project, words, "--configfile", "bad.yaml")


@pytest.mark.parametrize(
    ("option", "words"),
    [
        ("analisis={seed: 1}", ["analisis", "Did you mean analysis?"]),
        ("analysis={confidence: 95}", ["analysis.confidence", "95"]),
        ("campaigns=[{name: locl, source: measured}]", ["config/campaigns/locl.yaml"]),
        ("campaigns=[{name: local, source: archived}]", ["results/local/records.parquet", "missing"]),
        ("cycles=[3]", ["cycles", "3"]),
        ("portions=[2]", ["portions", "2", "no portion of local"]),
    ],
)
def test_a_bad_option_is_one_paragraph(project: Project, option: str, words: list[str]) -> None:
    local = () if option.startswith("campaigns") else ("campaigns=[{name: local, source: measured}]",)
    _refused(project, words, "--config", option, *local)


def _refused(project: Project, words: list[str], *arguments: str) -> None:
    output = project.snakemake("--dry-run", *arguments, status=1)
    errors = [line for line in output.splitlines() if not line.startswith(("Using workflow", "Config file"))]
    assert len(errors) == 1, output
    assert errors[0].startswith("error: ")
    for word in words:
        assert word in errors[0]


@pytest.mark.parametrize("name", ["default", "slurm"])
def test_a_profile_holds_only_what_snakemake_knows(name: str) -> None:
    known = subprocess.run(
        [sys.executable, "-m", "snakemake", "--help"], capture_output=True, text=True, check=True
    ).stdout
    profile = yaml.safe_load((ROOT / "workflow" / "profiles" / name / "config.yaml").read_text())
    assert [key for key in profile if f"--{key}" not in known] == []
    assert profile["resources"] == ["gpu=1"]


def _blocks(text: str) -> dict[str, list[str]]:
    rules = re.split(r"^rule (\w+):\n", text, flags=re.MULTILINE)[1:]
    return {
        name: re.findall(r"^    (\w+):", body, re.MULTILINE) for name, body in zip(rules[::2], rules[1::2], strict=True)
    }


def _in_order(blocks: list[str]) -> bool:
    places = [BLOCKS.index(block) for block in blocks if block != "default_target"]
    return places == sorted(places)


@pytest.mark.parametrize("path", sorted((ROOT / "workflow").glob("rules/*.smk")), ids=lambda path: path.name)
def test_blocks_come_in_one_order(path: Path) -> None:
    for name, blocks in _blocks(path.read_text()).items():
        assert _in_order(blocks), f"{path.name}: rule {name} has {', '.join(blocks)}"
        assert {"output", "log", "message", "shell"} <= set(blocks), f"{path.name}: rule {name}"


def test_a_wrong_order_is_seen() -> None:
    assert not _in_order(_blocks("rule a:\n    output:\n        'x',\n    input:\n        'y',\n")["a"])
