"""What the studies claim, beside what was found: an estimate and a verdict for each, by docs/claims.md."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from inference_energy import verdicts
from inference_energy.errors import AnalysisError, did_you_mean
from inference_energy.models.deployments import is_deployment
from inference_energy.resample import mean_over_settings
from inference_energy.tables import FACTORS, KEY, conform
from inference_energy.tables.claims import CLAIMS
from inference_energy.tables.studies import of_studies
from inference_energy.verdicts import NOT_TESTABLE, Found

Floats = NDArray[np.float64]

KINDS = ("effect", "size", "at least", "statement", "test", "arithmetic", "not testable")
_NEEDS = {"effect": ("scale", "neutral"), "size": ("scale",), "at least": ("scale", "neutral"), "statement": ("scale",)}
PICKS = ("", "all", "mean", "lowest", "highest")
SCALES = ("log", "linear", "reduction")

#: Tables on studies in :data:`tables.studies.SERVING`: an estimate from one rests on runs of these studies, any other
#: on deployments. A test holds this to the questions.
ANSWERS_OF_SERVING = (
    "model_size",
    "right_size",
    "quantisation",
    "engine_comparison",
    "phases",
    "padding",
    "padding_shape",
    "arrival_ratio",
    "length_fits",
    "length_ratios",
)
#: Tables that rules may take estimates from, besides `runs`: those of question `claims`, in its order.
ANSWERS = (
    "energy_summary",
    "grid_folds",
    "factor_ranking",
    "batch_curve",
    "level_ratio",
    "decoding_equivalence",
    "decoding_trend",
    "parallelism",
    "traffic",
    "throughput",
    "scenarios",
    *ANSWERS_OF_SERVING,
)

_RULES, _PUBLISHED = "resources/claim_rules.csv", "resources/published/claims.csv"
_ID = ["study", "claim_id"]
_ENERGY = "energy_j_per_output_token"
#: Columns of `runs` that rules may use, besides names and factors.
_ALSO = ("sitting", "idle_power_w", "idle_loaded_power_w")
#: What a filter or an expression of a rule raises when it cannot be evaluated.
_NOT_EVALUATED = (ValueError, TypeError, SyntaxError, KeyError, NameError, AttributeError, ZeroDivisionError)


@dataclass(frozen=True)
class Claims:
    """Every reading of every claim with its estimate and verdict.

    Attributes
    ----------
    readings : DataFrame
        One row a reading, claims in the order in which they are published.
    """

    readings: pd.DataFrame

    def table(self) -> pd.DataFrame:
        """Rows of ``claims``."""
        return conform(self.readings, CLAIMS)


def claims(runs: pd.DataFrame, *tables: pd.DataFrame, confidence: float, n_bootstrap: int, seed: int) -> Claims:
    """Set our estimate and a verdict beside every published claim, by the rules of ``docs/claims.md``.

    Parameters
    ----------
    runs : DataFrame
        The ``runs`` table: what an estimate rests on.
    *tables : DataFrame
        Answers to other questions, from which rules take their estimates, in the order of :data:`ANSWERS`; then
        ``published/claims.csv`` and ``claim_rules.csv``, all columns text.
    confidence, n_bootstrap, seed
        Level of the intervals; the bootstrap is that of estimates taken from `runs` itself.

    Raises
    ------
    AnalysisError
        If a claim has no rule or is there twice, or a rule has no claim or cannot be followed.
    """
    *found, published, rules = tables
    answers = {"runs": _deployments(runs)} | dict(zip(ANSWERS, found, strict=True))
    _check(published, rules, answers)
    ledger = _Ledger(answers, _with_energy(of_studies(runs, "serving")), confidence, n_bootstrap, seed)
    of_claim = {key: list(parts.groupby("reading", sort=False)) for key, parts in rules.groupby(_ID, sort=False)}
    rows = [
        {
            **{name: claim[name] for name in (*_ID, "statement")},
            "source": claim["where"],
            "main": place == 0,
            **ledger.reading(claim, [_Rule.of(part) for _, part in parts.iterrows()]),
        }
        for _, claim in published.iterrows()
        for place, (_, parts) in enumerate(of_claim[claim["study"], claim["claim_id"]])
    ]
    return Claims(pd.DataFrame(rows, columns=CLAIMS.names))


@dataclass(frozen=True)
class _Rule:
    """A row of ``claim_rules.csv``."""

    text: Mapping[str, str]

    @classmethod
    def of(cls, row: pd.Series) -> _Rule:
        """The rule of a row."""
        return cls({str(name): str(value) for name, value in row.items()})

    def __getitem__(self, name: str) -> str:
        return self.text[name]

    def error(self, found: str, expected: str) -> AnalysisError:
        """What is wrong with this row."""
        where = f"{_RULES}: {self['study']}, {self['claim_id']}, {self['reading']}"
        return AnalysisError(where, found, expected, "docs/claims.md explains the columns")

    def number(self, name: str) -> float:
        """A number; missing where the cell is empty."""
        try:
            return float(self[name]) if self[name] else math.nan
        except ValueError:
            raise self.error(f"{name} is {self[name]!r}", "a number") from None

    def rows(self, frame: pd.DataFrame, name: str) -> pd.DataFrame:
        """Rows of `frame` that the filter in column `name` lets through."""
        try:
            return frame.query(self[name], engine="python") if self[name] else frame
        except _NOT_EVALUATED as error:
            raise self.error(f"{name} is {self[name]!r}: {error}", "a filter that pandas' query understands") from error

    def ours(self, **columns: Floats) -> Floats:
        """`columns` in the claim's unit."""
        expression = self["ours"] or " / ".join(columns)
        try:
            return np.asarray(pd.eval(expression, local_dict=columns, engine="python"), dtype=float)
        except _NOT_EVALUATED as error:
            raise self.error(f"ours is {expression!r}: {error}", f"arithmetic on {', '.join(columns)}") from error


