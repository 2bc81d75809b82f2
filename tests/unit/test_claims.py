"""The ledger of claims: the rules' files, estimates and records by hand, and what is refused."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from synthetic import resolved_campaign

from inference_energy import tables
from inference_energy.analyse.claims import ANSWERS, ANSWERS_OF_SERVING, Claims, claims
from inference_energy.design import expand
from inference_energy.errors import AnalysisError
from inference_energy.questions import QUESTIONS, RECORD_TABLES
from inference_energy.tables.studies import of_studies
from inference_energy.verdicts import NOT_TESTABLE, VERDICTS

ROOT = Path(__file__).resolve().parents[2]
PUBLISHED = ROOT / "resources" / "published" / "claims.csv"
RULES = ROOT / "resources" / "claim_rules.csv"


def _read(path: Path) -> pd.DataFrame:
    return pd.read_csv(path, dtype="string", keep_default_na=False)


def _empty(name: str) -> pd.DataFrame:
    return tables.conform(pd.DataFrame(columns=tables.TABLES[name].names), tables.TABLES[name])


def _frame(name: str, rows: list[dict[str, Any]]) -> pd.DataFrame:
    return tables.conform(pd.DataFrame(rows, columns=tables.TABLES[name].names), tables.TABLES[name])


def _runs() -> list[dict[str, Any]]:
    """Two formats at batch 1 in two sittings, float32 in both, and one run of a method study."""
    common = {"status": "ok", "model": "llama-3.2-1b", "batch_size": 1, "attention": "sdpa", "launcher": "fork"}
    return [
        common
        | {
            "study": study,
            "setting": f"{precision}_{warmup}",
            "cycle": cycle,
            "sitting": sitting,
            "precision": precision,
            "warmup": warmup,
            "neighbours": "allowed",
            "n_gpus": 1,
            "energy_j_per_output_token": energy,
            "idle_power_w": idle,
        }
        for study, precision, cycle, sitting, warmup, energy, idle in (
            ("batching", "float32", 1, "a", "steady", 2.0, 80.0),
            ("batching", "float32", 2, "b", "steady", 2.2, 90.0),
            ("batching", "int8", 1, "a", "steady", 4.0, 80.0),
            ("warmup", "int8", 1, "a", "forward_passes", 9.0, 80.0),
        )
    ]


def _ratios(*rows: tuple[str, str, float, float, float]) -> list[dict[str, Any]]:
    return [
        {
            "factor": "precision",
            "level": level,
            "baseline": "float32",
            "scope": "setting",
            "model": model,
            "level_over_baseline_ratio": ratio,
            "level_over_baseline_ratio_low": low,
            "level_over_baseline_ratio_high": high,
        }
        for model, level, ratio, low, high in rows
    ]


RULE = {
    "study": "baker",
    "claim_id": "it",
    "reading": "as stated",
    "kind": "effect",
    "scale": "log",
    "neutral": "1",
    "quantity": "int8 over float32",
    "table": "level_ratio",
    "where": "level == 'int8'",
    "column": "level_over_baseline_ratio",
    "records": "precision == 'int8'",
    "baseline": "precision == 'float32'",
    "differs": "precision",
}
CLAIM = {
    "study": "baker",
    "claim_id": "it",
    "statement": "s",
    "value": "2",
    "unit": "x",
    "tolerance": "0.25",
    "where": "p",
}
INT8 = _ratios(("llama-3.2-1b", "int8", 2.1, 1.9, 2.3))


def _rules(*changes: dict[str, str]) -> pd.DataFrame:
    columns = _read(RULES).columns
    rows = [RULE | change for change in (changes or ({},))]
    return pd.DataFrame([{name: row.get(name, "") for name in columns} for row in rows], dtype="string")


def _asked(frames: Iterable[pd.DataFrame], published: pd.DataFrame, rules: pd.DataFrame) -> Claims:
    ask: Callable[..., Claims] = claims
    return ask(*frames, published, rules, confidence=0.95, n_bootstrap=200, seed=1)


def _claimed(rules: pd.DataFrame, claim: dict[str, str] | None = None, **given: list[dict[str, Any]]) -> pd.DataFrame:
    made = {"runs": _runs(), "level_ratio": INT8} | given
    frames = [_frame(name, made.get(name, [])) for name in QUESTIONS["claims"].inputs]
    published = pd.DataFrame([CLAIM | (claim or {})], dtype="string")
    return _asked(frames, published, rules).table()


@pytest.fixture(scope="module")
def unmeasured() -> Claims:
    """The files' own rules on a campaign that has measured nothing."""
    return _asked(map(_empty, QUESTIONS["claims"].inputs), _read(PUBLISHED), _read(RULES))


