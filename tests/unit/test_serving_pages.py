"""Sentences and figures on parallelism, traffic and scenarios of a SYNTHETIC campaign: complete, thin, and absent."""

from __future__ import annotations

import re
from pathlib import Path

import pandas as pd
import pytest
import synthetic
from drawn_campaign import write
from make_synthetic_tables import RESOURCES

from inference_energy import figures, policy
from inference_energy.aggregate import aggregate
from inference_energy.figures.style import save
from inference_energy.policy.estimates import behind, cell, said
from inference_energy.questions import Statistics, answered

MODELS = {"model": ["llama-3.2-1b", "llama-3.2-3b"]}
CONSTANT = {"traffic": "constant", "delay_min_s": 0.01, "delay_max_s": 0.1}
BURST = {"traffic": "burst", "delay_min_s": 0.05, "delay_max_s": 0.5, "burst_interval_s": 3.0, "burst_size": 6}
TWO = {"parallelism": "replicas_duplicated", "n_gpus": 2}
STUDIES = {
    "batching": {"vary": MODELS | {"batch_size": [8, 64]}},
    "parallelism": {
        "vary": MODELS | {"batch_size": [8, 64]},
        "settings": [{"parallelism": "replicas", "n_gpus": 2}, TWO, {"parallelism": "tensor", "n_gpus": 4}],
    },
    "traffic": {"vary": MODELS, "settings": [{}, CONSTANT, BURST, CONSTANT | {"delay_every": "query"}]},
    "scenarios_code": {
        "fixed": {"n_prompts": 128},
        "vary": MODELS,
        "settings": [{"batch_size": 128}, CONSTANT, CONSTANT | TWO, BURST, BURST | TWO],
    },
}
QUESTIONS = ("accountings", "parallelism", "traffic", "scenarios")
LOADED = ("runs", *QUESTIONS)
SENTENCES = (
    policy.several_gpus,
    policy.several_gpus_speed,
    policy.growth,
    policy.batch_moderates,
    policy.waiting,
    policy.waiting_power,
    policy.waiting_compared,
    policy.scenario_spread,
    policy.ideal_share,
)
TABLES = (policy.several_gpus_table, policy.growth_table, policy.waiting_table, policy.scenario_table)
WORDS = ("A finding.", "Small print.")
FIGURES = {
    "several_gpus": lambda e: figures.several_gpus(e.parallelism, *WORDS),
    "waiting": lambda e: figures.waiting(policy.waiting_runs(e), e.traffic, *WORDS),
    "waiting_power": lambda e: figures.waiting_power(e.traffic, *WORDS),
    "scenario_energy": lambda e: figures.scenario_energy(policy.scenario_runs(e), *WORDS),
    "scenario_spread": lambda e: figures.scenario_spread(e.scenarios, *WORDS),
}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> policy.Evidence:
    studies = {name: {"question": "SYNTHETIC?"} | study for name, study in STUDIES.items()}
    base = {"n_input_tokens": 16, "n_output_tokens": 16, "precision": "float16", "batch_size": 8}
    resolved = synthetic.small_campaign(studies=studies, base=base)
    found = aggregate(resolved, synthetic.campaign_records(resolved, n_lanes=4))
    folder = tmp_path_factory.mktemp("results")
    return _evidence(found, folder)


def _evidence(found: dict[str, pd.DataFrame], folder: Path) -> policy.Evidence:
    """`found` with the tables that are analysed of it."""
    statistics = Statistics(
        confidence=0.95, n_bootstrap=200, seed=1, margin_fraction=0.02, decoding_margin_fraction=0.05, n_planned_runs=1
    )
    for question in QUESTIONS:
        found[question] = answered(question, found.__getitem__, statistics, RESOURCES)
    write(folder, "synthetic", found)
    return policy.load(folder, "synthetic", LOADED)


def _kept(evidence: policy.Evidence, folder: Path, keep: pd.Series) -> policy.Evidence:
    return _evidence({"runs": evidence.runs[keep].reset_index(drop=True)}, folder)


def test_a_whole_campaign_answers_every_question(whole: policy.Evidence) -> None:
    for sentence in SENTENCES:
        text = str(sentence(whole))
        assert re.search(r"\d", text), sentence.__name__
        assert "Not measured in this campaign" not in text
        assert not re.search(r"\bnan\b|<NA>|None|unknown", text), text
    for table in TABLES:
        text = table(whole)
        assert text.count("\n|") > 3, table.__name__
        assert not re.search(r"\bnan\b|<NA>|None", text), text


def test_duplicated_replicas_are_said_to_cost_more_as_published(whole: policy.Evidence) -> None:
    title = policy.several_gpus(whole).title
    assert "2 duplicated replicas" in title
    rows = whole.parallelism
    chosen = rows[(rows["quantity"] == "energy_over_one_gpu_ratio") & (rows["setting"] == "all")]
    twice = chosen[chosen["parallelism"] == "replicas_duplicated"].set_index("accounting")["estimate"]
    assert twice["answered"] == pytest.approx(2 * twice["generated"], rel=1e-9)
    assert f"Counted as in the published code, 2 duplicated replicas seem to take {twice['published']:.1f}×" in title


