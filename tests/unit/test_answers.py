"""Every page answers its title at the top, from the data, and honestly where a campaign holds none."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from drawn_campaign import frames, local_frames, write

from inference_energy import policy

NOTEBOOKS = Path(__file__).resolve().parents[2] / "notebooks"
PAGES = sorted(path.stem for path in NOTEBOOKS.glob("*.ipynb") if path.stem != "14_policy_report")


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("results")
    write(folder, "pilot", frames())
    write(folder, "local", local_frames())
    return folder


@pytest.mark.parametrize("page", PAGES)
@pytest.mark.parametrize("campaign", ["pilot", "local"])
def test_every_page_has_an_answer_whatever_was_measured(results: Path, campaign: str, page: str) -> None:
    said = policy.answer(policy.load(results, campaign), page)
    assert said.title.endswith(".")
    assert "unknown" not in str(said)


@pytest.mark.parametrize("page", PAGES)
def test_the_answer_stands_before_the_first_section(page: str) -> None:
    cells = json.loads((NOTEBOOKS / f"{page}.ipynb").read_text(encoding="utf-8"))["cells"]
    sources = ["".join(cell["source"]) for cell in cells]
    call = next(place for place, source in enumerate(sources) if f'policy.answer(evidence, "{page}"' in source)
    assert call < next(place for place, source in enumerate(sources) if source.startswith("## "))


def test_trust_is_answered_by_the_ledger(results: Path) -> None:
    evidence = policy.load(results, "pilot")
    closure = evidence.campaign_quality.set_index("sitting").loc["all", "runs_closure_fraction"]
    title = policy.answer(evidence, "01_campaign_quality").title
    assert f"within {abs(closure) * 100:.2g}" in title or "recorded" in title