# --- the files -----------------------------------------------------------------------------------


def test_tables_are_named_in_the_order_in_which_the_question_gives_them() -> None:
    assert QUESTIONS["claims"].inputs == ("runs", *ANSWERS)


def test_which_answers_are_about_serving_is_as_the_questions_say() -> None:
    def studies(name: str) -> set[str]:
        asked = QUESTIONS[name]
        own = {asked.studies} if set(asked.inputs) & set(RECORD_TABLES) else set()
        return own.union(*(studies(each) for each in asked.inputs if each in QUESTIONS))

    assert {name for name in ANSWERS if studies(name) == {"serving"}} == set(ANSWERS_OF_SERVING)
    assert {name for name in ANSWERS if studies(name) == {"deployment"}} == set(ANSWERS) - set(ANSWERS_OF_SERVING)


def test_the_runs_that_rules_name_are_designed() -> None:
    """A mistyped filter, or one of a study that was changed, would make a claim look unmeasured."""
    runs = pd.DataFrame(
        [
            {"study": run.study, "setting": run.setting, "cycle": run.cycle, **run.levels.model_dump(mode="json")}
            for run in expand(resolved_campaign("h200"))
        ]
    ).convert_dtypes()
    rules = _read(RULES)
    for _, rule in rules[rules["records"] != ""].iterrows():
        designed = of_studies(runs, "serving" if rule["table"] in ANSWERS_OF_SERVING else "deployment")
        for name in ("records", "baseline"):
            assert not rule[name] or len(designed.query(rule[name], engine="python")), (rule["claim_id"], rule[name])


def test_every_claim_has_a_rule_that_can_be_followed_on_empty_tables(unmeasured: Claims) -> None:
    published, table = _read(PUBLISHED), unmeasured.table()
    main = table[table["main"]]
    assert list(zip(main["study"], main["claim_id"], strict=True)) == list(
        zip(published["study"], published["claim_id"], strict=True)
    )
    tested = table[table["verdict"] != NOT_TESTABLE]
    assert set(tested["kind"]) == {"arithmetic"}  # nothing else can be said without records
    assert table.loc[table["verdict"] == NOT_TESTABLE, "note"].str.len().gt(0).all()
    assert set(table["verdict"]) <= set(VERDICTS)


def test_rules_name_columns_of_their_tables() -> None:
    for _, rule in _read(RULES).iterrows():
        if rule["table"]:
            known = set(tables.TABLES[rule["table"]].names)
            asked = {rule["column"], *rule["by"].split()}
            assert asked <= known, (rule["claim_id"], asked - known)
            assert set(rule["differs"].split()) <= {column.name for column in tables.FACTORS}


def test_rules_ask_for_words_that_the_analyses_write() -> None:
    """A renamed word would make a claim look unmeasured."""
    folders = [ROOT / "src" / "inference_energy" / name for name in ("analyse", "models")]
    written = "\n".join(path.read_text() for folder in folders for path in folder.glob("*.py"))
    levels = (ROOT / "config" / "models.yaml").read_text() + (ROOT / "config" / "campaigns" / "h200.yaml").read_text()
    rules = _read(RULES)
    for filters in {*rules["where"], *rules["over_where"]}:
        for words in re.findall(r"'([^']+)'", filters):
            for word in re.split(r" over | x ", words):
                assert word.isdigit() or f'"{word}"' in written or re.search(rf"\b{word}\b", levels), words


