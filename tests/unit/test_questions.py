"""What a campaign did not measure has an empty table, and pages that say so; one without numbers is an error."""

from __future__ import annotations

from pathlib import Path

import drawn_campaign
import pandas as pd
import pytest
import synthetic_serving
from make_synthetic_tables import RESOURCES, all_tables
from synthetic import resolved_campaign

from inference_energy import policy, tables
from inference_energy.errors import AnalysisError
from inference_energy.questions import QUESTIONS, Statistics, answered

PAGES = sorted(path.stem for path in (RESOURCES.parent / "notebooks").glob("*.ipynb") if path.stem[:2] != "14")
#: Questions about deployments that hold what was published.
OF_ANY_CAMPAIGN = {"published_appliances"}
SERVED = resolved_campaign(
    name="synthetic-serving",
    seed=1,
    cycle_gap_min_s=60.0,
    base={"n_input_tokens": 16, "n_output_tokens": 16},
    measurement={"window_min_s": 1.1},
    studies={
        name: {"question": "SYNTHETIC?"} | synthetic_serving.STUDIES[name] for name in ("sharing", "phases", "arrival")
    },
)


DRAWN = drawn_campaign.frames()["runs"]


def _runs(**changes: str) -> pd.DataFrame:
    """SYNTHETIC runs of a drawn campaign."""
    return DRAWN.assign(**changes)


def _answered(question: str, **made: pd.DataFrame) -> pd.DataFrame:
    return answered(question, made.__getitem__, Statistics(confidence=0.95, n_bootstrap=20, seed=1), RESOURCES)


def test_a_question_about_deployments_is_empty_where_all_numbers_are_of_serving() -> None:
    served = _runs(study="engine")
    lost = _runs().assign(energy_j_per_output_token=float("nan"))  # deployments that gave no numbers
    for runs in (served, pd.concat([served, lost], ignore_index=True)):
        found = _answered("effects", runs=runs)
        assert found.empty
        assert list(found.columns) == tables.TABLES["effects"].names
    assert len(_answered("effects", runs=pd.concat([served, _runs()], ignore_index=True)))


def test_a_campaign_without_numbers_is_an_error_whatever_its_studies() -> None:
    for study in ("engine", "batching"):
        with pytest.raises(AnalysisError, match="table runs"):
            _answered("effects", runs=_runs(study=study).assign(energy_j_per_output_token=float("nan")))


def test_what_follows_from_an_empty_table_is_empty() -> None:
    nothing = tables.conform(pd.DataFrame(columns=tables.TABLES["utilisation"].names), tables.TABLES["utilisation"])
    assert _answered("explained", utilisation=nothing).empty


def test_a_question_about_serving_says_itself_what_it_can_without_runs() -> None:
    assert len(_answered("length_fits", runs=_runs())) == 1  # the fit to what was published


@pytest.fixture(scope="module")
def served() -> dict[str, pd.DataFrame]:
    """Every table of a campaign with studies of serving only."""
    return all_tables(SERVED, synthetic_serving.serving_records(SERVED), n_bootstrap=20)


def test_every_question_of_a_campaign_of_serving_is_answered(served: dict[str, pd.DataFrame]) -> None:
    assert set(served) >= set(QUESTIONS)
    filled = {name for name, asked in QUESTIONS.items() if asked.studies == "deployment" and len(served[name])}
    after = {"phases", "arrival_curve", "padding", "padding_shape"}  # what follows from an answer about serving
    assert filled - after == OF_ANY_CAMPAIGN
    assert min(len(served[name]) for name in ("phases", "arrival_curve", "claims")) > 0


def test_every_page_of_a_campaign_of_serving_says_what_is_not_there(
    served: dict[str, pd.DataFrame], tmp_path: Path
) -> None:
    drawn_campaign.write(tmp_path, "served", served)
    everything = policy.load(tmp_path, "served")
    for page in PAGES:
        assert policy.answer(everything, page).title.endswith(".")
    for page in ("02_distribution", "04_factors", "05_batch", "06_precision", "10_throughput", "11_scenarios"):
        assert policy.answer(everything, page).title.startswith("Not measured in this campaign: ")
    assert "measured twice" not in policy.headlines(everything)
    assert f"{len(served['runs'])} runs of" in policy.measured(everything)
    assert "**1 machine.**" in policy.limits(everything)
