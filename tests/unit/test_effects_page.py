"""What the page on factors says and draws, of a campaign of a known law and of one without anything."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
from drawn_campaign import frames, local_frames, write
from matplotlib.figure import Figure
from test_effects import PUBLISHED, make_runs
from test_grid import FILES, FOLDS, STATS, _measured

from inference_energy import figures, policy, tables
from inference_energy.analyse.adjusted_runs import adjusted_runs
from inference_energy.analyse.effects import effects
from inference_energy.analyse.factor_ranking import factor_ranking
from inference_energy.analyse.grid_folds import grid_folds
from inference_energy.analyse.grid_left_out import grid_left_out
from inference_energy.analyse.grid_models import grid_models
from inference_energy.analyse.grid_prediction import grid_prediction

INTERACTIONS = ("batch_size x precision", "batch_size x parallelism", "precision x traffic")
NAMES = ["runs", "effects", "factor_ranking", "adjusted_runs", "grid_models"]
NAMES += ["grid_left_out", "grid_prediction", "grid_folds"]


def _evidence(runs: pd.DataFrame | None, folder: Path) -> policy.Evidence:
    made = {name: frame.iloc[:0] for name, frame in frames().items()}
    if runs is not None:
        made |= {
            "runs": runs,
            "effects": effects(runs, confidence=0.95).table(),
            "factor_ranking": factor_ranking(runs, PUBLISHED, confidence=0.95).table(),
            "adjusted_runs": adjusted_runs(runs).table(),
            "grid_models": grid_models(runs, confidence=0.95).table(),
            "grid_left_out": grid_left_out(runs, confidence=0.95).table(),
            "grid_prediction": grid_prediction(runs, *FILES, confidence=0.95).table(),
            "grid_folds": grid_folds(runs, *FILES, STATS, **FOLDS).table(),
        }
    write(folder, "made", made)
    return policy.load(folder, "made", NAMES)


@pytest.fixture(scope="module")
def known(tmp_path_factory: pytest.TempPathFactory) -> policy.Evidence:
    return _evidence(_measured(150, 0.03, seed=7), tmp_path_factory.mktemp("known"))


@pytest.fixture(scope="module")
def thin(tmp_path_factory: pytest.TempPathFactory) -> policy.Evidence:
    one = make_runs({"energy_j_per_output_token": 1.0, "hardware": "a machine"})
    return _evidence(one, tmp_path_factory.mktemp("thin"))


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> policy.Evidence:
    return _evidence(local_frames()["runs"], tmp_path_factory.mktemp("local"))


@pytest.fixture(scope="module")
def nothing(tmp_path_factory: pytest.TempPathFactory) -> policy.Evidence:
    return _evidence(None, tmp_path_factory.mktemp("nothing"))


def _sentences(evidence: policy.Evidence) -> list[str]:
    found = [policy.factors, policy.factors_table, policy.level_effects, policy.level_effects_against_float32]
    found += [policy.level_effects_left_out, policy.grid_check, policy.grid_models_table, policy.grid_spread]
    found += [policy.grid_folds_table, policy.grid_extremes]
    return [str(one(evidence)) for one in found] + [str(policy.interaction(evidence, term)) for term in INTERACTIONS]


def _drawn(evidence: policy.Evidence) -> list[Figure]:
    words = ("A finding.", "Small print.")
    return [
        figures.factors(policy.factor_rows(evidence), *words),
        figures.level_effects(policy.level_effect_rows(evidence), evidence.adjusted_runs, *words),
        *[figures.interaction(policy.interaction_rows(evidence, term), *words) for term in INTERACTIONS],
        figures.grid_check(policy.grid_check_rows(evidence), *words),
        figures.grid_spread(evidence.grid_prediction, evidence.grid_folds, *words),
    ]


@pytest.mark.parametrize("which", ["known", "local", "thin", "nothing"])
def test_every_sentence_and_figure_can_be_made(which: str, request: pytest.FixtureRequest) -> None:
    evidence = request.getfixturevalue(which)
    for sentence in _sentences(evidence):
        assert sentence
        for flaw in ("nan", "<NA>", "None", "unknown"):
            assert flaw not in sentence.replace("unknown machine", ""), sentence
    for figure in _drawn(evidence):
        assert figure.finding == "A finding."  # type: ignore[attr-defined]
        figure.canvas.draw()


def test_the_title_ranks_factors_by_the_table(known: policy.Evidence) -> None:
    row = known.factor_ranking.sort_values("explained_fraction", ascending=False).iloc[0]
    said = policy.factors(known).title
    assert policy.level_effects(known).title.startswith("Against its baseline")
    assert row["term"] == "batch_size"
    assert f"batch size alone explains {100 * row['explained_fraction']:.0f} %" in said


def test_measured_and_predicted_folds_are_both_said_and_named(known: policy.Evidence) -> None:
    title = policy.grid_spread(known).title
    assert title.count("(measured, ") == title.count("(predicted, ") == 2
    n = known.grid_prediction["status"].value_counts()
    assert f"{n['measured']} are measured, {n['predicted']:,} predicted" in policy.grid_spread(known).detail


def test_the_model_is_judged_by_what_it_has_not_seen(known: policy.Evidence) -> None:
    chosen = known.grid_models[known.grid_models["chosen"]].iloc[0]
    finding = policy.grid_check(known)
    assert f"{100 * chosen['error_left_out_median_fraction']:.1f} %" in finding.title
    assert "a waiting GPU draws" in finding.detail


def test_a_campaign_without_settings_says_why(thin: policy.Evidence, nothing: policy.Evidence) -> None:
    assert policy.factors(nothing).title.startswith("Not measured in this campaign")
    assert "cannot be estimated, because" in policy.grid_check(thin).title
    assert "cannot be estimated" in policy.grid_spread(thin).title
    assert "cannot be estimated, because" in policy.interaction(thin, "precision x traffic").title
    assert tables.TABLES["effects"].names == list(thin.effects.columns)
