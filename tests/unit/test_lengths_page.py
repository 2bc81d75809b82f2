"""Sentences and figures on lengths of a SYNTHETIC campaign: complete, thin, and absent."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from drawn_campaign import conformed, write
from make_synthetic_tables import RESOURCES

from inference_energy import figures, policy, tables
from inference_energy.questions import Statistics, answered

QUESTIONS = ("length_fits", "length_ratios", "prompts_curve")
MODELS = {"llama-3.2-1b": 1.0, "llama-3.1-8b": 6.0}
LEVELS = {"engine": "vllm", "weights": "random", "precision": "bfloat16", "n_gpus": 1, "status": "ok"}
L = policy.lengths
SENTENCES = {
    "output": lambda e: L.growth(e, "output"),
    "input": lambda e: L.growth(e, "input"),
    "ratio": L.long_or_short,
    "context": L.context,
    "guidance": L.guidance,
    "at_once": L.at_once,
    "answer": L.answer,
}
WORDS = ("A finding.", "Small print.")


def _figures(evidence: policy.Evidence) -> Iterator[Any]:
    for varied in ("output", "input"):
        runs = L.runs_behind(evidence, f"{varied}_length")
        yield figures.lengths.growth(runs, L.fits(evidence, varied), varied, *WORDS)
    yield figures.lengths.ratios(L.ratios(evidence, "long_prompt", "long_answer"), *WORDS)
    yield figures.lengths.ratios(L.ratios(evidence, "guidance"), *WORDS)
    yield figures.lengths.context(L.ratios(evidence, "long_context"), 300, *WORDS)
    yield figures.lengths.at_once(L.runs_behind(evidence, "prompts_at_once"), evidence.prompts_curve, *WORDS)


def _workloads() -> Iterator[tuple[str, int, int, int]]:
    """Study, tokens in, tokens out, prompts at once."""
    yield from (("output_length", 128, n, 32) for n in (16, 64, 256, 1024, 2048))
    yield from (("input_length", n, 32, 8) for n in (128, 512, 2048, 8192))
    yield from (("long_context", n, 300, 1) for n in (300, 5000, 50_000))
    yield from (("guidance", n, 256, 64) for n in (135, 875))
    yield from (("model_size", *lengths, 32) for lengths in ((100, 100), (900, 100), (100, 900)))
    yield from (("prompts_at_once", 128, 128, n) for n in (1, 8, 32, 128, 512))


def _runs(cycles: tuple[int, ...] = (1, 2)) -> pd.DataFrame:
    """Energies with a square of the answer's length, none of the prompt's, and a shared cost."""
    rng = np.random.default_rng(1)
    rows = [
        LEVELS
        | {"study": study, "setting": f"{study}_{model}_{n_in}_{n_out}_{batch}", "cycle": cycle, "model": model}
        | {"sitting": f"s{cycle}", "n_input_tokens": n_in, "n_output_tokens": n_out, "batch_size": batch}
        | {"n_prompts": batch, "hardware": "SYNTHETIC", "energy_method": "fake", "n_sequences_limit": 256}
        | {"energy_j_per_prompt": energy * np.exp(0.005 * rng.standard_normal())}
        for model, scale in MODELS.items()
        for study, n_in, n_out, batch in _workloads()
        for energy in [scale * (0.001 * n_in + 0.03 * n_out * (1 + n_out / 5000) * (1 + 20 / batch))]
        for cycle in cycles
    ]
    return conformed(tables.RUNS, rows)


def _evidence(runs: pd.DataFrame, folder: Path) -> policy.Evidence:
    found = {"runs": runs}
    for question in QUESTIONS:
        statistics = Statistics(confidence=0.95, n_bootstrap=200, seed=1)
        found[question] = answered(question, found.__getitem__, statistics, RESOURCES)
    write(folder, "synthetic", found)
    return policy.load(folder, "synthetic", found, studies="serving")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> policy.Evidence:
    return _evidence(_runs(), tmp_path_factory.mktemp("results"))


def test_a_whole_campaign_answers_every_question(whole: policy.Evidence) -> None:
    for name, sentence in SENTENCES.items():
        text = str(sentence(whole))
        assert re.search(r"\d", text), name
        assert not re.search(r"\bnan\b|<NA>|None|unknown|Not measured|cannot", text), text
    for table in (L.fits_table(whole), L.ratios_table(whole)):
        assert table.count("\n|") > 9
        assert not re.search(r"\bnan\b|<NA>|None", table)
    for figure in _figures(whole):
        figure.draw_without_rendering()
        assert figure.axes[0].lines


def test_bends_are_named_as_they_were_made(whole: policy.Evidence) -> None:
    assert L.growth(whole, "output").title.startswith("Energy bends upward with the length of answers: ")
    assert "along a line, as far as can be told" in L.growth(whole, "input").title
    assert "Wetzel, table 6" in L.growth(whole, "output").detail
    assert "Wetzel" not in L.growth(whole, "input").detail


def test_ratios_are_those_of_the_table_models_before_their_mean(whole: policy.Evidence) -> None:
    rows = L.ratios(whole, "long_prompt", "long_answer")
    assert rows["model"].tolist() == [*MODELS, "all"] * 2
    assert rows["comparison"].tolist() == ["long_prompt"] * 3 + ["long_answer"] * 3
    title = L.long_or_short(whole).title
    single = rows[rows["setting"] != "all"].groupby("comparison", sort=False)["level_over_baseline_ratio"]
    for (_, ratios), words in zip(single, ("a prompt of 900 tokens", "an answer of 900 tokens"), strict=True):
        ends = dict.fromkeys(f"{end:.2g}×" for end in (ratios.min(), ratios.max()))
        assert f"{words} takes {' to '.join(ends)} the energy" in title
    best = whole.length_ratios.query("comparison == 'prompts_at_once' and setting != 'all'")
    least = best.groupby("model")["level_over_baseline_ratio"].min()
    assert f"{1 / least['llama-3.1-8b']:.2g}× less in llama-3.1-8b with 512" in L.at_once(whole).title


def test_one_cycle_and_few_lengths_are_admitted(tmp_path: Path) -> None:
    runs = _runs(cycles=(1,))
    few = runs["study"].eq("output_length") & runs["n_output_tokens"].gt(300) & runs["model"].eq("llama-3.1-8b")
    evidence = _evidence(runs[~few].reset_index(drop=True), tmp_path)
    text = str(L.growth(evidence, "output"))
    assert "llama-3.1-8b: laws cannot be fitted, because 3 lengths are measured and 4 are needed." in text
    assert "AICc cannot compare, because 5 runs are measured and 6 are needed." in text
    assert "no interval, because nothing was measured twice" in str(L.context(evidence))
    for sentence in SENTENCES.values():
        assert not re.search(r"\bnan\b|<NA>|None", str(sentence(evidence)))
    assert len(list(_figures(evidence))) == 6


def test_what_was_not_measured_is_said(tmp_path: Path) -> None:
    evidence = _evidence(_runs().query("study == 'engine'"), tmp_path)
    for name, sentence in SENTENCES.items():
        assert sentence(evidence).title.startswith("Not measured in this campaign: "), name
    assert L.ratios_table(evidence).startswith("Not measured in this campaign: ")
    assert len(list(_figures(evidence))) == 6
