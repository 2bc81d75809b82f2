"""The page on serving: what it says and draws of a made-up campaign, and of campaigns that lack it."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
import served_campaign as served
from drawn_campaign import write
from make_synthetic_tables import RESOURCES
from matplotlib.figure import Figure

from inference_energy import figures, policy, tables
from inference_energy.figures.style import save
from inference_energy.questions import Statistics, answered

QUESTIONS = ("arrival_runs", "arrival_curve", "arrival_ratio", "energy_floor")
LOADED = ("runs", "windows", "samples", "engine_samples", "requests", *QUESTIONS)
SENTENCES: tuple[Callable[[policy.Evidence], object], ...] = (
    policy.arrivals.answer,
    policy.client.served,
    policy.arrivals.energy,
    policy.arrivals.latency,
    policy.arrivals.meanwhile,
    policy.arrivals.cache,
    policy.arrivals.one_by_one,
    policy.arrivals.curve_table,
    policy.arrivals.in_plain_words,
    policy.floors.floor,
)
WORDS = ("A finding.", "Small print.")
FIGURES: dict[str, Callable[[policy.Evidence], Figure]] = {
    "lateness": lambda e: figures.arrivals.lateness(policy.client.errors(e), *WORDS),
    "energy": lambda e: figures.arrivals.energy(policy.arrivals.curve(e), policy.arrivals.curve_runs(e), *WORDS),
    "latency": lambda e: figures.arrivals.latency(policy.arrivals.curve(e), policy.arrivals.curve_runs(e), *WORDS),
    "timelines": lambda e: figures.arrivals.timelines(policy.arrivals.timelines(e), *WORDS),
    "floor": lambda e: figures.arrivals.floor(policy.floors.floor_rows(e), *WORDS),
}


def _evidence(folder: Path, found: dict[str, pd.DataFrame]) -> policy.Evidence:
    """`found` with the tables that are analysed of it."""
    statistics = Statistics(
        confidence=0.95, n_bootstrap=200, seed=1, time_to_first_token_max_s=2.0, inter_token_latency_max_s=0.1
    )
    made = dict(found)
    for question in QUESTIONS:
        made[question] = answered(question, made.__getitem__, statistics, RESOURCES)
    write(folder, "synthetic", made)
    return policy.load(folder, "synthetic", LOADED, studies="serving")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> policy.Evidence:
    return _evidence(tmp_path_factory.mktemp("results"), served.whole())


def test_every_sentence_holds_numbers(whole: policy.Evidence) -> None:
    for sentence in SENTENCES:
        text = str(sentence(whole))
        assert re.search(r"\d", text), sentence.__name__
        assert not re.search(r"\bnan\b|<NA>|None|unknown|Not measured", text), text


def test_what_is_said_is_what_was_made(whole: policy.Evidence) -> None:
    answer = policy.answer(whole, "17_serving")
    assert answer.title.startswith("A request takes 5.5× (95 % interval")
    assert "at its dearest (Poisson, 4 requests/s) as at its cheapest (all at once)." in answer.title
    assert "gamma gaps (CV 2), 16 requests/s, 10 % more (95 % interval" in answer.detail
    assert policy.client.served(whole).title == "All 640 requests were answered with the tokens asked for."
    assert "For 100 requests a second that is 20 %, more than the 1 %" in policy.client.served(whole).detail
    assert (
        "Least energy within the limits on latency: 20.0 J a request (all at once)."
        in policy.arrivals.latency(whole).title
    )
    assert "by up to 20 % more" in policy.arrivals.cache(whole).title
    assert "takes 0.050× to 0.27× the energy" in policy.arrivals.one_by_one(whole).title
    assert policy.floors.floor(whole).title == "No serving run of 18 takes less energy than its work must."


def test_a_run_below_the_floor_is_called_a_defect(whole: policy.Evidence, tmp_path: Path) -> None:
    found = served.whole()
    first = found["runs"]["setting"].eq("burst") & found["runs"]["cycle"].eq(1)
    found["runs"].loc[first, "energy_j_per_prompt"] = 0.01
    evidence = _evidence(tmp_path, found)
    finding = policy.floors.floor(evidence)
    assert finding.title.startswith("1 of 18 serving runs take less energy than physics allows, and 0 less")
    assert "arrival/burst, cycle 1: 10.0 mJ (impossible)" in finding.detail


def test_failures_are_named(tmp_path: Path) -> None:
    found = served.whole()
    found["requests"].loc[found["requests"]["request"].eq(0), "outcome"] = "cut_off"
    evidence = _evidence(tmp_path, found)
    finding = policy.client.served(evidence)
    assert finding.title.startswith("16 of 640 requests failed")
    assert "burst, cycle 1: 1 cut_off" in finding.detail
    assert "No pattern and rate measured keeps to the limits" in policy.arrivals.latency(evidence).title


def test_timelines_are_the_first_pass_of_three_patterns(whole: policy.Evidence) -> None:
    rows = policy.arrivals.timelines(whole)
    assert set(rows["series"]) == {"all at once", "fixed gaps, 16 requests/s", "Poisson, 16 requests/s"}
    of_burst = rows[rows["series"] == "all at once"]
    assert of_burst["time_s"].between(0, 1.0).all()
    assert set(of_burst["quantity"]) == {"n_running", "n_waiting", "power_w"}


@pytest.mark.parametrize("name", list(FIGURES))
def test_figures_show_what_there_is(whole: policy.Evidence, tmp_path: Path, name: str) -> None:
    figure = FIGURES[name](whole)
    assert any(line.get_xydata().size for axes in figure.axes for line in axes.get_lines())
    assert b"<path" in save(figure, whole.runs, tmp_path, name).path.read_bytes()


@pytest.mark.parametrize("keep", ["given", "one setting", "small cache"])
def test_campaigns_that_lack_it_say_so(tmp_path: Path, keep: str) -> None:
    found = served.whole()
    kept = {
        "given": lambda frame: frame["study"] == "engine",
        "small cache": lambda frame: frame["setting"].str.endswith("8192"),
        "one setting": lambda frame: (frame["setting"] == "burst") & (frame["cycle"] == 1),
    }[keep]
    thin = {
        name: frame[kept(frame)].reset_index(drop=True) if "cycle" in frame else frame for name, frame in found.items()
    }
    evidence = _evidence(tmp_path, thin)
    for sentence in SENTENCES:
        text = str(sentence(evidence))
        assert not re.search(r"\bnan\b|<NA>|None", text), text
        if keep == "given" and sentence is not policy.floors.floor:
            assert "Not measured in this campaign" in text
    for draw in FIGURES.values():
        assert draw(evidence).axes


def test_the_published_energies_are_judged(tmp_path: Path) -> None:
    assert "were not audited here" in policy.floors.published_floor(policy.load_audit(tmp_path, "delavande")).title
    audit = policy.load_audit(RESOURCES.parent / "results", "delavande")
    finding = policy.floors.published_floor(audit)
    assert finding.title.startswith("2 of 11 published runs claim more arithmetic per joule than a GPU can do")
    # 3.83 J a request: 17.3 TFLOP of its layers, at 1.41 TFLOP/J 12.2 J.
    assert "LLaMA-3.1-8B, fixed 0.05: 3.2 times as much" in finding.title


def test_the_notebook_loads_what_it_shows() -> None:
    notebook = json.loads((RESOURCES.parent / "notebooks" / "17_serving.ipynb").read_text(encoding="utf-8"))
    source = "\n".join("".join(cell["source"]) for cell in notebook["cells"])
    for name in LOADED:
        assert f'"{name}"' in source
    assert set(LOADED) <= set(tables.TABLES)
