"""Sentences and figures on size of a SYNTHETIC campaign: complete, in one cycle, and absent."""

from __future__ import annotations

import itertools
import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from drawn_campaign import with_interval, write
from test_sizes import SIZES, architectures, formats, runs_of

from inference_energy import figures, policy, tables
from inference_energy.models.arrivals import SPREAD
from inference_energy.models.engines import GRAPHS, TRANSFORMERS
from inference_energy.questions import Statistics, answered

QUESTIONS = ("model_size", "right_size", "quantisation")
OTHERS = ("engine_comparison", "length_ratios", "padding", "arrival_ratio")
SENTENCES = (
    policy.sizes.answer,
    policy.sizes.laws,
    policy.sizes.machines,
    policy.sizes.formats,
    policy.framework.choices,
)
TABLES = (
    policy.sizes.points_table,
    policy.sizes.laws_table,
    policy.sizes.machines_table,
    policy.sizes.formats_table,
    policy.framework.choices_table,
)
WORDS = ("A finding.", "Small print.")
FIGURES = {
    "laws": lambda e: figures.sizes.laws(policy.sizes.size_points(e), e.model_size, *WORDS),
    "machines": lambda e: figures.sizes.machines(policy.sizes.size_points(e), e.right_size, *WORDS),
    "formats": lambda e: figures.sizes.formats(policy.sizes.format_runs(e), e.quantisation, *WORDS),
    "choices": lambda e: figures.sizes.choices(policy.framework.choice_rows(e), *WORDS),
}


def _runs() -> pd.DataFrame:
    """Models a to e on one GPU and f on two; d and e on one, two and four; energies on a line. Then the formats."""
    cells = [*((name, 1) for name in "abcde"), *itertools.product("de", (2, 4)), ("f", 2)]
    rng = np.random.default_rng(1)
    sizes = [
        {"model": name, "n_gpus": n, "cycle": cycle, "sitting": f"s{cycle}", "idle_power_w": 80.0 * n}
        | {"energy_j_per_output_token": (0.01 + 0.005 * SIZES[name]) * n**0.4 * float(np.exp(0.01 * rng.normal()))}
        | {"n_input_tokens": n_input, "throughput_tokens_per_s": 1e4 / SIZES[name] * n**0.5}
        for cycle in (1, 2)
        for n_input in (100, 900)
        for name, n in (cells if n_input == 100 else cells[:5])
    ]
    both = pd.concat([runs_of(*sizes), formats(noise=0.01)], ignore_index=True)
    both = both.assign(setting=both["study"] + " " + both["setting"])
    return both.assign(status="ok", weights="random", hardware="a machine", energy_method="nvml_total_energy")


def _evidence(runs: pd.DataFrame, folder: Path, **others: list[dict[str, Any]]) -> policy.Evidence:
    found = {"runs": runs, "architectures": architectures()}
    statistics = Statistics(confidence=0.95, n_bootstrap=200, seed=1)
    for question in QUESTIONS:
        found[question] = answered(question, found.__getitem__, statistics)
    for name in OTHERS:
        table = tables.TABLES[name]
        found[name] = tables.conform(pd.DataFrame(others.get(name, []), columns=table.names), table)
    write(folder, "synthetic", found)
    return policy.load(folder, "synthetic", [*found], studies="serving")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> policy.Evidence:
    engine = {"quantity": "energy_j_per_output_token", "engine": TRANSFORMERS, "baseline": GRAPHS, "model": "d"}
    engine |= {"batch_size": 64, "baseline_batch_size": 64} | with_interval("estimate", 4.0)
    at_once = {"comparison": "prompts_at_once", "level": "32 prompts at once", "baseline": "1 prompt at once"}
    at_once |= {"model": "d", "batch_size": 32} | with_interval("level_over_baseline_ratio", 0.1)
    timing = {"comparison": SPREAD, "scope": "all", "level": "slow", "baseline": "fast", "model": "d"}
    timing |= with_interval("energy_ratio", 2.0)
    padding = {"quantity": "energy_j_per_output_token", "phase": "generation", "factor": "batch_order", "model": "d"}
    padding |= {"batch_order": "by_length", "batch_size": 16} | with_interval("estimate", 1.0)
    others = {
        "engine_comparison": [engine],
        "length_ratios": [at_once],
        "arrival_ratio": [timing],
        "padding": [padding],
    }
    return _evidence(_runs(), tmp_path_factory.mktemp("results"), **others)


