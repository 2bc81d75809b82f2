"""The policy report's numbers come from tables, follow their direction, and lead to pages that exist."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from drawn_campaign import conformed, frames, joules, local_frames, write

from inference_energy import figures, policy, tables
from inference_energy.policy import numbers, wording

NOTEBOOKS = Path(__file__).parents[2] / "notebooks"
RATIO = "level_over_baseline_ratio"


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("results")
    write(folder, "pilot", frames())
    write(folder, "local", local_frames())
    return folder


@pytest.fixture(scope="module")
def bare(results: Path) -> policy.Evidence:
    """A campaign on batching alone."""
    return policy.load(results, "pilot")


def _rows(table: str, *rows: dict[str, Any]) -> pd.DataFrame:
    return conformed(tables.TABLES[table], list(rows))


def _ends(name: str, value: float, low: float = np.nan, high: float = np.nan) -> dict[str, float]:
    return {name: value, f"{name}_low": low, f"{name}_high": high}


def _level(factor: str, level: str, baseline: str, *ends: float) -> dict[str, Any]:
    counts = {"n_settings": 4, "n_pairs": 6, "n_same_sitting": 5}
    return {"factor": factor, "level": level, "baseline": baseline, "scope": "all", **counts, **_ends(RATIO, *ends)}


def _scenario(quantity: str, value: float, scenario: str | None = None, **others: Any) -> dict[str, Any]:
    about = {"quantity": quantity, "version": "scenarios_code", "accounting": "generated", "model": "m"}
    return {**about, "scenario": scenario, "n_scenarios": 6, "n_runs": 14, **_ends("estimate", value), **others}


def _explained(predictor: str, n_values: int, *ends: float) -> dict[str, Any]:
    about = {"scope": "m", "predictor": predictor, "n_values": n_values, "n_settings": 20, "n_runs": 40}
    return {**about, **_ends("variance_fraction", *ends)}


@pytest.fixture
def rich(bare: policy.Evidence) -> policy.Evidence:
    """The same with made-up answers to every question that the report asks."""
    spread = {
        "study": "all_deployments",
        "model": "m",
        "accounting": "taking_part_gross",
        "n_settings": 9,
        "n_runs": 18,
    }
    spread |= _ends("max_over_min_fold", 95.0, 25.0, 190.0) | _ends("p95_over_p5_fold", 23.0, 10.0, 60.0)
    share = {"quantity": "energy_over_one_gpu_ratio", "accounting": "generated", "parallelism": "tensor", "n_gpus": 4}
    return dataclasses.replace(
        bare,
        energy_summary=_rows("energy_summary", spread),
        level_ratio=_rows(
            "level_ratio",
            _level("batch_size", "32", "2", 0.1, 0.08, 0.15),
            _level("batch_size", "64", "2", 0.05),
            _level("precision", "int8", "float16", 3.0, 2.5, 3.5),
            _level("precision", "int4", "float16", 1.5, 1.4, 1.6),
            _level("precision", "float16", "float32", 0.5, 0.4, 0.6),
        ),
        scenarios=_rows(
            "scenarios",
            _scenario("max_over_min_fold", 4.0),
            *(
                _scenario("energy_j_per_output_token", value, name)
                for name, value in (("A1", 0.2), ("R1", 1), ("R2", 3))
            ),
        ),
        benchmark_gap=_rows(
            "benchmark_gap",
            {"version": "scenarios_code", "accounting": "generated", "model": "m", "n_scenarios": 6, "n_runs": 14}
            | _ends("ideal_over_realistic_mean_ratio", 0.1, 0.08, 0.12),
        ),
        explained=_rows(
            "explained",
            _explained("flop_per_output_token", 1, 0.0, 0.0, 0.0),
            _explained("throughput_tokens_per_s", 20, 0.93, 0.88, 0.97),
            _explained("gpu_utilisation_fraction", 20, 0.2, 0.1, 0.3),
        ),
        traffic=_rows(
            "traffic",
            {"quantity": "energy_over_no_waiting_ratio", "waiting": "all waiting", "model": "all", "setting": "all"}
            | _ends("estimate", 1.25, 1.0, 2.0),
        ),
        parallelism=_rows(
            "parallelism", share | {"setting": "all", "n_settings": 2} | _ends("estimate", 4.0, 2.0, 8.0)
        ),
    )


def test_the_five_numbers_are_those_of_the_tables(rich: policy.Evidence) -> None:
    said = policy.five_numbers(rich)
    assert said.count("\n") == 4
    for words in (
        "needs 95× (95 % interval 25.0 to 190×) as much",
        "(95th over 5th percentile) it is 23× (95 % interval 10.0 to 60.0×)",
        "32 prompts together instead of 2 cuts the electricity per token by 90 % (95 % interval 85.0 to 92.0 %)",
        "multiplies the electricity per token by 3.0 (95 % interval 2.50 to 3.50)",
        "4 bits (int4) multiplies it by 1.5 (95 % interval 1.40 to 1.60)",
        "shows 10 % (95 % interval 8.00 to 12.0 %) for m",
        "is the same and explains nothing",
        "explains 93 % (95 % interval 88.0 to 97.0 %) for m",
        "6 pairs of runs, 5 of them within one sitting, in 4 settings",
        "14 runs",
    ):
        assert words in said, words


def test_directions_of_the_five_numbers_turn_with_the_data(rich: policy.Evidence) -> None:
    turned = rich.level_ratio.copy()
    for name in (RATIO, f"{RATIO}_low", f"{RATIO}_high"):
        turned[name] = 1 / turned[name]
    turned[[f"{RATIO}_low", f"{RATIO}_high"]] = turned[[f"{RATIO}_high", f"{RATIO}_low"]].to_numpy()
    said = policy.five_numbers(dataclasses.replace(rich, level_ratio=turned))
    assert (
        "32 prompts together instead of 2 multiplies the electricity per token by 10 (95 % interval 6.67 to 12.5)"
        in said
    )
    assert (
        "**The number format.** With bitsandbytes in transformers, storing the model's numbers in 8 bits (int8)" in said
    )
    assert "8 bits (int8) instead of 16 bits (float16) cuts" in said
    varied = rich.explained.assign(n_values=3)
    assert "explains 0 % (95 % interval 0 to 0 %) for m" in policy.five_numbers(
        dataclasses.replace(rich, explained=varied)
    )


def test_without_data_each_number_says_so(bare: policy.Evidence) -> None:
    empty = {
        name: getattr(bare, name).iloc[:0] for name in ("energy_summary", "level_ratio", "benchmark_gap", "explained")
    }
    said = policy.five_numbers(dataclasses.replace(bare, **empty))
    assert said.count("Not measured in this campaign") == 5


def test_numbers_that_are_estimates_say_so(bare: policy.Evidence, results: Path) -> None:
    said = policy.five_numbers(policy.load(results, "local"))
    assert said.startswith("Here energy is CodeCarbon's estimate, not a measurement.\n\n1. ")
    assert policy.five_numbers(bare).startswith("1. ")


def test_every_link_leads_to_a_figure_of_a_page(rich: policy.Evidence) -> None:
    said = policy.five_numbers(rich) + policy.levers_table(rich) + policy.controls(rich)
    linked = set(re.findall(r"\]\(([^)]+)\)", said))
    assert len(linked) > 7
    pages = {path.stem: path.read_text(encoding="utf-8") for path in NOTEBOOKS.glob("*.ipynb")}
    for page, figure in numbers.SHOWN.values():
        assert f'\\"{figure}\\"' in pages[page], f"{page} saves no figure {figure}"
    assert linked <= {f"{page}.html#fig-{figure}" for page, figure in numbers.SHOWN.values()}


def test_headlines_repeat_the_five_numbers_and_say_what_they_mean(rich: policy.Evidence) -> None:
    said = policy.headlines(rich).splitlines()
    assert len(said) == 8
    for one in numbers.five(rich):
        assert any(one.sentence in line for line in said)
    assert "href" not in said[0]
    assert "](" not in "".join(said)
    scatter = float(rich.cost_range["repeat_cv"].iloc[0])
    assert f"differ by {wording.percent(scatter)}" in said[5]
    assert "A million output tokens cost" in said[6]
    once = rich.cost_range.assign(repeat_cv=float("nan"))
    assert "No setting was measured twice" in policy.headlines(dataclasses.replace(rich, cost_range=once))


def test_levers_turn_ratios_round_with_their_ends(rich: policy.Evidence) -> None:
    rows = policy.lever_rows(rich).set_index("lever")
    waiting = rows.loc[
        "steady work, not pauses between requests", ["energy_ratio", "energy_ratio_low", "energy_ratio_high"]
    ]
    assert list(waiting) == pytest.approx([0.8, 0.5, 1.0], rel=1e-12)
    several = rows.loc[
        "one GPU, not 4 that share each layer", ["energy_ratio", "energy_ratio_low", "energy_ratio_high"]
    ]
    assert list(several) == pytest.approx([0.25, 0.125, 0.5], rel=1e-12)
    assert (
        rows.loc["numbers in int8 (bitsandbytes), not float16", "responsiveness"]
        == "slower with the software used here"
    )
    assert policy.levers(rich).title == (
        "Per token, “32 prompts together, not 2” (90 % less) and “one GPU, not 4 that share each layer” (75 % less)"
        " save most. “numbers in int8 (bitsandbytes), not float16” takes 3.0× as much."
    )


def test_what_was_not_measured_stays_in_the_table_of_levers(bare: policy.Evidence) -> None:
    said = policy.levers_table(bare)
    assert "| steady work, not pauses between requests | not measured in this campaign |" in said
    assert "hosting in france, not poland | no change; 93 % less carbon" in said


def test_gaming_compares_with_the_mean_of_realistic_scenarios(rich: policy.Evidence) -> None:
    assert (
        policy.gaming(rich).title == "Realistic use takes 10× (m) the electricity per token that an ideal test shows."
    )
    rows = policy.scenario_energies(rich).set_index("scenario")["energy_over_realistic_mean_ratio"]
    assert rows.to_dict() == pytest.approx({"A1": 0.1, "R1": 0.5, "R2": 1.5}, rel=1e-12)


def test_the_text_s_scenarios_count_where_all_of_them_were_measured(rich: policy.Evidence) -> None:
    text = rich.benchmark_gap.assign(version="scenarios_text", n_scenarios=6)
    for n_scenarios, version in ((6, "text"), (2, "code")):
        both = pd.concat([rich.benchmark_gap, text.assign(n_scenarios=n_scenarios)])
        said = policy.five_numbers(dataclasses.replace(rich, benchmark_gap=both))
        assert f"as the published {version} defines them" in said


def test_calculations_stay_while_electricity_falls(bare: policy.Evidence) -> None:
    curve = policy.widest_curve(bare)
    assert set(curve["flop_ratio"]) == {1.0}
    falls = (1 / 64 + 0.02) / (1 + 0.02)
    assert curve["energy_ratio"].iloc[-1] == pytest.approx(falls, rel=1e-12)
    assert f"falls {1 / falls:.0f}×" in policy.why_flops(bare).title


def test_a_year_of_requests_by_hand(bare: policy.Evidence) -> None:
    made = policy.million_tokens(bare)
    per_response_kwh = made["energy_j_per_output_token"] * 300 * 1.5 / 3.6e6  # tokens, PUE, J per kWh
    households = per_response_kwh * 1e6 * 365 / 3500
    said = policy.scaled_up(bare).title
    of_model = households[made["model"] == "llama-3.2-1b"]  # one model: ends of two would be no matter of settings
    low, high = of_model.iloc[0], of_model.iloc[-1]
    assert f"{wording.number(low, 2)} to {wording.number(high, 2)} households" in said
    assert said.endswith("depending on the setting alone (llama-3.2-1b).")
    table = policy.scaled_table(bare)
    assert "a village: 1,000,000 requests a day" in table
    assert table.count("a country") == 1  # named once, then six rows


def test_carbon_compares_place_and_setting(bare: policy.Evidence) -> None:
    title = policy.carbon(bare).title
    by_setting = joules("llama-3.2-1b", "float32", 1) / joules("llama-3.2-1b", "float16", 64)
    assert f"{by_setting:.0f}×, more than the hosting region does (14×, france to poland)" in title
    flat = bare.cost_range.assign(energy_j_per_output_token=[1.0, 1.1, 1.2] * 2)
    assert "1.2×, less than the hosting region" in policy.carbon(dataclasses.replace(bare, cost_range=flat)).title
    rows = policy.regions(bare)
    assert list(dict.fromkeys(rows["region"])) == ["france", "germany", "poland"]
    one = rows[(rows["region"] == "germany") & (rows["which"] == "least")]["carbon_g"].iloc[0]
    cheapest = bare.cost_range.query("model == 'llama-3.2-1b' and which == 'least'")["energy_j_per_output_token"].iloc[
        0
    ]
    assert one == pytest.approx(cheapest * 300 * 1.5 / 3.6e6 * 363, rel=1e-12)


def test_printed_rows_that_do_not_follow_are_named(bare: policy.Evidence) -> None:
    row = {"usage": "once", "justification": "0.3 kWh", "n_printed_least_responses": 4, "n_derived_least_responses": 4}
    row |= {"n_printed_most_responses": 9, "n_derived_most_responses": 9, "responses_follow": True}
    rows = _rows(
        "published_appliances",
        {**row, "appliance": "oven", "printed_energy_kwh": 0.2, "derived_energy_kwh": 0.3, "energy_follows": False},
        {**row, "appliance": "lamp", "printed_energy_kwh": 0.3, "derived_energy_kwh": 0.3, "energy_follows": True},
    )
    said = str(policy.printed_appliances(dataclasses.replace(bare, published_appliances=rows)))
    assert "Of the 2 appliances in a published table (Baker), 1 printed" in said
    assert "oven, once: printed 0.2 kWh, but its justification (“0.3 kWh”) gives 0.3 kWh" in said
    assert "lamp" not in said


def test_the_disclosure_names_what_a_standard_asks_for(bare: policy.Evidence, results: Path) -> None:
    said = policy.disclosure(bare)
    for words in ("Hardware | NVIDIA H200", "random weights", "| 1, 2, 4, 8, 16, 32, 64 |", "1.5 (“typical”), assumed"):
        assert words in said, words
    assert "an estimate without a known uncertainty" in policy.disclosure(policy.load(results, "local"))


def test_every_row_of_the_controls_asks_for_something(rich: policy.Evidence) -> None:
    rows = [line.split(" | ") for line in policy.controls(rich).splitlines()[2:]]
    assert len(rows) == 12
    assert all(len(row) == 3 and len(row[2]) > 8 for row in rows)
    assert "10× between 2 and 32 prompts" in policy.controls(rich)
    assert "against float16: 50 % more (int4) to 3.0× as much (int8)" in policy.controls(rich)


def test_the_glossary_explains_the_words_of_the_report() -> None:
    said = policy.glossary()
    for term in (
        "Token",
        "Batch",
        "Prompt",
        "GPU",
        "Quantisation",
        "FLOP",
        "Throughput",
        "PUE",
        "CO₂e",
        "Interval",
        "Fold",
    ):
        assert f"\n| {term}" in said, term
    first = [line.split(" | ")[0].lower() for line in said.splitlines()[2:]]
    assert first == sorted(first)


def test_figures_of_the_report_are_drawn_with_and_without_data(rich: policy.Evidence) -> None:
    for draw, rows in (
        (figures.levers, policy.lever_rows(rich)),
        (figures.gaming, policy.scenario_energies(rich)),
        (figures.regions, policy.regions(rich)),
        (figures.response, policy.response(rich)),
    ):
        drawn = draw(rows, "A finding.", "Small print.")
        assert drawn.axes[0].get_xlabel()
        assert drawn.axes[0].get_xscale() == "log"
        assert draw(rows.iloc[:0], "A finding.", "").finding == "A finding."  # type: ignore[attr-defined]


def test_every_run_is_a_point_beside_the_calculations(bare: policy.Evidence) -> None:
    runs = policy.curve_runs(bare)
    assert len(runs) == 14  # seven batch sizes in two cycles
    assert runs.loc[runs["batch_size"] == 1, "energy_ratio"].tolist() == pytest.approx([1.01, 0.99], rel=1e-9)
    drawn = figures.flops(policy.widest_curve(bare), runs, "A finding.", "Small print.")
    assert sorted(len(line.get_xdata()) for line in drawn.axes[0].lines)[-1] == 14
    none = figures.flops(policy.widest_curve(bare).iloc[:0], runs.iloc[:0], "A finding.", "")
    assert none.finding == "A finding."  # type: ignore[attr-defined]


def test_the_levers_figure_shows_each_ratio(rich: policy.Evidence) -> None:
    drawn = figures.levers(policy.lever_rows(rich), "A finding.", "")
    labels = [text.get_text() for text in drawn.axes[0].texts]
    assert labels == ["0.10×", "0.25×", "0.50×", "0.80×", "1.5×", "3.0×"]
