"""What the page on the spread says and draws, for a campaign with everything and for one with almost nothing."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import drawn_campaign
import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

from inference_energy import figures, policy, tables
from inference_energy.analyse.boundaries import boundaries
from inference_energy.analyse.fold_range import fold_range
from inference_energy.analyse.published_spread import published_spread
from inference_energy.analyse.smallest_effects import smallest_effects
from inference_energy.analyse.variance_split import variance_split

PUBLISHED = Path(__file__).resolve().parents[2] / "resources" / "published" / "baker_energy_stats.csv"


def _evidence(folder: Path, made: dict[str, pd.DataFrame], runs: pd.DataFrame) -> policy.Evidence:
    """The campaign with its spread analysed from `runs`."""
    drawn_campaign.write(folder, "pilot", made)
    counted = boundaries(runs, made["qualifications"]).table()
    summary = fold_range(counted, confidence=0.95, n_bootstrap=200, seed=1).table()
    key = [column.name for column in tables.KEY]
    windows = made["windows"].merge(runs[key].drop_duplicates(), on=key)
    split = variance_split(runs, windows, counted, confidence=0.95).table()
    return dataclasses.replace(
        policy.load(folder, "pilot"),
        runs=runs,
        boundaries=counted,
        energy_summary=summary,
        published_spread=published_spread(summary, pd.read_csv(PUBLISHED, dtype="string")).table(),
        variance_split=split,
        smallest_effects=smallest_effects(split).table(),
    )


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> policy.Evidence:
    made = drawn_campaign.frames()
    runs = made["runs"].assign(n_visible_gpus=1, n_metered_gpus=1, gpu_uuid_hash="g", n_output_tokens_measured=1000)
    return _evidence(tmp_path_factory.mktemp("whole"), made, tables.conform(runs, tables.RUNS))


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> policy.Evidence:
    """A single run of a single setting."""
    made = drawn_campaign.local_frames()
    return _evidence(tmp_path_factory.mktemp("bare"), made, made["runs"].iloc[:1])


def _drawn(evidence: policy.Evidence) -> dict[str, Figure]:
    def words(finding: policy.Finding) -> tuple[str, str]:
        return finding.title, policy.caption(evidence, "A point is one run", policy.deployment_runs(evidence))

    return {
        "models": figures.distribution(
            policy.deployment_points(evidence),
            policy.deployment_rows(evidence),
            *words(policy.deployment_spread(evidence)),
        ),
        "published": figures.published_spread(
            policy.published_rows(evidence), *words(policy.published_spread(evidence))
        ),
        "studies": figures.study_spread(
            policy.study_points(evidence), policy.study_spread_rows(evidence), *words(policy.study_spread(evidence))
        ),
        "accountings": figures.boundary_spread(
            policy.boundary_rows(evidence), *words(policy.boundary_spread(evidence))
        ),
        "variance": figures.variance_split(
            policy.variance_split_rows(evidence), *words(policy.variance_split(evidence))
        ),
        "effects": figures.smallest_effects(
            policy.smallest_effects_rows(evidence), *words(policy.smallest_effects(evidence))
        ),
    }


def _said(evidence: policy.Evidence) -> dict[str, Any]:
    names = (
        "part_measured",
        "deployment_spread",
        "published_spread",
        "published_table",
        "study_spread",
        "boundary_spread",
        "variance_split",
        "variance_split_table",
        "smallest_effects",
        "smallest_effects_table",
        "spread_table",
    )
    return {name: getattr(policy, name)(evidence) for name in names}


def test_numbers_of_the_campaign_stand_in_the_sentences(whole: policy.Evidence) -> None:
    said = _said(whole)
    # batching has 28 settings; launcher and warm-up add their own forked, steady ones with names of their own.
    points = policy.deployment_points(whole)
    energies = points.groupby("setting")["energy_j_per_output_token"].mean()
    assert f"rests on {points['setting'].nunique()} deployed settings" in said["part_measured"]
    assert f"{energies.max() / energies.min():.0f}× for all models together" in said["deployment_spread"].title
    assert "lower bound" in said["deployment_spread"].detail
    assert "61× for llama-3.2-1b" in said["published_spread"].title
    assert "plausible, no more" in said["published_spread"].detail
    assert "| 5.18 J |" in said["published_table"]
    assert said["study_spread"].title.startswith("The settings of study batching alone differ")
    assert "Fewer than ten settings so far: launcher" in said["study_spread"].detail
    assert "idle power is not known" in said["boundary_spread"].detail
    assert "of the variance of log energy lies between settings" in said["variance_split"].title
    assert "intraclass" in said["variance_split"].detail
    assert "CV" in said["variance_split_table"]
    assert "Two settings compared in two cycles" in said["smallest_effects"].title
    assert "two settings, 2 cycles, in one sitting" in said["smallest_effects_table"]
    assert "**GPUs taking part, gross**" in said["spread_table"]
    assert not any("nan" in str(each).lower() for each in said.values())


def test_cold_starts_and_other_kernels_are_no_deployments(whole: policy.Evidence) -> None:
    shown = policy.deployment_runs(whole)
    assert set(shown["launcher"]) == {"fork"}
    assert set(shown["warmup"]) == {"steady"}
    assert set(shown["attention"]) == {"sdpa_no_cudnn"}


def test_a_page_without_data_says_so(bare: policy.Evidence) -> None:
    said = _said(bare)
    for name in ("deployment_spread", "published_spread", "study_spread"):
        assert said[name].title.startswith("Not measured in this campaign"), name
    assert (
        said["deployment_spread"].title
        == "Not measured in this campaign: energy per output token of several deployments."
    )
    assert said["variance_split"].detail.startswith("It cannot be estimated, because")
    assert said["smallest_effects"].title == "The smallest effect that this design detects cannot be estimated."
    assert not any("nan" in str(each).lower() for each in said.values())


@pytest.mark.parametrize("which", ["whole", "bare"])
def test_every_figure_can_be_saved_and_carries_its_finding(
    which: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    for name, figure in _drawn(request.getfixturevalue(which)).items():
        saved = figures.save(figure, pd.DataFrame({"x": [1]}), tmp_path, name)
        assert saved.path.stat().st_size > 1000
        assert saved.finding


def test_folds_of_the_figure_are_those_of_the_table(whole: policy.Evidence) -> None:
    figure = _drawn(whole)["studies"]
    texts = [text.get_text() for text in figure.axes[0].texts]
    rows = policy.study_spread_rows(whole)
    assert len(texts) == len(rows)
    assert texts[0].startswith(f"max/min {rows.iloc[0]['max_over_min_fold']:.0f}×")
    assert np.isfinite(rows["p95_over_p5_fold"]).all()


def test_the_grid_stands_beside_the_published_one_once_it_is_wide_enough(whole: policy.Evidence) -> None:
    rows = whole.published_spread
    grid = rows.assign(study="grid", value=99.0)
    both = dataclasses.replace(whole, published_spread=pd.concat([rows, grid]))
    assert set(policy.published_rows(both)["study"]) == {"grid"}
    assert "balanced fraction of the published grid" in policy.published_spread(both).detail
    thin = dataclasses.replace(whole, published_spread=pd.concat([rows, grid.assign(n_settings=9)]))
    assert set(policy.published_rows(thin)["study"]) == {"all_deployments"}


def test_a_campaign_without_any_run_breaks_nothing(whole: policy.Evidence) -> None:
    empty = {
        field.name: value.iloc[:0]
        for field in dataclasses.fields(whole)
        if isinstance(value := getattr(whole, field.name), pd.DataFrame)
    }
    nothing = dataclasses.replace(whole, **empty)
    said = _said(nothing)
    assert said["deployment_spread"].title.startswith("Not measured in this campaign")
    assert said["part_measured"] == "This page rests on 0 deployed settings."
    assert not any("nan" in str(each).lower() for each in said.values())
    assert len(_drawn(nothing)) == 6
