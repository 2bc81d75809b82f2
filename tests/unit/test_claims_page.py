"""The page of claims: a table that is whole without scripts, can be filtered, and leads to figures."""

from __future__ import annotations

import dataclasses
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from drawn_campaign import conformed, frames, local_frames, write

from inference_energy import figures, policy, tables
from inference_energy.figures import claims as drawn
from inference_energy.verdicts import BAND_FRACTION, VERDICTS

COMMON: dict[str, Any] = {
    "study": "baker", "source": "page 1", "reading": "as stated", "main": True, "kind": "effect", "unit": "x",
    "n_estimates": 1, "n_runs": 2, "n_settings": 1, "page": "05_batch", "figure": "batch_fit",
    "records": "batching/a.c1",
}  # fmt: skip
EFFECT = "effect_over_published_ratio"


def _row(claim_id: str, verdict: str, effect: float, **changes: Any) -> dict[str, Any]:
    numbers = {"value": 4.0, "estimate": 4.0 * effect, "low": 3.9 * effect, "high": 4.1 * effect}
    numbers |= {EFFECT: effect, f"{EFFECT}_low": effect - 0.1, f"{EFFECT}_high": effect + 0.1}
    words = {"claim_id": claim_id, "statement": f"<{claim_id}> & more", "quantity": "ours", "verdict": verdict}
    return COMMON | numbers | words | changes


UNTESTED = {"value": 2112.0, "unit": "configs", "note": "a plan"} | dict.fromkeys(
    ("page", "figure", "n_runs", "n_estimates")
)
ROWS = [
    _row("first", "reproduced", 1.0),
    _row("first", "contradicted", -0.5, main=False, reading="each GPU once"),
    _row("second", "same direction", 5.0),
    _row("third", "contradicted", -0.4, study="delavande", n_estimates=2),
    _row("fourth", "not testable here", float("nan"), study="wetzel") | UNTESTED | {"estimate": float("nan")},
    _row("fifth", "reproduced", float("nan"), kind="statement", unit=None, value=float("nan"), value_low=0.95)
    | {"value_high": 1.05},
]  # fmt: skip


@pytest.fixture(scope="module")
def evidence(tmp_path_factory: pytest.TempPathFactory) -> policy.Evidence:
    folder = tmp_path_factory.mktemp("results")
    write(folder, "pilot", frames() | {"claims": conformed(tables.TABLES["claims"], ROWS)})
    return policy.load(folder, "pilot")


@pytest.fixture(scope="module")
def without(tmp_path_factory: pytest.TempPathFactory) -> policy.Evidence:
    folder = tmp_path_factory.mktemp("results")
    write(folder, "local", local_frames())
    return policy.load(folder, "local")


class _Outline(HTMLParser):
    """Tags that are opened and closed, with their attributes."""

    def __init__(self) -> None:
        super().__init__()
        self.opened: list[str] = []
        self.found: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))
        if tag != "input":
            self.opened.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.opened.pop() == tag


def _outline(markup: str) -> _Outline:
    outline = _Outline()
    outline.feed(markup)
    assert not outline.opened
    return outline


def test_each_verdict_is_counted_once_a_claim(evidence: policy.Evidence) -> None:
    counts = policy.claims_counts(evidence).set_index(["study", "verdict"])["n_claims"]
    assert counts[counts > 0].to_dict() == {
        ("baker", "reproduced"): 2,
        ("baker", "same direction"): 1,
        ("wetzel", "not testable here"): 1,
        ("delavande", "contradicted"): 1,
    }
    title = policy.claims_verdicts(evidence).title
    assert title == "4 of 5 claims can be tested here: 2 reproduced, 1 same direction, 1 contradicted."


def test_effects_are_compared_in_words(evidence: policy.Evidence) -> None:
    title = policy.claims_compared(evidence).title
    assert title == (
        "Of 3 effects that studies give as numbers, 1 came out as published, 1 came out larger and"
        " 1 came out the other way round."
    )
    assert len(policy.claims_compared_rows(evidence)) == 4  # with the second reading