def test_every_claim_leads_to_a_page_and_figure_that_exist() -> None:
    sources = {
        path.stem: "\n".join("".join(cell["source"]) for cell in json.loads(path.read_text())["cells"])
        for path in (ROOT / "notebooks").glob("*.ipynb")
    }
    rules = _read(RULES)
    measured = rules[~rules["kind"].isin(["not testable"])]
    assert measured["figure"].str.len().gt(0).all()
    for page, figure in rules[rules["page"] != ""][["page", "figure"]].drop_duplicates().itertuples(index=False):
        assert page in sources, page
        assert not figure or f'"{figure}"' in sources[page], f"{page} saves no figure {figure}"


def test_two_published_rows_are_contradicted_by_their_own_numbers(unmeasured: Claims) -> None:
    table = unmeasured.table()
    responses = table[(table["kind"] == "arithmetic") & table["claim_id"].str.startswith("responses_")]
    wrong = responses[responses["verdict"] == "contradicted"].set_index("claim_id")["estimate"].round(0)
    assert wrong.to_dict() == {"responses_kettle_least": 44.0, "responses_kettle_most": 129.0}


# --- estimates and records -----------------------------------------------------------------------


def test_an_estimate_with_its_verdict_and_the_runs_behind_it() -> None:
    (row,) = _claimed(_rules()).to_dict("records")
    assert (row["estimate"], row["low"], row["high"], row["verdict"]) == (2.1, 1.9, 2.3, "reproduced")
    # int8 was measured in sitting a, so float32 of that sitting is its baseline; the method's run is no deployment
    assert row["records"] == "batching/float32_steady.c1 batching/int8_steady.c1"
    assert (row["n_runs"], row["n_settings"], row["main"], row["source"]) == (2, 2, True, "p")
    assert row["effect_over_published_ratio"] == pytest.approx(1.0704, rel=1e-4)  # log 2.1 / log 2


def test_an_estimate_rests_on_runs_of_the_studies_that_its_table_is_about() -> None:
    """Equal runs in both kinds of study: each table's estimate rests on its own, and so does a mean over runs."""
    runs = _runs()
    runs += [run | {"study": "quantisation", "idle_power_w": 120.0} for run in runs[:3]]
    answer = [{"quantity": "x", "estimate": 2.1, "estimate_low": 1.9, "estimate_high": 2.3}]
    served = _rules({"table": "quantisation", "where": "quantity == 'x'", "column": "estimate"})
    mean = {"kind": "size", "scale": "linear", "neutral": "", "table": "runs", "column": "idle_power_w",
            "records": "n_gpus == 1", "baseline": ""}  # fmt: skip
    (deployed,) = _claimed(_rules(), runs=runs).to_dict("records")
    (serving,) = _claimed(served, runs=runs, quantisation=answer).to_dict("records")
    (idle,) = _claimed(_rules(mean), runs=runs).to_dict("records")
    assert deployed["records"] == "batching/float32_steady.c1 batching/int8_steady.c1"
    assert serving["records"] == "quantisation/float32_steady.c1 quantisation/int8_steady.c1"
    assert (idle["estimate"], idle["n_runs"]) == (85.0, 3)


def test_a_baseline_of_another_sitting_stands_in() -> None:
    runs = _runs()
    runs[2]["sitting"] = "c"
    (row,) = _claimed(_rules(), runs=runs).to_dict("records")
    assert row["records"].split() == [
        "batching/float32_steady.c1", "batching/float32_steady.c2", "batching/int8_steady.c1"
    ]  # fmt: skip


def test_the_claims_unit() -> None:
    rules = _rules({"ours": "100 * (x - 1)", "scale": "linear", "neutral": "0"})
    (row,) = _claimed(rules, {"value": "100", "unit": "pct"}).to_dict("records")
    assert [row[name] for name in ("estimate", "low", "high")] == pytest.approx([110, 90, 130])
    falling = _rules({"ours": "1 / x"})
    (row,) = _claimed(falling).to_dict("records")
    assert row["low"] == pytest.approx(1 / 2.3)  # a falling expression swaps the ends
    assert row["verdict"] == "contradicted"