def test_replicas_cost_what_one_gpu_does_and_tensor_parallelism_its_constructed_ratio(whole: policy.Evidence) -> None:
    """Replicas: as much energy and as many tokens as single GPUs; tensor parallel over four: four times the power."""
    rows = whole.parallelism
    chosen = rows[(rows["quantity"] == "energy_over_one_gpu_ratio") & (rows["setting"] == "all")]
    ratio = chosen[chosen["accounting"] == "generated"].set_index("parallelism")["estimate"]
    assert ratio["replicas"] == pytest.approx(1.0, rel=0.02)
    assert ratio["tensor"] == pytest.approx(4.0, rel=0.02)


def test_waiting_is_the_mean_before_a_batch(whole: policy.Evidence) -> None:
    runs = policy.waiting_runs(whole)
    found = runs[runs["study"] == "traffic"].groupby("series")["wait_s"].first()
    assert found["no waiting"] == 0
    assert found["constant, before each batch"] == pytest.approx(0.055, rel=1e-9)
    assert found["constant, before each query"] == pytest.approx(0.055 * 8, rel=1e-9)
    assert found["bursts"] == pytest.approx(0.275 + 3.0 / 6, rel=1e-9)


def test_scenarios_lacking_are_named(whole: policy.Evidence) -> None:
    detail = policy.scenario_spread(whole).detail
    assert "R5 and R6 of llama-3.2-1b as the code does" in detail
    assert "No scenario as the text says is measured." in detail


@pytest.mark.parametrize("name", list(FIGURES))
def test_a_whole_campaign_is_drawn_the_same_twice(whole: policy.Evidence, tmp_path: Path, name: str) -> None:
    made = [FIGURES[name](whole) for _ in range(2)]
    drawn = [save(figure, whole.runs, tmp_path / str(i), name).path.read_bytes() for i, figure in enumerate(made)]
    assert drawn[0] == drawn[1]
    assert all(len(figure.axes) >= 1 for figure in made)


def test_thin_campaigns_say_what_they_lack(whole: policy.Evidence, tmp_path: Path) -> None:
    runs = whole.runs
    several = _kept(whole, tmp_path / "a", runs["n_gpus"] > 1)  # no run on one GPU
    assert "none of them comparable with one GPU" in policy.several_gpus(several).title
    assert "cannot be estimated, because no run on one GPU" in policy.several_gpus(several).detail
    assert "cannot be estimated" in policy.batch_moderates(several).title
    waits = _kept(whole, tmp_path / "b", (runs["traffic"] != "none") & (runs["n_gpus"] == 1))
    assert "none of them comparable with no waiting" in policy.waiting(waits).title
    assert "cannot be estimated, because no such run" in policy.waiting_power(waits).title
    assert "cannot be estimated, because no such run" in policy.waiting_compared(waits).title
    ideal = _kept(whole, tmp_path / "c", (runs["study"] == "scenarios_code") & (runs["traffic"] == "none"))
    assert "too few to compare" in policy.scenario_spread(ideal).title
    assert "cannot be estimated, because" in policy.ideal_share(ideal).title
    for thin in (several, waits, ideal):
        for draw in FIGURES.values():
            draw(thin)
        for table in TABLES:
            assert not re.search(r"\bnan\b|<NA>", table(thin))


def test_a_campaign_without_these_studies_says_so(whole: policy.Evidence, tmp_path: Path) -> None:
    absent = _kept(whole, tmp_path, whole.runs["study"] == "batching")
    for sentence in SENTENCES:
        assert str(sentence(absent)).startswith("Not measured in this campaign: "), sentence.__name__
    for table in TABLES:
        assert table(absent).startswith("Not measured in this campaign: "), table.__name__
    for draw in FIGURES.values():
        assert not draw(absent).axes[0].has_data()


def test_one_cycle_has_no_interval_over_cycles(whole: policy.Evidence, tmp_path: Path) -> None:
    once = _kept(whole, tmp_path, whole.runs["cycle"] == 1)
    assert once.scenarios["estimate_low"].isna().all()
    assert once.scenarios["estimate"].notna().any()


def _estimate(value: float, low: float, high: float, note: str | None = None) -> pd.Series:
    return pd.Series({"estimate": value, "estimate_low": low, "estimate_high": high, "note": note})


def test_an_estimate_in_words() -> None:
    row, nan = _estimate(2.31, 2.1, 2.5), float("nan")
    assert said(row, "×", 0.95) == "2.3× (95 % interval 2.10 to 2.50×)"
    assert cell(row, "×") == "2.3× (2.10 to 2.50×)"
    assert cell(_estimate(1.254, 1.251, 1.257), "×") == "1.25× (1.25 to 1.26×)"  # 1.3 would lie outside
    assert cell(_estimate(0.231, 0.21, 0.25), "%") == "23 % (21 % to 25 %)"
    assert said(_estimate(nan, nan, nan, "of this"), "W", 0.95) == "cannot be estimated, because of this"
    assert cell(_estimate(nan, nan, nan), "W") == "–"
    assert cell(_estimate(5.0, nan, nan), "W") == "5.00 W"
    pairs = pd.Series({"n_pairs": 1, "n_settings": 1, "n_sitting_pairs": 0})
    assert behind(pairs) == "1 pair of 1 setting, 0 within a sitting"