@dataclass(frozen=True)
class _Ledger:
    """The tables that rules take estimates from, and how they are taken and judged."""

    answers: Mapping[str, pd.DataFrame]
    serving: pd.DataFrame  # runs that estimates of ANSWERS_OF_SERVING rest on; other estimates: answers["runs"]
    confidence: float
    n_bootstrap: int
    seed: int
    found: dict[tuple[str, ...], pd.DataFrame] = field(default_factory=dict)

    def reading(self, claim: pd.Series, parts: list[_Rule]) -> dict[str, object]:
        """Columns of ``claims`` that one reading fills; its parts are rules that must all hold."""
        first = parts[0]
        published = {name: _published(claim, name) for name in ("value", "tolerance")}
        stated = first["kind"] in ("statement", "test")
        row: dict[str, object] = {
            **{name: first[name] or None for name in ("reading", "kind", "page", "figure", "quantity")},
            "unit": {"statement": None, "test": "p-value"}.get(first["kind"], claim["unit"].partition(" (")[0]),
            "value": math.nan if stated else published["value"],
            "verdict": NOT_TESTABLE,
            "note": first["reason"] or None,
        }
        if first["kind"] == "not testable":
            return row
        if first["kind"] == "arithmetic":
            found = Found(float(first.ours()), math.nan, math.nan, quantity=first["quantity"])
            return row | _shown(verdicts.judged_arithmetic(found, **published), 1)
        every = [self._found(rule) for rule in parts]
        without = [part for part in every if not part or math.isnan(part[0].estimate)]
        used = self._runs(first) if not without else self.answers["runs"].iloc[:0]
        if used.empty:
            notes = [each.note for part in without for each in part if each.note]
            return row | {"note": next(iter(notes), first["reason"] or "not measured in this campaign")}
        row |= {"n_runs": len(used), "n_settings": used["setting"].nunique(), "records": _ids(used)}
        asked, measured = first.number("n_settings"), used["setting"].nunique()
        if measured < asked:
            return row | {"note": f"{measured:,} of {asked:,.0f} settings measured"}
        n_parts = sum(len(part) for part in every)
        judged = [
            self._judged(each, rule, n_parts, **published)
            for rule, part in zip(parts, every, strict=True)
            for each in part
        ]
        shown = verdicts.worst(judged)
        of_all = first["pick"] and "model ==" not in first["where"]  # such rules speak of all models
        if of_all and len(set(used["model"])) == 1:
            shown = verdicts.noted(shown, f"measured on {used['model'].iloc[0]} alone")
        if first["scale"] == "reduction":
            shown = verdicts.noted(shown, verdicts.as_folds(shown.estimate, published["value"]))
        return row | _shown(shown, len(judged)) | _over_published(first, published["value"], shown)

    def _runs(self, rule: _Rule) -> pd.DataFrame:
        """Runs behind an estimate: those of its records, and of their baseline those they are compared with."""
        known = self.serving if rule["table"] in ANSWERS_OF_SERVING else self.answers["runs"]
        asked = (rule["table"], rule["records"], rule["baseline"], rule["differs"])
        if asked not in self.found:
            self.found[asked] = self._compared(rule, known)
        return self.found[asked]

    def _compared(self, rule: _Rule, known: pd.DataFrame) -> pd.DataFrame:
        used = rule.rows(known, "records")
        if not rule["baseline"]:
            return used
        keys = [column.name for column in FACTORS if column.name not in rule["differs"].split()]
        baseline = rule.rows(known, "baseline").drop(index=used.index, errors="ignore")
        near, near_baseline = _matched(used, baseline, [*keys, "sitting"])
        far, far_baseline = _matched(used.drop(index=list(near)), baseline, keys)
        return known.loc[sorted(near | near_baseline | far | far_baseline)]

    def _judged(self, found: Found, rule: _Rule, n_parts: int, value: float, tolerance: float) -> Found:
        """`found`, one of `n_parts`, with its verdict."""
        scale, neutral = rule["scale"], rule.number("neutral")
        if rule["kind"] == "effect":
            return verdicts.judged_effect(found, value, tolerance, neutral, scale)
        if rule["kind"] == "size":
            return verdicts.judged_size(found, value, tolerance, scale)
        if rule["kind"] == "at least":
            return verdicts.judged_bound(found, value, neutral)
        if rule["kind"] == "test":
            return verdicts.judged_test(found, self.confidence)
        ends = rule.number("low"), rule.number("high")
        return verdicts.judged_statement(found, *ends, scale, n_parts, self.confidence)

    def _found(self, rule: _Rule) -> list[Found]:
        """Our estimates that a rule asks for, in the claim's unit; one without a value says why there is none."""
        if rule["table"] == "runs":
            return self._mean(rule)
        frame = self.answers[rule["table"]]
        rows, by = rule.rows(frame, "where"), rule["by"].split()
        x = _ends(rows, rule["column"], "x", by, rule)
        if rule["over_where"]:
            y = _ends(rule.rows(frame, "over_where"), rule["column"], "y", by, rule)
            if not by and max(len(x), len(y)) > 1:
                raise rule.error(f"{len(x)} rows over {len(y)}", "one over one, or columns in `by` that pair them")
            both = x.merge(y, on=by, suffixes=("", "_over")) if by else x.merge(y, how="cross", suffixes=("", "_over"))
            corners = [
                rule.ours(x=both[f"x{a}"].to_numpy(), y=both[f"y{b}"].to_numpy())
                for a, b in (("", ""), *itertools.product(("_low", "_high"), repeat=2))
            ]
        else:
            both = x
            corners = [rule.ours(x=both[f"x{end}"].to_numpy()) for end in ("", "_low", "_high")]
        ends = np.array(corners[1:]).reshape(len(corners) - 1, len(both))
        values = np.column_stack([corners[0], ends.min(axis=0), ends.max(axis=0)])  # a missing end: both missing
        return self._picked(rule, values, both["note"].fillna("").tolist())

    def _picked(self, rule: _Rule, values: Floats, notes: list[str]) -> list[Found]:
        """The estimate, or those of several, that a rule's `pick` names; `values` are rows of estimate, low, high."""
        known = np.isfinite(values[:, 0])
        if not known.any():
            return [Found(math.nan, math.nan, math.nan, note=note) for note in notes[:1]]
        found = [
            Found(float(value[0]), float(value[1]), float(value[2]), quantity=rule["quantity"], note=note)
            for value, note in zip(values[known], itertools.compress(notes, known), strict=True)
        ]
        if rule["pick"] == "all":
            return found
        if rule["pick"] == "mean":
            there = np.log(values[known]) if rule["scale"] == "log" else values[known]
            mean = np.exp(there.mean(axis=0)) if rule["scale"] == "log" else there.mean(axis=0)
            note = "; ".join(sorted({each.note for each in found if each.note}))
            return [Found(float(mean[0]), float(mean[1]), float(mean[2]), quantity=rule["quantity"], note=note)]
        if rule["pick"]:
            return [(min if rule["pick"] == "lowest" else max)(found, key=lambda each: each.estimate)]
        if len(found) > 1:
            raise rule.error(f"{len(found)} rows of {rule['table']}", "one, or a `pick`")
        return found

    def _mean(self, rule: _Rule) -> list[Found]:
        """Mean of a column of `runs` over sittings."""
        used = self._runs(rule)
        if rule["column"] not in used.columns:
            raise rule.error(f"{rule['column']!r} is no column of runs", did_you_mean(rule["column"], used.columns))
        used = used[used[rule["column"]].notna()]
        if used.empty:
            return []
        rng = np.random.default_rng(self.seed)
        values = used[rule["column"]].astype(float)
        mean = mean_over_settings(used["sitting"], values, self.confidence, self.n_bootstrap, rng)
        return [Found(*mean, quantity=rule["quantity"])]