def test_one_selection_over_another_pairs_rows_and_takes_the_ends_furthest_apart() -> None:
    rows = _ratios(
        ("1b", "int8", 2.0, 1.8, 2.2), ("3b", "int8", 3.0, 2.7, 3.3), ("1b", "int4", 1.0, 0.8, 1.1),
        ("3b", "int4", 2.0, 1.5, 2.5),
    )  # fmt: skip
    rules = _rules({"over_where": "level == 'int4'", "by": "model", "pick": "lowest"})
    (row,) = _claimed(rules, level_ratio=rows).to_dict("records")
    assert (row["estimate"], row["low"], row["high"]) == (1.5, 2.7 / 2.5, 3.3 / 1.5)


@pytest.mark.parametrize(
    ("pick", "scale", "estimate", "low"),
    [
        ("lowest", "log", 2.0, 1.0),
        ("highest", "log", 8.0, 4.0),
        ("mean", "log", 4.0, 2.0),
        ("mean", "linear", 5.0, 2.5),
    ],
)
def test_one_of_several(pick: str, scale: str, estimate: float, low: float) -> None:
    rows = _ratios(("1b", "int8", 2.0, 1.0, 4.0), ("3b", "int8", 8.0, 4.0, 16.0))
    (row,) = _claimed(_rules({"pick": pick, "scale": scale}), level_ratio=rows).to_dict("records")
    assert (row["estimate"], row["low"]) == pytest.approx((estimate, low))


def test_one_model_where_rules_speak_of_all_is_noted() -> None:
    (row,) = _claimed(_rules({"pick": "highest"})).to_dict("records")
    assert row["note"] == "measured on llama-3.2-1b alone"
    named = {"pick": "highest", "where": "level == 'int8' and model == 'llama-3.2-1b'"}  # the claim is about that model
    (row,) = _claimed(_rules(named)).to_dict("records")
    assert pd.isna(row["note"])
    runs = _runs()
    runs += [run | {"model": "llama-3.2-3b", "setting": f"3b_{run['setting']}"} for run in runs]
    (row,) = _claimed(_rules({"pick": "highest"}), runs=runs).to_dict("records")
    assert pd.isna(row["note"])


def test_a_statement_on_every_model_is_decided_by_the_least_favourable() -> None:
    rows = _ratios(("1b", "int8", 1.0, 0.98, 1.02), ("3b", "int8", 1.1, 1.06, 1.14))
    rules = _rules({"kind": "statement", "low": "0.95", "high": "1.05", "pick": "all"})
    (row,) = _claimed(rules, level_ratio=rows).to_dict("records")
    assert (row["verdict"], row["estimate"], row["n_estimates"]) == ("contradicted", 1.1, 2)


def test_all_parts_of_a_reading_must_hold() -> None:
    rows = _ratios(("1b", "int8", 2.0, 1.9, 2.1), ("1b", "int4", 0.9, 0.8, 1.2))
    part = {"kind": "statement", "low": "1", "quantity": "first"}
    rules = _rules(part, part | {"where": "level == 'int4'", "quantity": "second"})
    (row,) = _claimed(rules, level_ratio=rows).to_dict("records")
    assert (row["verdict"], row["quantity"], row["n_estimates"]) == ("not reproduced", "second", 2)
    (row,) = _claimed(rules).to_dict("records")  # the second part is not measured
    assert (row["verdict"], row["note"]) == (NOT_TESTABLE, "not measured in this campaign")


def test_readings_stand_apart_and_the_first_is_the_claims() -> None:
    rules = _rules({}, {"reading": "arithmetic", "kind": "arithmetic", "ours": "1 + 2"})
    found = _claimed(rules)
    assert found["main"].tolist() == [True, False]
    assert found["verdict"].tolist() == ["reproduced", "contradicted"]
    assert found["estimate"].tolist() == [2.1, 3.0]


