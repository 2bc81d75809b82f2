"""Figures say their finding, show their points, and come out the same twice."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from drawn_campaign import frames, joules, local_frames
from matplotlib.figure import Figure

from inference_energy import figures
from inference_energy.figures import style

TITLE, CAPTION = "Energy falls 29×.", "A point is one run."


@pytest.fixture(scope="module")
def made() -> dict[str, pd.DataFrame]:
    return frames()


def _all(made: dict[str, pd.DataFrame]) -> dict[str, Figure]:
    study = {name: made[name][made[name]["study"] == "batching"] for name in ("runs", "energy_summary")}
    factor = made["equivalence"][made["equivalence"]["factor"] == "launcher"]
    samples = made["samples"][made["samples"]["cycle"] == 1]
    intervals = made["intervals"][
        made["intervals"]["setting"].isin(samples["setting"]) & (made["intervals"]["cycle"] == 1)
    ]
    words = (TITLE, CAPTION)
    uses = pd.DataFrame(
        {"name": ["a", "b", "kettle"], "kind": ["response", "response", "appliance"], "energy_j": [20.0, 2000.0, 4e5]}
    ).assign(energy_j_low=[19.0, 1900.0, None], energy_j_high=[21.0, 2100.0, None])
    return {
        "time_use": figures.time_use(made["campaign_quality"], *words),
        "counter": figures.counter_against_power(made["windows"], *words),
        "ledger": figures.ledger(made["campaign_quality"], *words),
        "window_spread": figures.window_spread(made["runs"], *words),
        "trace": figures.trace(samples, intervals, *words),
        "distribution": figures.distribution(study["runs"], study["energy_summary"], *words),
        "warm_up": figures.warm_up(made["iterations"], *words),
        "equivalence": figures.equivalence(factor, made["runs"], *words),
        "response": figures.response(uses, *words),
    }


@pytest.fixture(scope="module")
def drawn(made: dict[str, pd.DataFrame]) -> dict[str, Figure]:
    return _all(made)


def _words(figure: Figure) -> list[str]:
    return [text.get_text().replace("\n", " ") for text in figure.texts]


def test_every_figure_carries_its_finding_and_small_print(drawn: dict[str, Figure]) -> None:
    for name, figure in drawn.items():
        assert _words(figure) == [TITLE, CAPTION], name


def test_every_axis_is_labelled(drawn: dict[str, Figure]) -> None:
    for name, figure in drawn.items():
        bottom = [axes for axes in figure.axes if axes.get_subplotspec().is_last_row()]
        assert all(axes.get_xlabel() for axes in bottom), name


def test_units_stand_on_the_axes(drawn: dict[str, Figure]) -> None:
    axes = drawn["distribution"].axes[0]
    assert axes.get_xlabel().startswith("Energy per output token (J)")
    assert axes.get_xscale() == "log"
    assert drawn["trace"].axes[0].get_ylabel() == "Power (W)"


def test_warm_up_shows_measured_and_warm_up_iterations_apart(drawn: dict[str, Figure]) -> None:
    figure = drawn["warm_up"]
    assert len(figure.axes) == 6  # two protocols, three kernels
    titles = [axes.get_title(loc="left") for axes in figure.axes]
    assert "default attention, three forward passes" in titles
    short = figure.axes[titles.index("default attention, three forward passes")]
    filled = [line for line in short.lines if line.get_marker() == "o" and line.get_markerfacecolor() != "white"]
    assert max(float(line.get_ydata().max()) for line in filled if len(line.get_ydata())) == pytest.approx(70, rel=1e-9)


def test_the_launcher_figure_shows_the_ratio_of_each_cycle(drawn: dict[str, Figure]) -> None:
    axes = drawn["equivalence"].axes[0]
    ratios = np.concatenate([line.get_xdata() for line in axes.lines if line.get_markersize() == 4])
    np.testing.assert_allclose(ratios, 1.005, rtol=1e-9)
    assert len(ratios) == 4  # two settings, two cycles


def test_nothing_to_draw_gives_a_sentence_instead(made: dict[str, pd.DataFrame]) -> None:
    local = local_frames()
    said = "Not measured in this campaign: the ledger."
    for figure in (
        figures.ledger(local["campaign_quality"], said, CAPTION),
        figures.counter_against_power(local["windows"], said, CAPTION),
        figures.trace(local["samples"], local["intervals"], said, CAPTION),
        figures.warm_up(local["iterations"], said, CAPTION),
        figures.equivalence(local["equivalence"], local["runs"], said, CAPTION),
        figures.distribution(local["runs"], local["energy_summary"].iloc[:0], said, CAPTION),
        figures.time_use(local["campaign_quality"].iloc[:0], said, CAPTION),
        figures.window_spread(local["runs"].iloc[:0], said, CAPTION),
        figures.response(pd.DataFrame({"name": [], "kind": [], "energy_j": []}), said, CAPTION),
    ):
        assert said in _words(figure)[0]
        assert not figure.axes[0].has_data()


def test_saving_twice_gives_the_same_bytes(made: dict[str, pd.DataFrame], tmp_path: Path) -> None:
    names = ("distribution", "warm_up", "counter")
    for folder in ("a", "b"):
        drawn = _all(made)
        for name in names:
            figures.save(drawn[name], made["batch_curve"], tmp_path / folder, name)
    for name in names:
        assert (tmp_path / "a" / f"{name}.svg").read_bytes() == (tmp_path / "b" / f"{name}.svg").read_bytes()


def test_a_figure_is_saved_with_its_table_and_shown_with_its_finding(
    drawn: dict[str, Figure], made: dict[str, pd.DataFrame], tmp_path: Path
) -> None:
    saved = figures.save(drawn["warm_up"], made["batch_curve"], tmp_path, "batch")
    svg = saved.path.read_text(encoding="utf-8")
    assert "<dc:date>" not in svg
    back = pd.read_csv(tmp_path / "batch.csv")
    assert back["energy_j_per_output_token"].iloc[0] == pytest.approx(joules("llama-3.2-1b", "float16", 1), rel=1e-12)
    shown = saved._repr_html_()
    assert f'alt="{TITLE}"' in shown
    assert re.search(r'src="data:image/svg\+xml;base64,', shown)


def test_ticks_are_plain_numbers() -> None:
    assert [style.plain_tick(value) for value in (0.05, 20, 5000)] == ["0.05", "20", "5,000"]
    assert [style.joule_tick(value) for value in (50, 1e4, 1e6, 1e9)] == ["50 J", "10 kJ", "1 MJ", "1 GJ"]


def test_models_keep_distinct_colours_and_precisions_distinct_marks() -> None:
    palette = style.colours(["b", "a", "a", "c"])
    assert list(palette) == ["a", "b", "c"]
    assert len(set(palette.values())) == 3
    assert len(set(style.shapes(["x", "y", "z"]).values())) == 3
