"""Batch size and lengths in words: what a larger batch saves, where it stops paying, what longer answers change."""

from __future__ import annotations

import pandas as pd

from inference_energy.policy.evidence import ENERGY, Evidence
from inference_energy.policy.wording import (
    Finding,
    Prose,
    bullets,
    counted,
    fold,
    interval,
    known,
    level,
    listed,
    not_measured,
    number,
    percent,
    quantity,
    span,
    table,
)

RATIO, SPEED = "level_over_baseline_ratio", "throughput_tokens_per_s"
_BATCHES = "batch sizes of one model and precision (study batching)"


def settings_of(evidence: Evidence, *studies: str) -> pd.DataFrame:
    """Runs with numbers of the settings of `studies`, in whatever study they were measured."""
    settings = evidence.ok.loc[evidence.ok["study"].isin(studies), "setting"].unique()
    return evidence.ok[evidence.ok["setting"].isin(settings)].dropna(subset=[ENERGY])


def ratio_rows(evidence: Evidence, factor: str, baseline: str | None = None, scope: str | None = None) -> pd.DataFrame:
    """Rows of `level_ratio` of one factor, settings in order of model, precision, level and batch size."""
    rows = evidence.level_ratio
    rows = rows[rows["factor"] == factor]
    if baseline:
        rows = rows[rows["baseline"] == baseline]
    if scope:
        rows = rows[rows["scope"] == scope]
    size = pd.to_numeric(rows["level"], errors="coerce").fillna(0.0)
    return rows.assign(size=size).sort_values(["model", "precision", "size", "batch_size"]).drop(columns="size")


def of_ratio(row: pd.Series, confidence: float) -> str:
    """``0.61× (95 % interval 0.53 to 0.71×)``, or the ratio without interval."""
    ends = [row[f"{RATIO}_low"], row[f"{RATIO}_high"]]
    digits = 3 if 0.8 < row[RATIO] < 1.25 else 2  # next to 1 the third digit matters
    if not all(known(end) for end in ends):
        return f"{number(row[RATIO], digits)}×"
    span_of = f"{number(ends[0], digits)} to {number(ends[1], digits)}"
    return f"{number(row[RATIO], digits)}× ({level(confidence)} interval {span_of})"


def matched(rows: pd.DataFrame) -> str:
    """How pairs were matched: ``9 of 16 pairs within a sitting, the others over the campaign``."""
    n, near = int(rows["n_pairs"].sum()), int(rows["n_same_sitting"].sum())
    if near == n:
        return f"{counted(n, 'pair')} of runs, {'each' if n > 1 else 'it'} within a sitting"
    return f"{near} of {counted(n, 'pair')} of runs within a sitting, the others against the campaign's mean baseline"


def batch_fit(evidence: Evidence) -> Finding:
    """Where a larger batch stops paying: plateau, shared cost and knee of every curve."""
    fits = evidence.batch_knee
    fitted = fits.dropna(subset=["shared_energy_j_per_step"])
    if fits.empty:
        return not_measured(_BATCHES)
    missing = [
        f"{listed([f'{row.model} {row.precision}' for row in rows.itertuples()])}: {note}."
        for note, rows in fits[fits["shared_energy_j_per_step"].isna()].groupby("note", sort=False)
    ]
    if fitted.empty:
        return Finding(
            "Where a larger batch stops paying cannot be estimated yet: too few batch sizes.", bullets(missing)
        )
    confidence = evidence.assumptions.confidence
    slopes = fitted["line_per_doubling_ratio"]
    equal = fitted.dropna(subset=["n_prompts_at_equal_parts"]).sort_values("n_prompts_at_equal_parts")
    halves = [
        f"{number(row['n_prompts_at_equal_parts'], 2)} ({row['model']} {row['precision']})"
        for _, row in equal.iloc[[0, -1] if len(equal) > 1 else [0] if len(equal) else []].iterrows()
    ]
    where = f", and is half of the energy from batch {' to '.join(halves)}" if halves else ""
    laws = [f"{law} {n}" for law, n in fitted["fits_best"].value_counts().items()]
    lasting = list(dict.fromkeys((percent(slopes.min()), percent(slopes.max()))))
    return Finding(
        f"A doubling of the batch leaves {' to '.join(lasting)} of a token's energy ({counted(len(fitted), 'curve')});"
        f" a plateau shows in {len(equal)} of them{where}.",
        bullets([_curve_words(row, confidence) for _, row in fitted.iterrows()] + missing)
        + f"\n\nCurves by the law that fits best: {listed(laws)}. Shared cost: E = a + b / batch, *a* being the plateau"
        " and *b* what the prompts of a batch share. Laws are compared by AICc, and a knee is named where a broken line"
        " is better than one line. Runs of all sittings count: a mean over cycles is a mean over hosts.",
    )