def _check(published: pd.DataFrame, rules: pd.DataFrame, answers: Mapping[str, pd.DataFrame]) -> None:
    """Refuse claims without a rule, rules without a claim, and what no rule may say."""
    claimed, ruled = (list(frame[_ID].itertuples(index=False, name=None)) for frame in (published, rules))
    twice = [key for key in claimed if claimed.count(key) > 1]
    for where, wrong, found, expected in (
        (_PUBLISHED, twice, "is there twice", "each claim once"),
        (_PUBLISHED, [key for key in claimed if key not in set(ruled)], f"has no rule in {_RULES}", "a rule"),
        (_RULES, [key for key in ruled if key not in set(claimed)], f"is no claim of {_PUBLISHED}", "a known claim"),
    ):
        if wrong:
            raise AnalysisError(where, f"{', '.join(wrong[0])} {found}", expected, "docs/claims.md explains both files")
    for _, part in rules.iterrows():
        rule = _Rule.of(part)
        known = {"kind": KINDS, "pick": PICKS, "scale": ("", *SCALES), "table": ("", *answers)}
        for name, words in known.items():
            if rule[name] not in words:
                raise rule.error(f"{name} is {rule[name]!r}", f"one of {', '.join(filter(None, words))}")
        needs = _NEEDS.get(rule["kind"], ())
        if rule["kind"] == "statement" and not (rule["low"] or rule["high"]):
            raise rule.error("statement without low or high", "a range in which it is true")
        if not all(rule[name] for name in needs):
            raise rule.error(f"{rule['kind']} without {' or '.join(needs)}", "what it is judged by")
        if rule["kind"] == "not testable" and not rule["reason"]:
            raise rule.error("no reason", "why it is not testable here")
        if rule["kind"] not in ("not testable", "arithmetic") and not (rule["table"] and rule["records"]):
            raise rule.error("no table or no records", "where the estimate comes from, and the runs behind it")


