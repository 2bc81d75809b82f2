"""Pages on batch size, precision and decoding: sentences say what was put in, figures draw it."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from drawn_campaign import BATCHES, JOULES, frames, local_frames, write
from matplotlib.figure import Figure

from inference_energy import figures, policy
from inference_energy.questions import Statistics, answered
from inference_energy.tables import RUNS, conform

TABLES = ("batch_knee", "level_ratio", "decoding_equivalence", "decoding_trend")
STATISTICS = Statistics(0.95, 200, 1, 0.02, 0.05, 1)
#: Over float16, at every batch size.
FORMATS = {"int8": 3.0, "int4": 1.5}
WORDS = ("What was found.", "The small print.")
BATCH = (policy.batch_fit, policy.batch_savings, policy.batch_speed, policy.lengths_ratio, policy.batch_estimates)
PRECISION = (policy.precision_order, policy.precision_gain, policy.precision_half, policy.precision_speed)
DECODING = (
    policy.decoding_verdict,
    policy.decoding_order,
    policy.decoding_temperatures,
    policy.decoding_cause,
    policy.decoding_estimates,
    policy.decoding_trend_estimates,
)


def _more(runs: pd.DataFrame) -> pd.DataFrame:
    """`runs` with quantised weights, TF32, longer answers and sampling, at ratios that are known."""
    runs = runs.assign(decoding="greedy")
    batching = runs[runs["study"] == "batching"]
    half, single = (batching[batching["precision"] == name] for name in ("float16", "float32"))
    eight = half[half["batch_size"] == 8]
    parts = [runs, *(_changed(half, ratio, precision=name) for name, ratio in FORMATS.items())]
    parts.append(_changed(single[single["batch_size"] == 64], 0.6, study="tf32", precision="tf32"))
    parts.append(_changed(eight, 1.2, study="lengths", n_input_tokens=500, n_output_tokens=500))
    parts.append(_changed(eight, 1.0, study="decoding"))
    for place, k in enumerate((1, 50, 500)):
        levels = {"decoding": "top_k", "top_k": k, "sampling_temperature": 0.2 + 0.4 * place}
        parts.append(_changed(eight, 1.01 + 0.002 * place, study="decoding", **levels))
    parts.append(_changed(eight, 1.3, study="decoding", decoding="top_p", top_p=0.9, sampling_temperature=1.0))
    return conform(pd.concat(parts, ignore_index=True), RUNS)


def _changed(runs: pd.DataFrame, ratio: float, **levels: Any) -> pd.DataFrame:
    """`runs` at other levels, with energy and time times `ratio` and a wobble between cycles."""
    wobble = ratio * np.where(runs["cycle"] == 1, 1.002, 0.998)
    return runs.assign(
        **levels,
        setting=runs["setting"] + "_".join(str(level) for name, level in levels.items() if name != "study"),
        energy_j_per_output_token=runs["energy_j_per_output_token"] * wobble,
        duration_s_per_step=runs["duration_s_per_step"] * wobble,
        gpu_utilisation_fraction=0.35,
    )


def _with_answers(evidence: policy.Evidence, runs: pd.DataFrame) -> policy.Evidence:
    made = {name: answered(name, {"runs": runs}.__getitem__, STATISTICS) for name in TABLES}
    return dataclasses.replace(evidence, runs=runs, **made)


@pytest.fixture(scope="module")
def pilot(tmp_path_factory: pytest.TempPathFactory) -> policy.Evidence:
    folder = tmp_path_factory.mktemp("results")
    write(folder, "pilot", frames())
    evidence = policy.load(folder, "pilot")
    return _with_answers(evidence, evidence.runs)


@pytest.fixture(scope="module")
def wide(pilot: policy.Evidence) -> policy.Evidence:
    return _with_answers(pilot, _more(pilot.runs))


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> policy.Evidence:
    """A campaign of two batch sizes in one precision, without batch 2."""
    folder = tmp_path_factory.mktemp("results")
    write(folder, "local", local_frames())
    evidence = policy.load(folder, "local")
    runs = evidence.runs
    return _with_answers(evidence, runs[(runs["precision"] == "float32") & runs["batch_size"].isin([1, 32])])


def test_the_batch_page_says_plateau_shared_cost_and_saving(pilot: policy.Evidence) -> None:
    said = policy.batch_fit(pilot)
    assert "a plateau shows in 4 of them" in said.title  # E = E1 (1 / batch + 0.02), half of it from batch 50
    assert "half of the energy from batch 50 " in said.title
    plateau = 0.02 * JOULES["llama-3.2-1b", "float16"] * 1000
    assert f"llama-3.2-1b float16: plateau {plateau:.1f} mJ (95 % interval" in said.detail
    assert "shared cost fits best" in said.detail
    saved = policy.batch_savings(pilot)
    ratio = (1 / 64 + 0.02) / (1 / 2 + 0.02)
    assert saved.title.startswith(
        f"At batch 64 an output token takes {ratio * 100:.1f} % of its energy at batch 2 (95 %"
    )
    assert f"{1 / ratio:.0f}× less" in saved.title
    assert "Full sharing of the cost would leave 3.1 %" in saved.detail
    table = policy.batch_estimates(pilot)
    assert table.count("\n") == 1 + len(JOULES)
    assert policy.ratio_estimates(pilot, "batch_size").count("over 2") == (len(BATCHES) - 1) * (len(JOULES) + 1)


def test_the_batch_page_says_what_longer_answers_change(wide: policy.Evidence, pilot: policy.Evidence) -> None:
    assert "With 500 in, 500 out tokens instead of 128 in, 128 out an output token takes 1.20×" in (
        policy.lengths_ratio(wide).title
    )
    assert policy.lengths_ratio(pilot).title.startswith("Not measured in this campaign: two lengths")


def test_the_precision_page_says_the_ratios_that_were_put_in(wide: policy.Evidence) -> None:
    order = policy.precision_order(wide).title
    assert order.startswith("Fewer bits do not mean less energy: with quantised weights an output token costs more")
    assert "at 28 of 28 points" in order
    assert "int8 takes 3.0× (95 % interval" in order
    assert "int4 takes 1.5× (95 % interval" in order
    gain = policy.precision_gain(wide)
    saved = 1 - np.sqrt(1.4 / 2.6 * 2.9 / 6.1)
    assert f"float16 saves {saved * 100:.0f} % (95 % interval" in gain.title
    assert "int8 takes 1.4× to 1.6× at batch 1 to 64" in gain.title
    assert "LLM.int8() and 4-bit NormalFloat (NF4) of bitsandbytes" in policy.precision_order(wide).detail
    answer = policy.answer(wide, "06_precision").title
    assert answer.startswith("Not always: float16 takes 0.51× (95 % interval")
    assert "int8 takes 3.0×" in answer
    half = policy.precision_half(wide)
    assert "int8: 14 more" in half.detail
    assert "TF32 instead of float32 saves 40 % (95 % interval" in policy.tf32_ratio(wide).title


def test_cheaper_quantised_weights_turn_the_sentence(wide: policy.Evidence) -> None:
    runs = wide.runs.assign(
        energy_j_per_output_token=wide.runs["energy_j_per_output_token"]
        * wide.runs["precision"].map({"int8": 0.1, "int4": 0.1}).fillna(1.0)
    )
    turned = _with_answers(wide, runs)
    assert policy.precision_order(turned).title.startswith("Fewer bits mean less energy: ")
    assert "int8 takes 0.14× to 0.16× at batch 1 to 64" in policy.precision_gain(turned).title


def test_the_decoding_page_says_verdicts_and_slopes(wide: policy.Evidence) -> None:
    said = policy.decoding_verdict(wide)
    assert "changes energy per token by +7.7 % (90 % interval" in said.title  # means of 1.01, 1.012, 1.014 and 1.3
    assert said.title.endswith(": different by more than 5 %.")
    assert "top-k: +1.2 % (90 % interval" in said.detail
    assert "top-p: +30 % (90 % interval" in said.detail
    assert "Single levels of k and p: 3 equivalent and 1 different" in said.detail
    order = policy.decoding_order(wide)
    assert order.title.startswith("Energy per token rises in the order greedy, multinomial, top-k, top-p: a step")
    assert "Multinomial is not measured yet." in order.detail
    cause = policy.decoding_cause(wide)
    assert "steps longer by 10 % come with +10 %" in cause
    assert "The GPU computes 35 % of the time (median)" in cause
    assert "top-k 50" in policy.decoding_estimates(wide)
    assert "0.2 more temperature" in policy.decoding_temperatures(wide).title


@pytest.mark.parametrize("say", [*BATCH, *PRECISION, policy.tf32_ratio, *DECODING])
def test_every_sentence_is_honest_where_the_study_is_missing(say: Any, local: policy.Evidence) -> None:
    said = str(say(local))
    assert said
    assert "nan" not in said.lower()
    assert "unknown" not in said
    empty = _with_answers(local, local.runs.iloc[:0])
    assert "Not measured in this campaign" in str(say(empty))


def test_two_batch_sizes_cannot_show_a_knee(local: policy.Evidence) -> None:
    said = policy.batch_fit(local)
    assert said.title == "Where a larger batch stops paying cannot be estimated yet: too few batch sizes."
    assert "because 2 batch sizes are measured and 5 are needed" in said.detail
    assert policy.batch_savings(local).title.startswith("Not measured in this campaign: several batch sizes")


def _drawn(evidence: policy.Evidence) -> dict[str, Figure]:
    runs = policy.settings_of(evidence, "batching", "tf32")
    over = policy.ratio_rows(evidence, "precision", "float32", "setting")
    return {
        "fit": figures.batch_fit(runs, evidence.batch_knee, *WORDS),
        "ratio": figures.batch_ratio(policy.ratio_rows(evidence, "batch_size"), *WORDS),
        "levels": figures.levels_by_batch(runs, "throughput_tokens_per_s", *WORDS),
        "lengths": figures.ratios(policy.lengths_rows(evidence), *WORDS, "A ratio"),
        "precision": figures.precision_ratio(over, *WORDS),
        "decoding": figures.decoding_ratio(policy.decoding_rows_of(evidence), policy.decoding_runs(evidence), *WORDS),
        "temperature": figures.decoding_temperature(
            policy.decoding_runs(evidence), policy.decoding_margin(evidence), *WORDS
        ),
        "trend": figures.decoding_trend(policy.decoding_trend_rows(evidence), *WORDS),
    }


def test_figures_draw_runs_fits_and_intervals(wide: policy.Evidence, tmp_path: Path) -> None:
    drawn = _drawn(wide)
    fit = drawn["fit"].axes[0]
    smooth = [line for line in fit.lines if len(line.get_xdata()) == 60]
    x, y = next(line.get_data() for line in smooth if line.get_color() == "#D55E00")  # float16
    assert y == pytest.approx(1.4 * (1 / np.asarray(x) + 0.02), rel=0.02)
    named = {text.get_text() for text in drawn["precision"].axes[0].texts}
    assert named == {"float16", "int4", "int8", "tf32"}
    labels = [label.get_text() for label in drawn["decoding"].axes[0].get_yticklabels()]
    assert labels == ["all sampling", "top-k, all", "top-k 1", "top-k 50", "top-k 500", "top-p, all", "top-p 0.9"]
    band = drawn["decoding"].axes[0].patches[0].get_extents()
    low, high = drawn["decoding"].axes[0].transData.inverted().transform(band.get_points())[:, 0]
    assert (low, high) == pytest.approx((0.95, 1.05))
    for name, figure in drawn.items():
        assert figures.save(figure, wide.level_ratio, tmp_path, name).finding == WORDS[0]
    again = figures.save(_drawn(wide)["fit"], wide.level_ratio, tmp_path / "again", "fit")
    assert again.path.read_bytes() == (tmp_path / "fit.svg").read_bytes()


def test_a_campaign_without_the_studies_draws_the_finding_alone(local: policy.Evidence) -> None:
    drawn = _drawn(local)
    for name in ("ratio", "lengths", "precision", "decoding", "temperature", "trend"):
        assert not drawn[name].axes[0].axison, name
    assert drawn["fit"].axes[0].axison  # its runs are drawn all the same
    assert not any(figure.axes[0].axison for figure in _drawn(_with_answers(local, local.runs.iloc[:0])).values())