def _curve_words(row: pd.Series, confidence: float) -> str:
    """All three laws of one curve."""

    def ends(name: str, unit: str) -> str:
        return interval(row[f"{name}_low"], row[f"{name}_high"], unit, confidence, row[name])

    plateau, shared, knee = "plateau_energy_j_per_output_token", "shared_energy_j_per_step", "n_prompts_at_knee"
    level_off = (
        f"plateau {quantity(row[plateau], 'J')} ({ends(plateau, 'J')})"
        if row[f"{plateau}_low"] > 0
        else f"no plateau within reach: it is below {quantity(row[f'{plateau}_high'], 'J')}"
    )
    said = f"{level_off}, shared {quantity(row[shared], 'J')} per step ({ends(shared, 'J')})"
    if known(row[knee]):
        below, above = row["below_knee_per_doubling_ratio"], row["above_knee_per_doubling_ratio"]
        said += (
            f"; knee at batch {number(row[knee], 2)} ({level(confidence)} interval {number(row[f'{knee}_low'], 2)} to"
            f" {number(row[f'{knee}_high'], 2)}): a doubling leaves {percent(below)} of the energy below it and"
            f" {percent(above)} above"
        )
    elif pd.notna(row["note"]):
        said += f"; {row['note']}"
    weight = {"one line": "line", "broken line": "broken", "shared cost": "shared"}[row["fits_best"]]
    best = f"{row['fits_best']} fits best (weight {percent(row[f'{weight}_weight_fraction'])})"
    return f"{row['model']} {row['precision']}: {said}. Of the three laws {best}, n = {counted(row['n_runs'], 'run')}."


def batch_savings(evidence: Evidence) -> Finding:
    """What the largest batch takes beside batch 2."""
    rows = ratio_rows(evidence, "batch_size")
    if rows.empty:
        return not_measured(f"several {_BATCHES}, the baseline batch among them")
    confidence = evidence.assumptions.confidence
    baseline, largest = rows["baseline"].iloc[0], str(rows["level"].astype(int).max())
    of_largest = rows[rows["level"] == largest]
    overall, cells = of_largest[of_largest["scope"] == "all"].iloc[0], of_largest[of_largest["scope"] == "setting"]
    ends = interval(overall[f"{RATIO}_low"] * 100, overall[f"{RATIO}_high"] * 100, "%", confidence)
    details = [f"{row['model']} {row['precision']}: {of_ratio(row, confidence)}" for _, row in cells.iterrows()]
    return Finding(
        f"At batch {largest} an output token takes {percent(overall[RATIO])} of its energy at batch {baseline}"
        f" ({ends}): {fold(1 / overall[RATIO])} less, over {counted(int(overall['n_settings']), 'setting')} of model"
        " and precision.",
        bullets(details) + f"\n\nGeometric means; {matched(cells)}. Full sharing of the cost would leave"
        f" {percent(int(baseline) / int(largest))}.",
    )


def batch_speed(evidence: Evidence) -> Finding:
    """How far throughput spans over batch sizes and precisions, by model."""
    means = speeds(settings_of(evidence, "batching"))
    if means.empty:
        return not_measured(_BATCHES)
    said, lines = [], []
    for model, of_model in means.groupby("model"):
        ordered = of_model.sort_values(SPEED)
        first, last = ordered.iloc[0], ordered.iloc[-1]
        said.append(
            f"{fold(last[SPEED] / first[SPEED])} in {model} ({first['precision']} at batch {first['batch_size']} to"
            f" {last['precision']} at batch {last['batch_size']})"
        )
        for size, at in of_model[of_model["batch_size"].isin(_ends(of_model["batch_size"]))].groupby("batch_size"):
            ranked = at.sort_values(SPEED, ascending=False)
            each = [f"{row['precision']} {number(row[SPEED])}" for _, row in ranked.iterrows()]
            lines.append(f"{model} at batch {size}: {listed(each)} tokens/s")
    return Finding(f"Throughput spans {listed(said)}.", "Medians of the runs:" + bullets(lines))