def _ends(rows: pd.DataFrame, column: str, name: str, by: list[str], rule: _Rule) -> pd.DataFrame:
    """Estimate and interval of `rows` as columns `name`, ``_low`` and ``_high``, with their note and keys `by`."""
    for each in (column, *by):
        if each not in rows.columns:
            raise rule.error(f"{each!r} is no column of {rule['table']}", did_you_mean(each, rows.columns))
    there = {f"{name}{end}": rows.get(f"{column}{end}", math.nan) for end in ("", "_low", "_high")}
    note = rows.get("note", rows.get("reason"))
    frame = pd.DataFrame({key: pd.Series(value, index=rows.index, dtype=float) for key, value in there.items()})
    return frame.assign(note=note, **{key: rows[key] for key in by})


def _deployments(runs: pd.DataFrame) -> pd.DataFrame:
    """Runs with energy, without those of other spaces and the settings of studies of the method."""
    known = _with_energy(of_studies(runs, "deployment"))
    return known[is_deployment(known)]


def _with_energy(runs: pd.DataFrame) -> pd.DataFrame:
    shown = [column.name for column in (*KEY, *FACTORS)]
    return runs.loc[runs[_ENERGY].notna(), [*shown, *_ALSO]]


def _over_published(rule: _Rule, value: float, found: Found) -> dict[str, float]:
    """Our effect over the published one; our size over the published size."""
    if rule["kind"] not in ("effect", "size", "at least"):
        return {}
    scale, three = rule["scale"], (found.estimate, found.low, found.high)
    if rule["kind"] == "size":
        ratio, *ends = (verdicts.size_ratio(ours, value, scale) for ours in three)
    else:
        ratio, *ends = (verdicts.effect_ratio(ours, value, rule.number("neutral"), scale) for ours in three)
    name = "effect_over_published_ratio"
    return {name: ratio, f"{name}_low": min(ends), f"{name}_high": max(ends)}


def _matched(used: pd.DataFrame, baseline: pd.DataFrame, keys: list[str]) -> tuple[set[int], set[int]]:
    """Rows of both that are equal in `keys`, as :func:`inference_energy.pairs.paired` pairs them."""
    both = used[keys].reset_index().merge(baseline[keys].reset_index(), on=keys, suffixes=("", "_baseline"))
    return set(both["index"]), set(both["index_baseline"])


def _shown(part: Found, n_estimates: int) -> dict[str, object]:
    """The estimate and verdict of a reading: those of its least favourable part."""
    names = ("estimate", "low", "high", "value_low", "value_high", "quantity", "verdict")
    return {name: getattr(part, name) for name in names} | {"n_estimates": n_estimates, "note": part.note or None}


def _ids(runs: pd.DataFrame) -> str | None:
    """Runs by name, as their records are called."""
    named = runs["study"] + "/" + runs["setting"] + ".c" + runs["cycle"].astype(str)
    return " ".join(sorted(named)) or None


def _published(claim: pd.Series, name: str) -> float:
    try:
        return float(claim[name])
    except ValueError:
        where = f"{_PUBLISHED}: {claim['study']}, {claim['claim_id']}"
        raise AnalysisError(where, f"{name} is {claim[name]!r}", "a number") from None