def test_a_whole_campaign_answers_every_question(whole: policy.Evidence) -> None:
    for sentence in SENTENCES:
        text = str(sentence(whole))
        assert re.search(r"\d", text), sentence.__name__
        assert not re.search(r"\bnan\b|<NA>|None|unknown", text), text
    for table in TABLES:
        text = table(whole)
        assert text.count("\n|") > 5, table.__name__
        assert not re.search(r"\bnan\b|<NA>|None", text), text
    for name, draw in FIGURES.items():
        assert any(axes.has_data() for axes in draw(whole).axes), name


def test_titles_say_what_the_numbers_are(whole: policy.Evidence) -> None:
    # From 0.5 to 34 billion parameters energy rises from 12.5 to 180 mJ, on a line.
    assert "68 times the parameters took 14× the energy per token" in policy.sizes.laws(whole).title
    assert "a straight line describes it best" in policy.sizes.laws(whole).title
    assert "d on 1 GPU instead of 4 took 0.5" in policy.sizes.machines(whole).title  # 4 ** -0.4 = 0.574
    assert "0.50× (float8)" in policy.sizes.formats(whole).title
    assert "of this saving the number format is 7" in policy.sizes.formats(whole).detail  # log 0.5 / log 0.4 = 76 %


def test_choices_stand_in_the_order_of_what_they_save(whole: policy.Evidence) -> None:
    rows = policy.framework.choice_rows(whole)
    assert rows["energy_ratio"].dropna().is_monotonic_increasing
    first = rows.iloc[0]
    assert (first["choice"], first["energy_ratio"], first["per"]) == ("32 prompts at once, not 1", 0.1, "prompt")
    engine = rows[rows["decision"] == "engine"].iloc[0]  # transformers take 4 times as much
    assert engine["energy_ratio"] == pytest.approx(0.25)
    assert engine[["energy_ratio_low", "energy_ratio_high"]].tolist() == pytest.approx([1 / 4.08, 1 / 3.92])
    assert "“32 prompts at once, not 1” (90 % less)" in policy.framework.choices(whole).title
    detail = policy.framework.choices(whole).detail
    assert "Not shown to change anything: “prompts sorted by length into batches of 16, not as they come”" in detail
    assert "Not measured in this campaign: lengths." in detail


def test_every_choice_leads_to_a_figure_of_its_page() -> None:
    folder = Path(__file__).resolve().parents[2] / "notebooks"
    for choice in policy.framework.CHOICES:
        source = (folder / f"{choice.page}.ipynb").read_text(encoding="utf-8")
        assert f'\\"{choice.figure}\\"' in source, f"{choice.page} saves no figure {choice.figure}"


def test_one_cycle_and_none(whole: policy.Evidence, tmp_path: Path) -> None:
    once = _evidence(whole.runs[whole.runs["cycle"] == 1], tmp_path / "once")
    absent = _evidence(whole.runs.assign(study="engine"), tmp_path / "absent")
    for evidence in (once, absent):
        for say in (*SENTENCES, *TABLES):
            assert not re.search(r"\bnan\b|<NA>|None", str(say(evidence))), say.__name__
        for draw in FIGURES.values():
            draw(evidence)
    assert "nothing was measured twice" in policy.sizes.formats(once).detail
    for sentence in SENTENCES:
        assert "Not measured in this campaign" in sentence(absent).title
    few = _evidence(whole.runs[whole.runs["model"].isin(["a", "b"])], tmp_path / "few")
    title = policy.sizes.laws(few).title
    assert "that takes five models of one pair of lengths, and there are 2" in title
    assert re.match(r"2.0 times the parameters took 1.\d× the energy per token \(100 tokens in and 100 out\)", title)