def test_a_mean_over_runs_counts_each_sitting_once() -> None:
    rules = _rules({"kind": "size", "scale": "linear", "neutral": "", "table": "runs", "column": "idle_power_w",
                    "records": "n_gpus == 1", "baseline": ""})  # fmt: skip
    (row,) = _claimed(rules, {"value": "85", "unit": "W"}).to_dict("records")
    # Sittings of 80 and 90 W: Student's t with one degree of freedom, 12.706, times a standard error of 5 W.
    found = [row[name] for name in ("estimate", "low", "high")]
    assert found == pytest.approx([85.0, 85 - 63.53, 85 + 63.53], abs=0.01)
    assert row["n_runs"] == 3


def test_without_records_there_is_no_verdict() -> None:
    (row,) = _claimed(_rules({"records": "precision == 'int4'"})).to_dict("records")
    assert (row["verdict"], row["note"]) == (NOT_TESTABLE, "not measured in this campaign")
    assert pd.isna(row["estimate"])


def test_too_few_settings_are_not_compared() -> None:
    (row,) = _claimed(_rules({"n_settings": "1056"})).to_dict("records")
    assert (row["verdict"], row["note"]) == (NOT_TESTABLE, "2 of 1,056 settings measured")
    assert pd.isna(row["estimate"])
    assert row["n_settings"] == 2


def test_a_missing_estimate_gives_its_reason() -> None:
    rows = _ratios(("1b", "int8", float("nan"), float("nan"), float("nan")))
    rows[0]["note"] = "no pair"
    (row,) = _claimed(_rules(), level_ratio=rows).to_dict("records")
    assert row["note"] == "no pair"


def test_one_run_is_at_most_the_same_direction() -> None:
    rows = _ratios(("1b", "int8", 2.1, float("nan"), float("nan")))
    (row,) = _claimed(_rules(), level_ratio=rows).to_dict("records")
    assert row["verdict"] == "same direction"
    assert re.search("without an interval", row["note"])


# --- what is refused -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"kind": "guess"}, "kind is 'guess'"),
        ({"pick": "some"}, "pick is 'some'"),
        ({"table": "level_ratios"}, "table is 'level_ratios'"),
        ({"column": "ratio"}, "'ratio' is no column of level_ratio"),
        ({"where": "levl == 'int8'"}, "where is \"levl == 'int8'\""),
        ({"where": "level =="}, "where is 'level =='"),
        ({"records": "nothing > 1"}, "records is 'nothing > 1'"),
        ({"records": ""}, "no table or no records"),
        ({"ours": "100 * z"}, "ours is '100 * z'"),
        ({"neutral": "one"}, "neutral is 'one'"),
        ({"kind": "not testable"}, "no reason"),
        ({"neutral": ""}, "effect without scale or neutral"),
        ({"kind": "size", "scale": ""}, "size without scale"),
        ({"kind": "statement"}, "statement without low or high"),
        ({"claim_id": "that"}, "has no rule"),
    ],
)
def test_a_rule_that_cannot_be_followed_is_an_error(change: dict[str, str], words: str) -> None:
    with pytest.raises(AnalysisError, match=re.escape(words)):
        _claimed(_rules(change))


def test_two_estimates_where_one_is_asked_for_are_an_error() -> None:
    rows = _ratios(("1b", "int8", 2.0, 1.8, 2.2), ("3b", "int8", 3.0, 2.7, 3.3))
    with pytest.raises(AnalysisError, match="2 rows of level_ratio"):
        _claimed(_rules(), level_ratio=rows)
    with pytest.raises(AnalysisError, match="2 rows over 2"):
        _claimed(_rules({"over_where": "level == 'int8'"}), level_ratio=rows)


def test_a_claim_that_is_there_twice_and_a_rule_without_a_claim_are_errors() -> None:
    frames = [_empty(name) for name in QUESTIONS["claims"].inputs]
    published = pd.DataFrame([CLAIM, CLAIM], dtype="string")
    with pytest.raises(AnalysisError, match="baker, it is there twice"):
        _asked(frames, published, _rules())
    with pytest.raises(AnalysisError, match=r"baker, that is no claim of .*claims\.csv"):
        _asked(frames, published[:1], _rules({}, {"claim_id": "that"}))


def test_a_published_value_that_is_no_number_is_an_error() -> None:
    with pytest.raises(AnalysisError, match="value is 'two'"):
        _claimed(_rules(), {"value": "two"})
