"""A first look at each study of a SYNTHETIC campaign in the style of h200: complete, thin, and absent."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest
import synthetic
from drawn_campaign import write
from make_synthetic_tables import all_tables
from matplotlib.figure import Figure

from inference_energy import figures, policy

MODELS = {"model": ["llama-3.2-1b", "llama-3.2-3b"]}
BURST = {"traffic": "burst", "delay_min_s": 0.1, "delay_max_s": 0.5, "burst_interval_s": 4.0, "burst_size": 8}
CONSTANT = {"traffic": "constant", "delay_min_s": 0.0, "delay_max_s": 0.1}
STUDIES = {
    "batching": {"vary": MODELS | {"precision": ["float32", "float16", "int8"], "batch_size": [8, 64]}},
    "tf32": {"vary": MODELS | {"precision": ["float32", "tf32"]}},
    "parallelism": {
        "vary": MODELS | {"batch_size": [8, 64]},
        "settings": [
            {"parallelism": "replicas", "n_gpus": 2},
            {"parallelism": "replicas_duplicated", "n_gpus": 2},
            {"parallelism": "tensor", "n_gpus": 4},
        ],
    },
    "decoding": {"vary": MODELS, "settings": [{}, {"decoding": "top_k", "top_k": 5}, {"decoding": "multinomial"}]},
    "traffic": {"vary": MODELS, "settings": [{}, CONSTANT, BURST, CONSTANT | {"delay_every": "query"}]},
    "scenarios_text": {
        "fixed": {"n_gpus": 4, "parallelism": "replicas"},
        "settings": [{"batch_size": 4} | CONSTANT, {}],
    },
    "scenarios_code": {"settings": [CONSTANT, {}]},
    "grid": {"vary": MODELS | {"precision": ["float32", "float16"]}, "settings": [{}, BURST]},
    "lengths": {"fixed": {"n_input_tokens": 32, "n_output_tokens": 32}, "vary": MODELS},
    "anchors": {"vary": MODELS},
    "interference": {"fixed": {"batch_size": 64}, "vary": {"neighbours": ["none", "allowed"]}},
}
Draw = Callable[[policy.Evidence], Figure]
WORDS = ("A finding.", "Small print.")
DRAWN: dict[str, tuple[Draw, Callable[[policy.Evidence], policy.Finding]]] = {
    "batching": (lambda e: figures.precision(policy.runs_of(e, "batching"), *WORDS), policy.precision),
    "tf32": (lambda e: figures.points(policy.tf32_rows(e), *WORDS), policy.tf32),
    "parallelism": (
        lambda e: figures.parallelism(policy.runs_of(e, "parallelism"), policy.one_gpu(e), *WORDS),
        policy.parallelism,
    ),
    "decoding": (lambda e: figures.points(policy.decoding_rows(e), *WORDS, reference="greedy"), policy.decoding),
    "traffic": (lambda e: figures.traffic(policy.traffic_rows(e), *WORDS), policy.traffic),
    "scenarios_text": (lambda e: figures.points(policy.scenario_rows(e), *WORDS), policy.scenarios),
    "grid": (lambda e: figures.points(policy.grid_rows(e), *WORDS, percentiles=True), policy.grid),
    "lengths": (lambda e: figures.points(policy.length_rows(e), *WORDS), policy.lengths),
    "anchors": (lambda e: figures.anchors(policy.anchor_rows(e), *WORDS), policy.anchors),
    "interference": (
        lambda e: figures.interference(policy.interference_rows(e), policy.runs_of(e, "interference"), *WORDS),
        policy.interference,
    ),
}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> policy.Evidence:
    studies = {name: {"question": "SYNTHETIC?"} | study for name, study in STUDIES.items()}
    base = {"n_input_tokens": 16, "n_output_tokens": 16, "precision": "float16", "model": "llama-3.2-1b"}
    resolved = synthetic.small_campaign(studies=studies, base=base)
    runs = synthetic.expand(resolved)
    lost = {"out_of_memory": [runs[0].run_id], "failed": [runs[1].run_id]}
    made = all_tables(resolved, synthetic.campaign_records(resolved, n_lanes=4, **lost), n_bootstrap=100)
    folder = tmp_path_factory.mktemp("results")
    write(folder, "synthetic", made)
    return policy.load(folder, "synthetic")


def _kept(evidence: policy.Evidence, keep: Callable[[pd.DataFrame], pd.Series]) -> policy.Evidence:
    names = ("runs", "anchors", "interference")
    return dataclasses.replace(evidence, **{name: (frame := getattr(evidence, name))[keep(frame)] for name in names})


def _n_points(figure: Figure) -> int:
    return sum(len(line.get_xdata()) for axes in figure.axes for line in axes.lines if line.get_marker() in "os^DvP")


@pytest.mark.parametrize("study", DRAWN)
def test_a_study_is_drawn_and_said(whole: policy.Evidence, study: str) -> None:
    draw, say = DRAWN[study]
    figure = draw(whole)
    assert not say(whole).title.startswith("Not measured")
    assert "nan" not in str(say(whole))
    assert all(axes.get_xlabel() for axes in figure.axes if axes.axison and axes.get_subplotspec().is_last_row())
    assert all(axes.has_data() for axes in figure.axes if axes.axison)


@pytest.mark.parametrize("study", ["batching", "tf32", "decoding", "traffic", "grid"])
def test_every_run_is_a_point(whole: policy.Evidence, study: str) -> None:
    assert _n_points(DRAWN[study][0](whole)) == len(policy.runs_of(whole, study))


@pytest.mark.parametrize("study", DRAWN)
def test_a_thin_archive_is_drawn_without_failing(whole: policy.Evidence, study: str) -> None:
    """One cycle, one model; then a single run."""
    draw, say = DRAWN[study]
    runs = policy.runs_of(whole, study)
    one = runs["setting"].iloc[0] if len(runs) else ""
    for keep in (
        lambda frame: frame["model"].eq("llama-3.2-1b").fillna(value=False).astype(bool),
        lambda frame: (frame["setting"] == one) & (frame.get("cycle", pd.Series(1, frame.index)) == 1),
    ):
        thin = _kept(whole, keep)
        assert isinstance(draw(thin), Figure)
        assert "nan" not in str(say(thin))


@pytest.mark.parametrize("study", DRAWN)
def test_an_absent_study_gives_a_sentence(whole: policy.Evidence, study: str) -> None:
    draw, say = DRAWN[study]
    none = _kept(whole, lambda frame: pd.Series(data=False, index=frame.index))
    assert say(none).title.startswith("Not measured in this campaign: ")
    assert not draw(none).axes[0].has_data()


def test_what_several_gpus_cost_is_the_constructed_ratio(whole: policy.Evidence) -> None:
    """Replicas: as much energy and as many tokens as single GPUs; tensor parallel over four: four times the power."""
    title = policy.parallelism(whole).title
    found = re.search(r"takes ([\d.]+) % (?:more|less) with replicas on 2 GPUs", title)
    assert found is not None
    assert float(found[1]) < 1  # replicas and one GPU are drawn from different cycles' effects
    assert "4.0× with tensor parallelism over 4 GPUs" in title


def test_scenarios_have_their_published_names(whole: policy.Evidence) -> None:
    assert set(policy.scenario_rows(whole)["label"]) == {"A1", "R1"}


def test_waiting_is_the_mean_before_a_batch(whole: policy.Evidence) -> None:
    rows = policy.traffic_rows(whole)
    found = rows.groupby("series")["waited_s_per_batch"].first()
    np.testing.assert_allclose(
        found[["no delay", "constant delay per batch", "burst delay per batch", "constant delay per query"]],
        [0.0, 0.05, 0.3 + 0.5, 0.05 * 8],
        rtol=1e-9,
        atol=1e-12,
    )


def test_runs_without_numbers_are_listed_with_their_reasons(whole: policy.Evidence) -> None:
    listed = policy.failures(whole)
    assert "SYNTHETIC: it broke" in listed
    assert "SYNTHETIC: no memory left" in listed
    assert "1 failed" in policy.completeness(whole).detail


def test_every_gpu_has_its_row_and_no_one_shared_one(whole: policy.Evidence) -> None:
    assert policy.sittings_table(whole).count("\n") == 1 + 8
    assert policy.device_proof(whole).title.startswith("0 of ")


def test_precisions_are_compared_within_a_model_only(whole: policy.Evidence) -> None:
    """One precision a model, at the same batch size: two models, so nothing to compare."""
    apart = {"llama-3.2-1b": "float16", "llama-3.2-3b": "float32"}
    runs = whole.runs[whole.runs["precision"].eq(whole.runs["model"].map(apart)).fillna(value=False).astype(bool)]
    said = policy.precision(dataclasses.replace(whole, runs=runs))
    assert "no two of them yet with the same model and batch" in said.title
    means = policy.runs_of(whole, "batching").query("model == 'llama-3.2-3b' and batch_size == 64")
    least = means.groupby("precision")["energy_j_per_output_token"].mean().idxmin()
    assert f"llama-3.2-3b at batch 64: {least} needs least" in policy.precision(whole).title


def test_waiting_without_its_match_is_said_to_have_none(whole: policy.Evidence) -> None:
    busy = (
        (whole.runs["study"] == "traffic") & (whole.runs["traffic"] == "none") & (whole.runs["model"] == "llama-3.2-1b")
    )
    thin = dataclasses.replace(whole, runs=whole.runs[~busy & ~whole.runs["model"].eq("llama-3.2-3b")])
    said = policy.traffic(thin)
    assert "is not measured yet to compare with" in said.title
    assert "unknown" not in str(said)


def test_anchors_measured_once_are_not_said_to_differ(whole: policy.Evidence) -> None:
    first = whole.anchors[whole.anchors["cycle"] == 1].assign(same_gpu_largest_fraction=np.nan, between_gpus_cv=np.nan)
    title = policy.anchors(dataclasses.replace(whole, anchors=first)).title
    assert "measured once" in title
    assert "nothing to compare yet" in title


def test_the_axis_of_a_ratio_carries_no_unit(whole: policy.Evidence) -> None:
    label = DRAWN["interference"][0](whole).axes[0].get_xlabel()
    assert label.startswith("Energy per output token: beside neighbours over alone (ratio)")
    assert "(J)" not in label


@pytest.mark.parametrize("finding", [policy.decoding, policy.parallelism, policy.tf32, policy.precision])
def test_a_slower_host_in_the_other_cycle_changes_no_comparison(
    whole: policy.Evidence, finding: Callable[[policy.Evidence], policy.Finding]
) -> None:
    """Half of the levels are measured in the first cycle only; the second cost half as much again for all."""
    first = dataclasses.replace(whole, runs=whole.runs[whole.runs["cycle"] == 1])
    both = whole.runs.assign(
        energy_j_per_output_token=whole.runs["energy_j_per_output_token"] * np.where(whole.runs["cycle"] == 2, 1.5, 1)
    )
    other = (both["decoding"] != "greedy") | (both["n_gpus"] > 1) | both["precision"].isin(["tf32", "int8"])
    mixed = dataclasses.replace(whole, runs=both[(both["cycle"] == 1) | ~other])
    assert finding(mixed).title == finding(first).title
