"""What the page on published records says and draws, from an audit of a table made for the purpose."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
import yaml
from drawn_campaign import frames, write
from made_records import MAPPING, table

from inference_energy import figures, policy, tables
from inference_energy.audit.published import audited
from inference_energy.tables.audits import AUDIT_OWN
from inference_energy.tables.serving import PARALLELISM

ROOT = Path(__file__).resolve().parents[2]
WORDS = ("A finding.", "A point is a run.")


def _results(folder: Path, *, reads_all: bool = True) -> Path:
    """A folder of results with the audit of a made table, and a drawn campaign."""
    table(reads_all).assign(inlen=64, flop=0.0, model="meta-llama/Llama-3.2-1B").to_csv(
        folder / "made.csv", index=False
    )
    runs = MAPPING["runs"] | {
        "n_input_tokens": {"column": "inlen"},
        "work_flop": {"column": "flop"},
        "group": {"column": "model"},
    }
    stated = MAPPING["stated"] | {"n_input_tokens": 500}
    (folder / "made.yaml").write_text(yaml.safe_dump(MAPPING | {"runs": runs, "stated": stated}), encoding="utf-8")
    found = audited(folder / "made.csv", folder / "made.yaml", ROOT / "config", confidence=0.95, n_bootstrap=50, seed=1)
    for name, frame in found.items():
        tables.write(frame, tables.TABLES[name], folder / "audit-baker" / "tables")
    made = frames()
    made["parallelism"] = tables.conform(pd.DataFrame(_ours()).reindex(columns=PARALLELISM.names), PARALLELISM)
    made["audit_own"] = tables.conform(pd.DataFrame(_own()).reindex(columns=AUDIT_OWN.names), AUDIT_OWN)
    write(folder, "pilot", made)
    return folder


def _ours() -> list[dict[str, object]]:
    return [
        {
            "quantity": "energy_over_one_gpu_ratio",
            "accounting": accounting,
            "parallelism": "replicas_duplicated",
            "n_gpus": n,
            "setting": "all",
            "estimate": ratio,
            "n_pairs": 3,
        }
        for accounting, ratios in {"published": (2.5, 8.0), "answered": (2.0, 4.0), "generated": (1.0, 1.0)}.items()
        for n, ratio in zip((2, 4), ratios, strict=True)
    ]


def _own() -> list[dict[str, object]]:
    common = {"kind": "sense", "tested": "this against that", "counted_in": "run"}
    return [
        {**common, "check": "energy_per_token", "n_tested": 5, "n_failing": 0, "verdict": "holds"},
        {**common, "check": "throughput", "n_tested": 5, "n_failing": 2, "verdict": "fails in part"},
        {**common, "check": "parameters", "n_tested": 0, "n_failing": 0, "verdict": "not testable", "reason": "why"},
    ]


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return _results(tmp_path_factory.mktemp("results"))


@pytest.fixture(scope="module")
def audit(results: Path) -> policy.Published:
    return policy.load_audit(results)


@pytest.fixture(scope="module")
def pilot(results: Path) -> policy.Evidence:
    return policy.load(results, "pilot", ["runs", "parallelism", "audit_own"])


def test_trackers_of_all_gpus_are_named_with_the_evidence(audit: policy.Published) -> None:
    finding = policy.audit_trackers(audit)
    assert finding.title == (
        "One tracker read 290 W of GPU power with one process and 800 W with 4 processes, on cards limited to 250 W:"
        " each tracker read all GPUs of the machine."
    )
    assert "20 of 20 readings" in finding.detail
    assert "2 of 12 readings" in finding.detail
    assert "one idles at 30.0 W" in finding.detail
    assert "works at 200 W" in finding.detail
    assert "busy" not in finding.detail  # nobody else worked there


def test_trackers_of_their_own_gpu_are_not_accused(tmp_path: Path) -> None:
    own = policy.load_audit(_results(tmp_path, reads_all=False))
    assert policy.audit_trackers(own).title.endswith("which GPUs a tracker read, the data do not decide.")
    assert "does not follow" in policy.audit_counting(own).title
    assert "own GPU.* Then mean power stays below one card's limit. It lies above it in 0" in str(
        policy.audit_trackers(own)
    )


def test_counting_and_energy_carry_the_numbers(audit: policy.Published) -> None:
    counting = str(policy.audit_counting(audit))
    assert "comes to 3.20 kW on a machine that can draw 1.00 kW: its energy was counted once for each" in counting
    assert "n processes generated n times what was counted" in counting
    energy = str(policy.audit_energy(audit))
    assert (
        "With 4 processes a token takes 9.2× the energy of one process as published, 0.58× with the machine" in energy
    )
    assert "1.0× on the GPUs that work" in energy
    assert "n² = 16" in energy
    assert "| Llama-3.2-1B | 4 | 2 | 35.2 J" in policy.audit_energy_table(audit)
    assert len(policy.audit_assumptions(audit).splitlines()) == 2 + 7


def test_the_text_and_the_checks(audit: policy.Published) -> None:
    assert "not as long as the text says" in policy.audit_stated(audit).title
    assert "CPU power is 100 W in all 20 readings" in str(policy.audit_sense(audit))
    assert "at worst 0 FLOP: they are not the work of the runs" in str(policy.audit_sense(audit))
    lines = policy.audit_checks_table(audit.checks, "text")
    assert "8 of 8 runs" in lines
    assert "16 tokens against 500 tokens" in lines
    assert "8 runs with every process's readings" in policy.audit_unknown(audit)


def test_the_source_says_whether_it_is_the_file_of_the_mapping(audit: policy.Published) -> None:
    assert "**the content differs" in policy.audit_source(audit)
    assert "sha256sum --check" in policy.audit_rerun(audit)
    assert str(audit.source["sha256"].iloc[0]) in policy.audit_rerun(audit)


def test_own_records_say_what_fails_and_what_cannot_be_tested(pilot: policy.Evidence) -> None:
    finding = policy.audit_own(pilot)
    assert finding.title == (
        "2 checks of sense could be made of this campaign's own records: these fail in some cases: throughput (2 of 5)."
    )
    assert "1 check could not be made" in finding.detail
    assert "| parameters | this against that | not testable | – | why |" in policy.audit_checks_table(
        pilot.audit_own, "sense"
    )


def test_both_stand_side_by_side(pilot: policy.Evidence, audit: policy.Published) -> None:
    rows = policy.audit_beside_rows(pilot, audit)
    assert len(rows) == 3 * 4 + 3 * 3  # three accountings: 1 to 4 processes there, 1, 2 and 4 here
    title = policy.audit_beside(pilot, audit).title
    assert "4 duplicated replicas seem to take 8.0×" in title
    assert "(published records: 9.2×)" in title
    assert "take 1.0× if every GPU and token counts once" in title
    assert "| campaign pilot | 4 | 3 | 8.0× | 4.0× | 1.0× |" in policy.audit_beside_table(pilot, audit)


def test_without_audit_or_replicas_the_page_says_so(tmp_path: Path, pilot: policy.Evidence) -> None:
    none = policy.load_audit(tmp_path)
    for said in (
        policy.audit_source,
        policy.audit_trackers,
        policy.audit_counting,
        policy.audit_energy,
        policy.audit_energy_table,
        policy.audit_assumptions,
        policy.audit_stated,
        policy.audit_sense,
        policy.audit_unknown,
    ):
        assert "not here" in str(said(none))
    assert "inference-energy audit" in policy.audit_rerun(none)
    assert "8.0×" in policy.audit_beside(pilot, none).title
    write(tmp_path, "pilot", frames() | {"parallelism": frames()["parallelism"].iloc[:0]})
    alone = policy.load(tmp_path, "pilot", ["runs", "parallelism", "audit_own"])
    assert policy.audit_beside(alone, none).title.startswith("Not measured in this campaign")
    assert policy.audit_beside_table(alone, none) == "There is nothing to set side by side."
    assert policy.audit_beside_rows(alone, none).empty
    assert figures.audit_power(none.trackers, *WORDS).finding == WORDS[0]  # type: ignore[attr-defined]
    assert figures.audit_energy(none.energy, *WORDS).finding == WORDS[0]  # type: ignore[attr-defined]
    assert figures.audit_beside(policy.audit_beside_rows(alone, none), *WORDS).get_axes()


def test_figures_draw_every_number_of_processes(audit: policy.Published, pilot: policy.Evidence) -> None:
    power = figures.audit_power(audit.trackers, *WORDS)
    said = [text.get_text() for text in power.get_axes()[0].texts]
    assert {"290 W", "460 W", "630 W", "800 W", "limit of one card", "limit of all 4 cards"} <= set(said)
    energy = figures.audit_energy(audit.energy, *WORDS)
    assert "35 J: as published" in [text.get_text() for text in energy.get_axes()[0].texts]
    beside = figures.audit_beside(policy.audit_beside_rows(pilot, audit), *WORDS)
    panels = beside.get_axes()
    assert [axes.get_title(loc="left") for axes in panels] == ["Published records, Llama-3.2-1B", "Campaign pilot"]
    assert "8.0×: as published" in [text.get_text() for text in panels[1].texts]
