"""A published table against its own numbers: the real one, and small ones made for the purpose."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from inference_energy.analyse.published_appliances import last_energy_kwh, published_appliances
from inference_energy.errors import AnalysisError

PUBLISHED = Path(__file__).parents[2] / "resources" / "published"


def _tables(*rows: tuple[str, str, str, str, str]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Tables from rows of: appliance, printed kWh, justification, responses least and most efficient."""
    names, printed, why, least, most = zip(*rows, strict=True)
    energies = pd.DataFrame(
        {"appliance": names, "usage": "once", "energy_kwh": printed, "justification_as_printed": why}
    )
    responses = pd.DataFrame(
        {"responses_least_efficient": least, "responses_most_efficient": most, "appliance_energy_kwh": printed}
    )
    return energies.astype("string"), responses.astype("string")


LAMP, OVEN, FAN = (
    ("lamp", "0.1", "10 W x 10 h = 100 Wh", "10", "50"),
    ("oven", "2.0", "2 kW x 1 h = 2 kWh", "200", "1000"),
    ("fan", "0.05", "~0.05 kWh", "5", "25"),
)


@pytest.mark.parametrize(
    ("words", "kwh"),
    [
        ("6 W x 24 h = 144 Wh", 0.144),
        ("99.6 Wh -> 0.0996 kWh", 0.0996),
        ("~0.3 Wh per search", 0.0003),
        ("2-3 kW x 3 min (0.05 h) => ~0.115 kWh per litre", 0.115),
    ],
)
def test_the_last_energy_of_a_justification_counts(words: str, kwh: float) -> None:
    assert last_energy_kwh(words) == pytest.approx(kwh, rel=1e-12)


def test_a_justification_without_an_energy_is_an_error() -> None:
    with pytest.raises(AnalysisError, match="6 W x 24 h"):
        last_energy_kwh("6 W x 24 h")


def test_a_table_that_follows_is_said_to_follow() -> None:
    rows = published_appliances(*_tables(LAMP, OVEN, FAN)).table()
    assert rows["energy_follows"].all()
    assert rows["responses_follow"].all()
    assert rows["n_derived_most_responses"].tolist() == pytest.approx([50, 1000, 25], rel=1e-12)


def test_a_wrong_energy_and_a_wrong_count_are_found() -> None:
    wrong = ("kettle", "0.2", "0.3 kWh", "100", "20")  # its columns swapped
    rows = published_appliances(*_tables(LAMP, OVEN, FAN, wrong)).table().set_index("appliance")
    assert list(rows.index[~rows["energy_follows"]]) == ["kettle"]
    assert list(rows.index[~rows["responses_follow"]]) == ["kettle"]
    assert rows.loc["kettle", "n_derived_least_responses"] == pytest.approx(20, rel=1e-12)
    assert rows.loc["kettle", "n_derived_most_responses"] == pytest.approx(100, rel=1e-12)


def test_rounding_of_the_printed_count_is_no_error() -> None:
    rounded = ("charger", "0.014", "14 Wh", "1", "7")  # 1.4 and 7.0
    assert published_appliances(*_tables(LAMP, OVEN, FAN, rounded)).table()["responses_follow"].all()
    off = ("charger", "0.016", "16 Wh", "1", "8")  # 1.6 rounds to 2
    assert not published_appliances(*_tables(LAMP, OVEN, FAN, off)).table()["responses_follow"].all()


def test_tables_of_different_appliances_are_refused() -> None:
    energies, _ = _tables(LAMP, OVEN)
    _, responses = _tables(OVEN, LAMP)
    with pytest.raises(AnalysisError, match="the same appliances in the same order"):
        published_appliances(energies, responses)


def test_two_rows_of_the_real_table_do_not_follow() -> None:
    files = (f"baker_appliance_{what}.csv" for what in ("energy", "responses"))
    read = [pd.read_csv(PUBLISHED / name, dtype="string", keep_default_na=False) for name in files]
    rows = published_appliances(*read).table().set_index("appliance")
    assert list(rows.index[~rows["energy_follows"]]) == ["MacBook Pro 2023 (M3)", "Electric Kettle"]
    assert list(rows.index[~rows["responses_follow"]]) == ["Electric Kettle"]
    assert rows.loc["Electric Kettle", "n_derived_least_responses"] == pytest.approx(44.4, abs=0.1)
    assert rows.loc["Electric Kettle", "n_derived_most_responses"] == pytest.approx(129, abs=0.5)