def speeds(runs: pd.DataFrame) -> pd.DataFrame:
    """Median throughput of every model, batch size and precision."""
    medians = runs.dropna(subset=[SPEED]).groupby(["model", "batch_size", "precision"], as_index=False)[SPEED].median()
    return pd.DataFrame(medians)


def _ends(sizes: pd.Series) -> list[int]:
    return [int(sizes.min()), int(sizes.max())]


def batch_estimates(evidence: Evidence) -> Prose:
    """Every estimate of the laws, a row a curve."""
    fits = evidence.batch_knee
    if fits.empty:
        return Prose(not_measured(_BATCHES).title)
    rows = [
        {
            "model": row["model"],
            "precision": row["precision"],
            "batch sizes (runs)": f"{row['n_batch_sizes']} ({row['n_runs']})",
            "plateau a": _cell(row, "plateau_energy_j_per_output_token", "J"),
            "shared b per step": _cell(row, "shared_energy_j_per_step", "J"),
            "half is plateau at batch": _cell(row, "n_prompts_at_equal_parts", ""),
            "knee at batch": _cell(row, "n_prompts_at_knee", ""),
            "p of one line": number(row["broken_p_value"], 1) if known(row["broken_p_value"]) else "–",
            "residual CV: line, broken, shared": ", ".join(
                percent(row[name]) for name in ("line_cv", "broken_cv", "shared_cv") if known(row[name])
            )
            or "–",
            "fits best": row["fits_best"] if pd.notna(row["fits_best"]) else "–",
        }
        for _, row in fits.iterrows()
    ]
    return table(pd.DataFrame(rows))


def ratio_estimates(evidence: Evidence, factor: str) -> Prose:
    """Every ratio of one factor, a row each."""
    rows = ratio_rows(evidence, factor)
    if rows.empty:
        return Prose(not_measured(f"levels of {factor} beside their baseline").title)
    cells = [
        {
            "level over baseline": f"{row['level']} over {row['baseline']}",
            "where": _where(row),
            "ratio": number(row[RATIO]),
            "interval": span(row[f"{RATIO}_low"], row[f"{RATIO}_high"], "") if pd.isna(row["note"]) else "–",
            "pairs (same sitting)": f"{row['n_pairs']} ({row['n_same_sitting']})",
            "energy is": row["verdict"],
            "remark": "" if pd.isna(row["note"]) else row["note"],
        }
        for _, row in rows.iterrows()
    ]
    return table(pd.DataFrame(cells))


def lengths_rows(evidence: Evidence) -> pd.DataFrame:
    """Settings of the longer prompts and answers over the usual ones, with labels."""
    rows = ratio_rows(evidence, "lengths", scope="setting")
    labels = [f"{row.model} {row.precision}, batch {row.batch_size}\n{row.level}" for row in rows.itertuples()]
    return rows.assign(label=pd.Series(labels, index=rows.index, dtype="string"))


def lengths_ratio(evidence: Evidence) -> Finding:
    """What longer prompts and answers change."""
    rows = lengths_rows(evidence)
    if rows.empty:
        return not_measured("two lengths of prompt and answer (study lengths)")
    confidence = evidence.assumptions.confidence
    said = [f"{of_ratio(row, confidence)} in {row['model']} at batch {row['batch_size']}" for _, row in rows.iterrows()]
    first = rows.iloc[0]
    return Finding(
        f"With {first['level']} tokens instead of {first['baseline']} an output token takes {listed(said)}.",
        f"{matched(rows)}. An answer of more tokens takes more energy; this is the energy of one of them."
        + "".join(
            f" {row['model']}, batch {row['batch_size']}: {row['note']}."
            for _, row in rows.iterrows()
            if pd.notna(row["note"])
        ),
    )


def _where(row: pd.Series) -> str:
    """Which setting, or over what."""
    if row["scope"] != "setting":
        return f"{row['scope']} ({counted(int(row['n_settings']), 'setting')})"
    parts = [row["model"], row["precision"], f"batch {row['batch_size']}" if pd.notna(row["batch_size"]) else None]
    return " ".join(str(part) for part in parts if part is not None and pd.notna(part))


def _cell(row: pd.Series, name: str, unit: str) -> str:
    if not known(row[name]):
        return "–"
    ends = span(row[f"{name}_low"], row[f"{name}_high"], unit, row[name] if unit else None)
    return f"{quantity(row[name], unit) if unit else number(row[name], 2)} ({ends})"