def test_the_ledger_is_whole_and_can_be_filtered(evidence: policy.Evidence) -> None:
    markup = policy.claims_ledger(evidence)
    outline = _outline(markup)
    groups = [attributes for tag, attributes in outline.found if tag == "tbody"]
    assert [(group["id"], group["data-verdict"]) for group in groups] == [
        ("baker-first", "reproduced"),
        ("baker-second", "same direction"),
        ("delavande-third", "contradicted"),
        ("baker-fifth", "reproduced"),
        ("wetzel-fourth", "not testable here"),  # what could be tested comes first
    ]
    assert all("hidden" not in group for group in groups)
    assert ("form", {"hidden": None}) in outline.found  # only a script shows it
    options = re.findall(r"<option>([^<]+)</option>", markup)
    assert options == list(VERDICTS)
    assert markup == policy.claims_ledger(evidence)


def test_the_ledger_can_be_read_by_a_screen_reader(evidence: policy.Evidence) -> None:
    outline = _outline(policy.claims_ledger(evidence))
    scopes = [attributes.get("scope") for tag, attributes in outline.found if tag == "th"]
    assert scopes.count("col") == 7
    assert scopes.count("row") == len(ROWS)
    tags = [tag for tag, _ in outline.found]
    fields = [tag for tag in tags if tag in ("input", "select")]
    assert tags.count("label") == len(fields) == 3
    assert "caption" in tags


def test_the_ledger_says_what_was_found(evidence: policy.Evidence) -> None:
    markup = policy.claims_ledger(evidence)
    assert "&lt;first&gt; &amp; more" in markup
    assert '<a href="05_batch.html#fig-batch_fit">batch</a>' in markup
    assert "2,112 configs" in markup
    assert "true: 0.95 to 1.05" in markup
    assert "4× [3.90 to 4.10]" in markup
    assert "<small>a plan</small>" in markup
    assert "<small>ours; the least favourable of 2</small>" in markup
    assert "batching/a.c1" in markup


def test_nothing_is_loaded_from_elsewhere(evidence: policy.Evidence) -> None:
    assert not re.search(r"<(script|link|img)\b[^>]*(src|href)", policy.claims_ledger(evidence))


def test_a_campaign_without_claims_says_so(without: policy.Evidence) -> None:
    assert "Not measured in this campaign" in policy.claims_ledger(without)
    assert policy.claims_verdicts(without).title.startswith("Not measured in this campaign")
    assert policy.claims_compared(without).title.startswith("Not measured in this campaign")
    for figure in (
        figures.claims_verdicts(policy.claims_counts(without), "None.", ""),
        figures.claims_compared(policy.claims_compared_rows(without), "None.", ""),
    ):
        assert figure.finding == "None."  # type: ignore[attr-defined]


def test_a_campaign_that_can_test_nothing_says_so(evidence: policy.Evidence) -> None:
    rows = evidence.claims.assign(verdict="not testable here")
    title = policy.claims_verdicts(dataclasses.replace(evidence, claims=rows)).title
    assert title == "None of 5 claims can be tested with what this campaign measured."


def test_figures_show_every_claim(evidence: policy.Evidence, tmp_path: Path) -> None:
    counts, rows = policy.claims_counts(evidence), policy.claims_compared_rows(evidence)
    verdicts = figures.claims_verdicts(counts, "Two.", "caption").axes[0]
    assert sorted(bar.get_width() for bar in verdicts.patches if bar.get_width()) == [1, 1, 1, 2]
    compared = figures.claims_compared(rows, "Three.", "caption")
    labels = [label.get_text() for label in compared.axes[0].get_yticklabels()]
    assert labels == ["Baker: <first> & more", "Baker: <second> & more", "Delavande: <third> & more"]
    assert [text.get_text() for text in compared.axes[0].texts] == ["5.0"]  # beyond the panel, so named
    saved = figures.save(compared, rows, tmp_path, "claims_compared")
    assert 'id="fig-claims_compared"' in saved._repr_html_()
    first = saved.path.read_bytes()
    again = figures.save(figures.claims_compared(rows, "Three.", "caption"), rows, tmp_path, "claims_compared")
    assert again.path.read_bytes() == first


def test_figures_know_every_verdict_and_the_band() -> None:
    assert tuple(drawn.VERDICTS) == VERDICTS
    assert pytest.approx((1 - BAND_FRACTION, 1 + BAND_FRACTION)) == drawn.BAND
