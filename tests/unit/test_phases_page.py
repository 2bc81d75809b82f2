"""Sentences and figures on prefill, decoding and padding: every number and direction comes from the tables."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable
from pathlib import Path

import made_phases
import pandas as pd
import pytest
from drawn_campaign import write

from inference_energy import figures, policy
from inference_energy.policy import padding, phases

LOADED = ("runs", "phase_runs", "phases", "padding_runs", "padding", "padding_shape")
SENTENCES: tuple[Callable[[policy.Evidence], policy.wording.Finding], ...] = (
    phases.answer,
    phases.tokens,
    phases.formats,
    phases.energy_and_time,
    phases.methods,
    phases.engines,
    padding.prompts,
    padding.best_batch,
    padding.answers,
    padding.sorting,
)
TABLES = (
    phases.levels_table,
    lambda evidence: phases.ratios_table(evidence, "float32"),
    padding.estimates_table,
    padding.shapes_table,
)
WORDS = ("A finding.", "Small print.")
FIGURES = {
    "tokens": lambda e: figures.phases.tokens(phases.run_rows(e), phases.level_rows(e), *WORDS),
    "formats": lambda e: figures.phases.formats(phases.ratio_rows(e, "precision", "float32"), *WORDS),
    "energy_and_time": lambda e: figures.phases.energy_and_time(phases.ratio_rows(e, "precision", "float32"), *WORDS),
    "methods": lambda e: figures.phases.ratio_list(phases.method_rows(e), *WORDS, "ratio"),
    "engines": lambda e: figures.phases.ratio_list(phases.engine_rows(e), *WORDS, "ratio"),
    "prompts": lambda e: figures.padding.curves(e.padding_runs, e.padding, figures.padding.PROMPTS, *WORDS, "J"),
    "best": lambda e: figures.padding.curves(e.padding_runs, e.padding, figures.padding.BEST, *WORDS, "J"),
    "sorting": lambda e: figures.padding.sorting(e.padding, *WORDS),
}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> policy.Evidence:
    folder = tmp_path_factory.mktemp("results")
    write(folder, "made", made_phases.answered(made_phases.runs()))
    return policy.load(folder, "made", LOADED, studies="serving")


@pytest.fixture(scope="module")
def lacking(whole: policy.Evidence) -> policy.Evidence:
    return dataclasses.replace(whole, **{name: getattr(whole, name).iloc[:0] for name in LOADED})


def _range(text: str, words: str) -> tuple[float, float]:
    """The two ratios before `words`."""
    found = re.search(rf"([\d.]+)×(?: to ([\d.]+)×)? {words}", text)
    assert found, (words, text)
    return float(found[1]), float(found[2] or found[1])


def test_a_token_of_each_phase_is_as_constructed(whole: policy.Evidence) -> None:
    title = phases.tokens(whole).title
    ends = [float(end) for end in re.findall(r"(\d+)× \(", title)]
    first, step = made_phases.PREFILL["float32"][0], made_phases.DECODE["float32"][0]
    assert ends[0] == pytest.approx(step / (first + 1 / 256), rel=0.05)
    first, step = made_phases.PREFILL["int8"][0], made_phases.DECODE["int8"][0]
    assert ends[1] == pytest.approx(step / (first + 1 / 2048), rel=0.05)
    assert "16 settings" in title


def test_formats_and_engines_are_as_constructed(whole: policy.Evidence) -> None:
    title = phases.formats(whole).title
    int8 = title[title.index("int8 takes") :]
    assert _range(int8, "in decoding") == pytest.approx([4.0 / 1.6] * 2, rel=0.05)
    assert _range(int8, "in prefill")[0] == pytest.approx((0.012 + 1 / 2048) / (0.03 + 1 / 2048), rel=0.05)
    engines = phases.engines(whole).title
    assert _range(engines, "of the energy of transformers in prefill") == pytest.approx([0.4] * 2, rel=0.05)


def test_power_is_said_to_rise_only_where_it_does(whole: policy.Evidence) -> None:
    assert "0 of 4 settings in prefill and 0 of 4 settings in decoding" in phases.energy_and_time(whole).title
    rows = whole.phases
    higher = rows.assign(estimate=rows["estimate"].where(rows["quantity"] != "power_mean_w", 1.5))
    said = phases.energy_and_time(dataclasses.replace(whole, phases=higher)).title
    assert "4 of 4 settings in prefill" in said


def test_short_prefills_are_said_to_have_no_energy_by_time_stamp(whole: policy.Evidence) -> None:
    found = phases.methods(whole)
    assert "in 6 of 16 settings" in found.title
    assert "shorter than 0.1 s" in found.detail
    assert _range(found.title, "of the energy of a run")[0] == pytest.approx(0.97, rel=0.02)


def test_padding_is_as_constructed(whole: policy.Evidence) -> None:
    found = padding.prompts(whole)
    padded = 1190 * (1 + 0.25 * 6) * 0.006 + 2 / 64
    assert _range(found.title, r"\(95 %")[0] == pytest.approx(padded / (1190 * 0.006 + 2), rel=0.05)
    assert "60 % at batch 64" in found.detail  # 1 - 1 / 2.5
    shapes = padding.best_batch(whole).title
    assert "in prefill it rises from batch 1 to 64" in shapes
    assert "in decoding it is lowest at batch" in shapes
    assert re.search(r"in prefill \d+ % less at batch 4", padding.sorting(whole).title)


@pytest.mark.parametrize("say", SENTENCES)
def test_a_campaign_without_these_studies_says_so(lacking: policy.Evidence, say: Callable[..., object]) -> None:
    assert str(say(lacking)).startswith("Not measured in this campaign")


def test_thin_campaigns_say_what_they_lack(whole: policy.Evidence, tmp_path: Path) -> None:
    runs = made_phases.runs()
    kept = runs[(runs["cycle"] == 1) & runs["precision"].eq("bfloat16") & ~runs["batch_size"].isin([4, 16])]
    write(tmp_path, "thin", made_phases.answered(kept))
    thin = policy.load(tmp_path, "thin", LOADED, studies="serving")
    assert "no interval" in thin.phases["note"].iloc[0]
    assert phases.formats(thin).title.startswith("Not measured")
    assert "cannot be told yet" in padding.best_batch(thin).title
    assert "prefill: no course can be told, because a curve takes 4 batch sizes, and this one has 3" in str(
        padding.best_batch(thin)
    )
    for say in (*SENTENCES, *TABLES):
        assert "unknown" not in str(say(thin))
    for draw in FIGURES.values():
        draw(thin)


def test_tables_hold_every_setting(whole: policy.Evidence, lacking: policy.Evidence) -> None:
    assert phases.levels_table(whole).count("\n") == 1 + 16
    assert phases.ratios_table(whole, "float32").count("\n") == 1 + 8 + 2
    assert "| U |" in padding.shapes_table(whole)
    for make in TABLES:
        assert str(make(lacking)).startswith("Not measured")


@pytest.mark.parametrize("name", FIGURES)
def test_figures_are_drawn_alike_twice_or_say_that_there_is_nothing(
    whole: policy.Evidence, lacking: policy.Evidence, tmp_path: Path, name: str
) -> None:
    saved = [
        figures.save(FIGURES[name](whole), pd.DataFrame(), tmp_path / place, name).path.read_bytes()
        for place in ("one", "two")
    ]
    assert saved[0] == saved[1]
    assert not FIGURES[name](lacking).axes[0].has_data()
