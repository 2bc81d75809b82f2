"""Sentences and figures on engines of a SYNTHETIC campaign: complete, thin, and absent."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import drawn_campaign
import drawn_engines
import pandas as pd
import pytest
from matplotlib.figure import Figure

from inference_energy import figures, policy
from inference_energy.policy.wording import Finding
from inference_energy.questions import Statistics, answered

RESOURCES = Path(__file__).resolve().parents[2] / "resources"
STATISTICS = Statistics(confidence=0.95, n_bootstrap=100, seed=1, margin_fraction=0.02)
QUESTIONS = ("engine_comparison", "sharing", "engine_start")
WORDS = ("A finding.", "Small print.")
SENTENCES: dict[str, Callable[[policy.Evidence], Finding]] = {
    "answer": policy.engines.answer,
    "in_plain_words": policy.engines.in_plain_words,
    "same_batch": policy.engines.same_batch,
    "published": policy.engines.published,
    "parts": policy.engines.parts,
    "graphs": policy.engines.graphs,
    "sharing": policy.engine_start.sharing,
    "start": policy.engine_start.start,
    "payback": policy.engine_start.payback,
}
TABLES = (policy.engines.published_table, policy.engines.levels_table, policy.engine_start.payback_table)
FIGURES: dict[str, Callable[[policy.Evidence], Figure]] = {
    "energy": lambda e: figures.engines.energy(policy.engines.engine_runs(e), e.engine_comparison, *WORDS),
    "ratio": lambda e: figures.engines.ratios(
        policy.engines.ratio_rows(e), policy.engines.pair_points(e), *WORDS, policy.engines.published_fold(e)
    ),
    "parts": lambda e: figures.engines.parts(policy.engines.parts_rows(e), *WORDS),
    "sharing": lambda e: figures.engines.sharing(
        policy.engine_start.sharing_rows(e), policy.engine_start.sharing_points(e), *WORDS
    ),
    "start": lambda e: figures.engines.start(
        policy.engine_start.start_rows(e), policy.engine_start.start_points(e), *WORDS
    ),
}


def _evidence(folder: Path, runs: pd.DataFrame) -> policy.Evidence:
    made = drawn_campaign.frames() | {"runs": runs, "devices": drawn_engines.devices(runs)}
    for question in QUESTIONS:
        made[question] = answered(question, made.__getitem__, STATISTICS, RESOURCES)
    drawn_campaign.write(folder, "synthetic", {name: made[name] for name in ("runs", *QUESTIONS)})
    return policy.load(folder, "synthetic", ("runs", *QUESTIONS), studies="serving")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> policy.Evidence:
    return _evidence(tmp_path_factory.mktemp("whole"), drawn_engines.runs())


@pytest.fixture(scope="module")
def absent(tmp_path_factory: pytest.TempPathFactory) -> policy.Evidence:
    return _evidence(tmp_path_factory.mktemp("absent"), drawn_engines.runs().iloc[:0])


@pytest.mark.parametrize("name", SENTENCES)
def test_a_whole_campaign_is_told_in_numbers(whole: policy.Evidence, name: str) -> None:
    text = str(SENTENCES[name](whole))
    assert re.search(r"\d", text)
    assert not re.search(r"\bnan\b|<NA>|None|unknown|Not measured", text), text


def test_what_is_said_is_what_was_constructed(whole: policy.Evidence) -> None:
    assert "took 2.0× to 4.0× the energy per token of vLLM with CUDA graphs for one prompt at a time, 1.8× to 3.0×" in (
        policy.engines.same_batch(whole).title
    )
    assert "The published 4.7× lies between what the engine alone makes, 1.8×" in policy.engines.published(whole).title
    assert "in a shared engine is equivalent to that" in policy.engine_start.sharing(whole).title
    assert "3.00 kJ to 5.00 kJ (vLLM with CUDA graphs), 8.00 s and 1.00 kJ" in policy.engine_start.start(whole).title
    for made in TABLES:
        assert made(whole).count("\n|") > 3
        assert not re.search(r"\bnan\b|<NA>|None", made(whole))


def test_parts_add_up_to_all_of_transformers(whole: policy.Evidence) -> None:
    rows = policy.engines.parts_rows(whole)
    sums = rows[rows["engine"] == "transformers"].groupby(["model", "batch_size"])["over_transformers_ratio"].sum()
    assert sums.tolist() == pytest.approx([1.0] * 6)


@pytest.mark.parametrize("name", SENTENCES)
def test_a_campaign_without_engines_says_so(absent: policy.Evidence, name: str) -> None:
    assert SENTENCES[name](absent).title.startswith("Not measured in this campaign")


@pytest.mark.parametrize("name", FIGURES)
def test_figures_are_drawn_or_say_that_there_is_nothing(
    whole: policy.Evidence, absent: policy.Evidence, name: str
) -> None:
    assert all(axes.has_data() for axes in FIGURES[name](whole).axes)
    assert not any(axes.has_data() for axes in FIGURES[name](absent).axes)


def test_one_cycle_is_told_without_intervals(tmp_path: Path) -> None:
    runs = drawn_engines.runs()
    thin = _evidence(tmp_path, runs[(runs["cycle"] == 1) & (runs["model"] != "llama-3.1-8b")].reset_index(drop=True))
    text = " ".join(str(sentence(thin)) for sentence in SENTENCES.values())
    assert not re.search(r"\bnan\b|<NA>|None|unknown", text), text
    assert "is undecided (margin ± 2 %)" in policy.engine_start.sharing(thin).title
    assert re.search(r"There are no intervals, because .*nothing was measured twice", text)
    assert "all models" in policy.engines.published(thin).title
