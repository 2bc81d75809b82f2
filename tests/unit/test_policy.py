"""Every number in a sentence comes from a table, and every direction from the data."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import get_args

import pandas as pd
import pytest
from drawn_campaign import CONTEXT, frames, joules, local_frames, write

from inference_energy import policy
from inference_energy.errors import AnalysisError
from inference_energy.policy import quality, wording
from inference_energy.records import RunWarning


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("results")
    write(folder, "pilot", frames())
    write(folder, "local", local_frames())
    return folder


@pytest.fixture(scope="module")
def pilot(results: Path) -> policy.Evidence:
    return policy.load(results, "pilot")


@pytest.fixture(scope="module")
def local(results: Path) -> policy.Evidence:
    return policy.load(results, "local")


ABOUT_A_CAMPAIGN = [
    policy.completeness,
    policy.time_use,
    policy.counter_against_power,
    policy.ledger,
    policy.window_spread,
    policy.trace,
    policy.warning_counts,
    policy.side_by_side,
    policy.sittings_table,
    policy.hosts_table,
    policy.failures,
    policy.device_proof,
    policy.anchors,
    policy.interference,
    policy.study_state,
    policy.soundness,
    policy.warm_up,
    policy.launcher,
    policy.headlines,
    policy.measured,
    policy.translation,
    policy.translation_table,
    policy.grids_table,
    policy.appliances,
    policy.five_numbers,
    policy.why_flops,
    policy.levers,
    policy.levers_table,
    policy.gaming,
    policy.controls,
    policy.disclosure,
    policy.carbon,
    policy.scaled_up,
    policy.scaled_table,
    policy.printed_appliances,
    policy.printed_table,
    policy.limits,
    policy.assumptions_table,
    policy.notes,
    policy.rerun,
]


@pytest.mark.parametrize(
    ("value", "unit", "words"),
    [
        (0.0162, "J", "16.2 mJ"),
        (162.4, "J", "162 J"),
        (1234.0, "J", "1.23 kJ"),
        (0.9999, "J", "1.00 J"),
        (52_000.0, "tokens/s", "52,000 tokens/s"),
        (0.00450, "kWh", "0.00450 kWh"),
        (float("nan"), "J", "unknown"),
        (0.0, "W", "0 W"),
    ],
)
def test_quantities_have_three_significant_digits_and_a_prefix(value: float, unit: str, words: str) -> None:
    assert wording.quantity(value, unit) == words


@pytest.mark.parametrize(
    ("fraction", "words"),
    [
        (0.0211, "2.1 %"),
        (0.64, "64 %"),
        (0.9996, "99.96 %"),
        (1.0, "100 %"),
        (0.0, "0 %"),
        (0.00001, "less than 0.01 %"),
        (0.0003, "0.03 %"),
        (1.3, "130 %"),
        (float("nan"), "unknown"),
    ],
)
def test_percent(fraction: float, words: str) -> None:
    assert wording.percent(fraction) == words


@pytest.mark.parametrize(
    ("ratio", "words"),
    [
        (1 / 34, "falls 34×"),
        (2.5, "rises 2.5×"),
        (1.01, "stays the same (within 2 %)"),
        (float("nan"), "changes by an unknown factor"),
    ],
)
def test_directions_come_from_the_ratio(ratio: float, words: str) -> None:
    assert wording.change(ratio) == words


@pytest.mark.parametrize(
    ("seconds", "words"), [(12.34, "12.3 s"), (250.0, "4 min 10 s"), (6720.0, "1 h 52 min"), (59.99, "60.0 s")]
)
def test_durations(seconds: float, words: str) -> None:
    assert wording.duration(seconds) == words


def test_both_ends_of_an_interval_take_the_prefix_of_the_estimate() -> None:
    assert wording.interval(0.967, 1.01, "J", 0.95, like=0.986) == "95 % interval 967 to 1,010 mJ"
    assert wording.interval(float("nan"), 1.0, "J", 0.95) == "no interval"


def test_far_apart_values_take_a_prefix_each() -> None:
    assert wording.span(22.4, 2800.0, "J") == "22.4 J to 2.80 kJ"


def test_a_million_tokens(pilot: policy.Evidence) -> None:
    made = policy.million_tokens(pilot)
    cheapest = made.iloc[0]
    kwh = joules("llama-3.2-1b", "float16", 64) * (1.01 * 0.99) ** 0.5 * 1e6 / 3.6e6  # geometric mean over cycles
    assert cheapest["energy_kwh_per_million_output_tokens"] == pytest.approx(kwh, rel=1e-12)
    assert cheapest["site_energy_kwh_per_million_output_tokens"] == pytest.approx(1.5 * kwh, rel=1e-12)
    assert cheapest["carbon_g_per_million_output_tokens"] == pytest.approx(1.5 * kwh * 363, rel=1e-12)
    assert cheapest["price_eur_per_million_output_tokens"] == pytest.approx(1.5 * kwh * 0.4, rel=1e-12)
    low = pilot.cost_range["energy_j_per_output_token_low"].min() * 1e6 / 3.6e6
    assert low < kwh
    assert cheapest["carbon_g_per_million_output_tokens_low"] == pytest.approx(1.5 * low * 363, rel=1e-12)


def test_the_translation_names_grid_price_and_pue(pilot: policy.Evidence) -> None:
    said = str(policy.translation(pilot))
    for word in ("PUE “typical”", "363 g CO₂e/kWh", "“germany”, 2024", "0.4 €/kWh", "“household”", "95 % intervals"):
        assert word in said


def test_one_response_beside_appliances(pilot: policy.Evidence) -> None:
    uses = policy.response(pilot)
    smallest = uses[uses["kind"] == "response"]["energy_j"].min()
    expected = 300 * 1.5 * joules("llama-3.2-1b", "float16", 64) * (1.01 * 0.99) ** 0.5
    assert smallest == pytest.approx(expected, rel=1e-12)
    assert f"led lamp one hour (36.0 kJ): 13 to {wording.number(36000 / smallest, 2)} responses" in str(
        policy.appliances(pilot)
    )


def test_the_warm_up_sentence_follows_the_data(pilot: policy.Evidence) -> None:
    assert "do not warm every run up" in policy.warm_up(pilot).title
    assert "8.0× its steady time with default attention" in policy.warm_up(pilot).title
    calm = pilot.iterations.assign(duration_s_per_step=0.0087)
    assert "warmed every run up" in policy.warm_up(dataclasses.replace(pilot, iterations=calm)).title


def test_the_launcher_sentence_counts_verdicts_and_keeps_doubt(pilot: policy.Evidence) -> None:
    title = policy.launcher(pilot).title
    assert "1 undecided" in title
    assert "1 equivalent" in title
    assert "± 2 %" in title


def test_shares_of_time_and_ledger(pilot: policy.Evidence) -> None:
    assert policy.time_use(pilot).title.startswith("80 % of 33 min 20 s at the machine")
    assert "0.50 % less than the counter's 800 kJ" in policy.ledger(pilot).title


def test_a_campaign_without_a_meter_says_what_was_not_measured(local: policy.Evidence) -> None:
    for finding in (policy.counter_against_power, policy.ledger, policy.trace, policy.warm_up, policy.launcher):
        assert finding(local).title.startswith("Not measured in this campaign: ")


def test_an_estimate_is_never_called_a_measurement(local: policy.Evidence, pilot: policy.Evidence) -> None:
    for said in (
        policy.caption(local, "a point"),
        str(policy.translation(local)),
        policy.limits(local),
        policy.headlines(local),
    ):
        assert "CodeCarbon's estimate, not a measurement" in said
    assert "estimate" not in policy.caption(pilot, "a point")


def test_random_weights_and_who_is_billed_are_named(pilot: policy.Evidence) -> None:
    assert "random weights" in policy.caption(pilot, "a point")
    assert "Random weights" in policy.limits(pilot)
    assert "devices that take part" in policy.limits(pilot)


@pytest.mark.parametrize("sentence", ABOUT_A_CAMPAIGN, ids=lambda function: function.__name__)
def test_a_campaign_without_any_run_breaks_no_sentence(pilot: policy.Evidence, sentence: object) -> None:
    tables = [field.name for field in dataclasses.fields(pilot) if isinstance(getattr(pilot, field.name), pd.DataFrame)]
    empty = dataclasses.replace(pilot, **{name: getattr(pilot, name).iloc[:0] for name in tables})
    said = str(sentence(empty))  # type: ignore[operator]
    assert said
    assert "nan" not in said.lower().split()


@pytest.mark.parametrize("sentence", ABOUT_A_CAMPAIGN, ids=lambda function: function.__name__)
def test_sentences_hold_no_missing_values(pilot: policy.Evidence, local: policy.Evidence, sentence: object) -> None:
    for evidence in (pilot, local):
        said = str(sentence(evidence))  # type: ignore[operator]
        assert not {"nan", "<na>", "none", "unknown"} & set(said.lower().replace("(", " ").split())


def test_tables_that_do_not_exist_yet_are_asked_for(tmp_path: Path) -> None:
    with pytest.raises(AnalysisError, match="make study"):
        policy.load(tmp_path, "h200-pilot")


def test_context_with_an_unknown_key_or_name_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "context.json"
    path.write_text(json.dumps({**CONTEXT, "gird": "germany"}), encoding="utf-8")
    with pytest.raises(AnalysisError, match="gird"):
        policy.read_assumptions(path)
    path.write_text(json.dumps({**CONTEXT, "grid": "atlantis"}), encoding="utf-8")
    with pytest.raises(AnalysisError, match=r"atlantis.*france, germany, poland"):
        policy.read_assumptions(path)


def test_quantised_weights_are_named(pilot: policy.Evidence) -> None:
    assert "No weights were quantised" in policy.measured(pilot)
    half = pilot.runs[pilot.runs["precision"] == "float16"]
    assert "LLM.int8" in policy.measured(dataclasses.replace(pilot, every_run=half.assign(precision="int8")))


def test_every_warning_has_its_words() -> None:
    codes = get_args(RunWarning.model_fields["code"].annotation)
    assert set(quality.WARNINGS) == set(codes)


def test_the_ledger_says_what_lies_between_runs(pilot: policy.Evidence) -> None:
    detail = policy.ledger(pilot).detail
    assert "Within runs, the parts add up to 0.20 % less" in detail
    assert "80.0 W, and the counter saw 120 W, 2.40 kJ instead of 1.60 kJ" in detail


def test_runs_that_wait_stand_apart_from_the_spread_of_windows(pilot: policy.Evidence) -> None:
    waiting = pilot.runs.index == pilot.runs.index[0]
    runs = pilot.runs.assign(
        traffic=["burst" if one else "none" for one in waiting],
        window_cv=pilot.runs["window_cv"].mask(waiting, 0.8),
    )
    said = policy.window_spread(dataclasses.replace(pilot, runs=runs))
    assert "80 %" not in said.title
    assert "largest 80 %, 1 run" in said.detail


def test_a_table_that_a_page_did_not_load_says_so(tmp_path: Path) -> None:
    write(tmp_path, "pilot", frames())
    seen = policy.load(tmp_path, "pilot", ["runs"])
    assert len(seen.ok)
    for use in (lambda: len(seen.windows), lambda: seen.windows["study"], lambda: seen.windows.empty):
        with pytest.raises(AnalysisError, match="table windows: the page uses it and did not load it"):
            use()
    with pytest.raises(AnalysisError, match="'rnus' is no table"):
        policy.load(tmp_path, "pilot", ["rnus"])
