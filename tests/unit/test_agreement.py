"""Whether runs agree, and what there is of each study, of a SYNTHETIC campaign in the style of h200."""

from __future__ import annotations

import dataclasses
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
QUESTIONS = ("sittings", "campaign_quality", "anchors", "interference")
Draw = Callable[[policy.Evidence], Figure]
WORDS = ("A finding.", "Small print.")
DRAWN: dict[str, tuple[Draw, Callable[[policy.Evidence], policy.Finding]]] = {
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
    made = all_tables(resolved, synthetic.campaign_records(resolved, n_lanes=4, **lost), questions=QUESTIONS)
    folder = tmp_path_factory.mktemp("results")
    write(folder, "synthetic", made)
    return policy.load(folder, "synthetic", ("runs", "device_checks", *QUESTIONS))


def _kept(evidence: policy.Evidence, keep: Callable[[pd.DataFrame], pd.Series]) -> policy.Evidence:
    names = ("runs", "anchors", "interference")
    return dataclasses.replace(evidence, **{name: (frame := getattr(evidence, name))[keep(frame)] for name in names})


@pytest.mark.parametrize("study", DRAWN)
def test_a_study_is_drawn_and_said(whole: policy.Evidence, study: str) -> None:
    draw, say = DRAWN[study]
    figure = draw(whole)
    assert not say(whole).title.startswith("Not measured")
    assert "nan" not in str(say(whole))
    assert all(axes.get_xlabel() for axes in figure.axes if axes.axison and axes.get_subplotspec().is_last_row())
    assert all(axes.has_data() for axes in figure.axes if axes.axison)


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


def test_runs_without_numbers_are_listed_with_their_reasons(whole: policy.Evidence) -> None:
    listed = policy.failures(whole)
    assert "SYNTHETIC: it broke" in listed
    assert "SYNTHETIC: no memory left" in listed
    assert "1 failed" in policy.completeness(whole).detail


def test_every_gpu_has_its_row_and_no_one_shared_one(whole: policy.Evidence) -> None:
    assert policy.sittings_table(whole).count("\n") == 1 + 8
    assert policy.device_proof(whole).title.startswith("0 of ")


def test_anchors_measured_once_are_not_said_to_differ(whole: policy.Evidence) -> None:
    first = whole.anchors[whole.anchors["cycle"] == 1].assign(same_gpu_largest_fraction=np.nan, between_gpus_cv=np.nan)
    title = policy.anchors(dataclasses.replace(whole, anchors=first)).title
    assert "measured once" in title
    assert "nothing to compare yet" in title


def test_the_axis_of_a_ratio_carries_no_unit(whole: policy.Evidence) -> None:
    label = DRAWN["interference"][0](whole).axes[0].get_xlabel()
    assert label.startswith("Energy per output token: beside neighbours over alone (ratio)")
    assert "(J)" not in label
