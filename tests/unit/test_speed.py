"""Sentences and figures on throughput, latency and utilisation, on the made-up campaign."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import drawn_campaign
import pandas as pd
import pytest

from inference_energy import figures, policy, tables
from inference_energy.analyse.explained import explained
from inference_energy.analyse.pareto import pareto
from inference_energy.analyse.throughput import throughput
from inference_energy.analyse.utilisation import utilisation
from inference_energy.policy import Evidence

BOOTSTRAP: dict[str, Any] = {"confidence": 0.95, "n_bootstrap": 200, "seed": 1}
NAMES = ["runs", "utilisation", "throughput", "pareto", "explained"]
SENTENCES = (policy.convexity, policy.pareto_front, policy.machine_use, policy.busy, policy.explanation)
TABLES = (policy.convexity_table, policy.pareto_table)


def _answered(made: dict[str, pd.DataFrame]) -> dict[str, pd.DataFrame]:
    """`made` with the facts of two models and a GPU, and the answers of this topic."""
    shape = {"n_hidden": 2048, "n_intermediate": 8192, "n_heads": 32, "n_kv_heads": 8, "n_head_dim": 64}
    shape |= {"n_vocab": 128256, "tied_embeddings": True, "n_parameters": 1}
    models = [{"model": f"llama-3.2-{size}b", "n_layers": layers, **shape} for size, layers in ((1, 16), (3, 28))]
    facts = [("NVIDIA H200", name, peak, 4.8e12, 700.0) for name, peak in (("float16", 989.5e12), ("float32", 67e12))]
    made["architectures"] = tables.conform(pd.DataFrame(models), tables.TABLES["architectures"])
    made["gpu_facts"] = pd.DataFrame(facts, columns=tables.TABLES["gpu_facts"].names)
    made["runs"] = made["runs"].assign(gpu_utilisation_fraction=0.3 + 0.001 * made["runs"]["batch_size"].astype(float))
    found = utilisation(made["runs"], made["architectures"], made["gpu_facts"]).table()
    answers = {"utilisation": found}
    for question in (throughput, pareto, explained):
        answers[question.__name__] = question(found, **BOOTSTRAP).table()
    return made | answers


def _loaded(folder: Path, made: dict[str, pd.DataFrame]) -> Evidence:
    drawn_campaign.write(folder, "pilot", made)
    return policy.load(folder, "pilot", NAMES)


@pytest.fixture(scope="module")
def evidence(tmp_path_factory: pytest.TempPathFactory) -> Evidence:
    return _loaded(tmp_path_factory.mktemp("results"), _answered(drawn_campaign.frames()))


@pytest.fixture(scope="module")
def without(tmp_path_factory: pytest.TempPathFactory) -> Evidence:
    """A campaign on a CPU with two batch sizes."""
    made = drawn_campaign.local_frames()
    made["runs"] = made["runs"][made["runs"]["batch_size"] <= 2]
    found = _answered(made)
    found["utilisation"]["gpu_utilisation_fraction"] = float("nan")
    found["explained"] = explained(found["utilisation"], **BOOTSTRAP).table()
    return _loaded(tmp_path_factory.mktemp("results"), found)


# --- sentences -----------------------------------------------------------------------------------


def test_the_law_behind_the_numbers_is_found(evidence: Evidence) -> None:
    # Energy is made as J * (1 / b + 0.02) and throughput as 110 b: P0 = 110 J and e = 0.02 J for float16 of the 1b.
    finding = policy.convexity(evidence)
    assert "falls along a convex curve in all 4 curves tested" in finding.title
    assert "| 154 W (" in finding.detail
    assert "| 28.0 mJ (" in finding.detail
    assert "| 5,500 (" in finding.detail
    assert "P₀/θ + e describes 4 of 4 curves better than a power law does" in finding.detail
    assert "| llama-3.2-3b float16 | 7 |" in policy.convexity_table(evidence)


def test_the_front_names_what_frugality_costs(evidence: Evidence) -> None:
    finding = policy.pareto_front(evidence)
    assert finding.title == "The setting that answers first also takes the least energy per token."
    assert "most frugal float16, batch 64" in finding.detail
    assert policy.pareto_table(evidence).count("| llama-3.2-3b |") == int(
        evidence.pareto.loc[evidence.pareto["model"] == "llama-3.2-3b", "on_front"].sum()
    )


def test_utilisation_is_said_with_its_setting(evidence: Evidence) -> None:
    most = evidence.utilisation["mfu"].max()
    title = policy.machine_use(evidence).title
    assert title.startswith(f"No setting uses more than {most * 100:.0f} %")
    assert "float32, batch 64" in title
    assert "NVML's utilisation" in policy.busy(evidence).title


def test_flop_explain_none_of_energy_within_a_model(evidence: Evidence) -> None:
    finding = policy.explanation(evidence)
    assert "FLOP per token explain none of the differences in energy within a model" in finding.title
    assert "by design they cannot tell one deployment from another" in finding.detail


def test_too_little_is_said_to_be_too_little(without: Evidence) -> None:
    assert policy.convexity(without).title.startswith("Not measured in this campaign: enough batch sizes")
    assert "fewer than 4 batch sizes were measured" in policy.convexity(without).title
    assert "some CPU has no peak rates" in policy.machine_use(without).title
    assert "cannot be estimated, because fewer than" in policy.convexity_table(without)


@pytest.mark.parametrize("say", [*SENTENCES, *TABLES], ids=lambda say: say.__name__)
def test_no_sentence_holds_what_is_missing(say: Any, evidence: Evidence, without: Evidence) -> None:
    for one in (evidence, without):
        said = str(say(one))
        assert said
        assert not {"nan", "NA>", "None", "inf "} & {word for word in ("nan", "NA>", "None", "inf ") if word in said}


def test_an_empty_campaign_has_no_answers(evidence: Evidence, tmp_path: Path) -> None:
    made = drawn_campaign.frames()
    empty = _loaded(tmp_path, made)  # the tables of this topic are empty in it
    for say in SENTENCES:
        assert say(empty).title.startswith("Not measured in this campaign")
    assert policy.runs_behind(empty, empty.utilisation).empty


# --- figures -------------------------------------------------------------------------------------


def _draw(one: Evidence) -> dict[str, Any]:
    batched = policy.batched(one)
    return {
        "convexity": figures.convexity(one.throughput, batched, policy.convexity(one).title, "small print"),
        "pareto": figures.pareto_front(policy.pareto_rows(one), policy.pareto_front(one).title, "small print"),
        "roofline": figures.roofline(one.utilisation, policy.machine_use(one).title, "small print"),
        "machine_use": figures.machine_use(one.utilisation, policy.busy(one).title, "small print"),
        "explanation": figures.explanation(policy.explanation_rows(one), policy.explanation(one).title, "small print"),
    }


def test_figures_show_every_point(evidence: Evidence) -> None:
    drawn = _draw(evidence)
    labels = [text.get_text() for text in drawn["convexity"].axes[0].texts]
    assert {"float16", "float32"} <= set(labels)
    points = sum(
        len(line.get_xdata()) for axes in drawn["roofline"].axes for line in axes.lines if line.get_marker() in "os"
    )
    assert points == len(evidence.utilisation)
    assert len(drawn["machine_use"].axes) == 4
    assert "FLOP per token" in [label.get_text() for label in drawn["explanation"].axes[0].get_yticklabels()]


def test_figures_without_data_say_so(without: Evidence) -> None:
    drawn = _draw(without)
    assert "Not measured" in drawn["convexity"].finding
    assert not drawn["roofline"].axes[0].lines


def test_figures_are_the_same_bytes(evidence: Evidence, tmp_path: Path) -> None:
    for turn in ("a", "b"):
        for name, figure in _draw(evidence).items():
            figures.save(figure, evidence.utilisation, tmp_path / turn, name)
    for path in sorted((tmp_path / "a").glob("*.svg")):
        assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes(), path.name
