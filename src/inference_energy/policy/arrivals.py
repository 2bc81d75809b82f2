"""What the timing of requests is worth, in words."""

from __future__ import annotations

import pandas as pd

from inference_energy.models.arrivals import (
    NO_LIMIT,
    ONE_BY_ONE,
    OVER_BURST,
    OVER_FIXED,
    OVER_ONE_BY_ONE,
    PATTERNS,
    SPREAD,
    arrival_words,
)
from inference_energy.policy.estimates import rows_with, without_interval
from inference_energy.policy.evidence import Evidence, runs_of
from inference_energy.policy.wording import (
    Finding,
    Prose,
    bullets,
    counted,
    difference,
    estimate,
    fold,
    known,
    level,
    not_measured,
    number,
    percent,
    quantity,
    row_with,
    span,
    table,
)

WHAT = "requests that arrive at a server (study arrival)"
ENERGY, RATIO = "energy_j_per_request", "energy_ratio"
TTFT, ITL = "time_to_first_token_p95_s", "inter_token_latency_p95_s"


def answer(evidence: Evidence) -> Finding:
    """The page's answer: how far energy of a request spans, over everything and at one rate."""
    whole = rows_with(evidence.arrival_ratio, comparison=SPREAD, scope="all")
    if whole.empty:
        return energy(evidence)
    return Finding(
        _spans(evidence, row_with(whole, RATIO)), f"{_at_one_rate(evidence)}{_without_interval(whole)}".strip()
    )


def _without_interval(rows: pd.DataFrame) -> str:
    """:func:`without_interval` of ratios, or of a curve's energies."""
    name = RATIO if RATIO in rows else ENERGY
    return without_interval(rows.rename(columns={f"{name}_low": "estimate_low"}))


def _spans(evidence: Evidence, row: pd.Series) -> str:
    ratio = estimate(row, RATIO, "×", evidence.assumptions.confidence)
    dearest, cheapest = row["level"], row["baseline"]
    return f"A request takes {ratio} as much energy at its dearest ({dearest}) as at its cheapest ({cheapest})."


def _at_one_rate(evidence: Evidence) -> str:
    rows = rows_with(evidence.arrival_ratio, comparison=SPREAD, scope="rate")
    if rows.empty:
        return ""
    row = row_with(rows, RATIO)
    most = _apart(row, evidence.assumptions.confidence)
    return (
        f"At one and the same rate patterns are at most this far apart: {row['level']}, {most} than {row['baseline']}."
        " That pair was picked for its difference: its interval is a little too narrow."
    )


def _apart(row: pd.Series, confidence: float) -> str:
    """``2.2 % more (95 % interval 0.1 % less to 4.5 % more)``."""
    ends = row[f"{RATIO}_low"], row[f"{RATIO}_high"]
    within = f" ({level(confidence)} interval {difference(ends[0])} to {difference(ends[1])})" if known(ends[0]) else ""
    return difference(row[RATIO]) + within


# --- energy and latency against load ---------------------------------------------------------------


def curve(evidence: Evidence) -> pd.DataFrame:
    """Table `arrival_curve` with ``series`` in words and ``load_requests_per_s``: planned rate, of a burst answered."""
    return _placed(evidence.arrival_curve)


def curve_runs(evidence: Evidence) -> pd.DataFrame:
    """Table `arrival_runs` alike."""
    return _placed(evidence.arrival_runs)


def _placed(rows: pd.DataFrame) -> pd.DataFrame:
    return rows.assign(
        series=rows["arrival"].map(PATTERNS),
        load_requests_per_s=rows["arrival_requests_per_s"].fillna(rows["answered_requests_per_s"]),
        limited=rows["kv_cache_tokens"].notna(),
    )


def energy(evidence: Evidence) -> Finding:
    """Energy of a request against load, by pattern."""
    points = evidence.arrival_curve
    if points.empty:
        return not_measured(WHAT)
    open_points = points[points["kv_cache_tokens"].isna()]
    open_points = open_points if len(open_points) else points
    most, least = (row_with(open_points, ENERGY, largest) for largest in (True, False))
    if len(open_points) < 2:
        return Finding(f"A request takes {quantity(least[ENERGY], 'J')} ({arrival_words(least)}).")
    confidence = evidence.assumptions.confidence
    title = (
        f"A request takes {quantity(least[ENERGY], 'J')} at its cheapest ({arrival_words(least)}) and"
        f" {quantity(most[ENERGY], 'J')} at its dearest ({arrival_words(most)}): the more requests are under way"
        " together, the less each takes."
    )
    ratios = evidence.arrival_ratio
    lines = []
    for comparison, words in ((OVER_BURST, "all at once"), (OVER_FIXED, "fixed gaps at the same rate")):
        of_setting = rows_with(ratios, comparison=comparison, scope="setting")
        of_setting = of_setting[of_setting["kv_cache_tokens"].isna()]
        lines += [
            f"{row['level']} over {words}: {estimate(row, RATIO, '×', confidence)}"
            for _, row in of_setting.sort_values(RATIO, ascending=False).iterrows()
        ]
    pooled = rows_with(ratios, comparison=OVER_FIXED, scope="all")
    random = [
        f" Random gaps beside fixed ones at the same rate: {_apart(row, confidence)}"
        f" ({counted(int(row['n_settings']), 'setting')})."
        for _, row in pooled.iterrows()
    ]
    more = _more_together(open_points, title)
    said = f"{_at_one_rate(evidence)}{''.join(random)}{_whole_pass(evidence)}{_without_interval(open_points)}"
    return Finding(more, f"{said}{bullets(lines) if lines else ''}".strip())


def _whole_pass(evidence: Evidence) -> str:
    """How far a pass is from a steady state: at the highest rate, what was answered beside what was planned."""
    paced = evidence.arrival_curve.dropna(subset=["arrival_requests_per_s"])
    paced = paced[paced["kv_cache_tokens"].isna()]
    if paced.empty:
        return ""
    row = row_with(paced, "arrival_requests_per_s")
    n = int(evidence.runs.loc[evidence.runs["setting"] == row["setting"], "n_prompts"].max())
    return (
        f" A pass is {n:,} requests, with the server's filling and draining: at {row['arrival_requests_per_s']:g}"
        f" requests/s planned, {number(row['answered_requests_per_s'])} a second were answered over the whole pass."
        " These are not the energies of a stream without end."
    )


def _more_together(points: pd.DataFrame, title: str) -> str:
    """`title`, whose last clause stays only where fewer joules really go with more sequences."""
    both = points.dropna(subset=["n_running_mean", ENERGY])
    varies = both["n_running_mean"].nunique() > 2
    falls = varies and both["n_running_mean"].corr(both[ENERGY], method="spearman") < -0.5
    return title if falls else f"{title.partition(':')[0]}."


def latency(evidence: Evidence) -> Finding:
    """Latency against load, and the setting of least energy within the limits."""
    points = evidence.arrival_curve
    if points.empty:
        return not_measured(WHAT)
    limits = points.iloc[0]
    limit = (
        f"time to the first token at most {quantity(limits['time_to_first_token_max_s'], 's')} and"
        f" {quantity(limits['inter_token_latency_max_s'], 's')} between tokens (mean gap of an answer) for 95 of 100"
        " requests"
    )
    within, best = points[points["meets_limits"]], points[points["best"]]
    if best.empty:
        return Finding(f"No pattern and rate measured keeps to the limits: {limit}.", _broken(points))
    row = row_with(best, ENERGY, largest=False)
    everyone = "every pattern and rate" if len(within) == len(points) else f"{len(within)} of {len(points)} settings"
    return Finding(
        f"Least energy within the limits on latency: {quantity(row[ENERGY], 'J')} a request ({arrival_words(row)}).",
        f"The limits: {limit}; {everyone} of those measured keep to them. There the 95th percentiles are"
        f" {quantity(row[TTFT], 's')} to the first token and {quantity(row[ITL], 's')} between tokens."
        f"{_paced(within, row)}{_broken(points[~points['meets_limits']])}",
    )


def _least_paced(within: pd.DataFrame) -> pd.DataFrame:
    """Of settings within the limits, the one of least energy whose requests are spread over time; or no row."""
    paced = within[within["arrival"] != "burst"]
    return paced.nsmallest(1, ENERGY)


def _paced(within: pd.DataFrame, best: pd.Series) -> str:
    """Beside a burst, which is no traffic that goes on, the best of requests that are spread over time."""
    if best["arrival"] != "burst":
        return ""
    return "".join(
        f" Of requests spread over time the least is {quantity(row[ENERGY], 'J')} ({arrival_words(row)};"
        f" {quantity(row[TTFT], 's')} and {quantity(row[ITL], 's')})."
        for _, row in _least_paced(within).iterrows()
    )


def _broken(points: pd.DataFrame) -> str:
    """Settings that break a limit."""
    lines = [
        f"{arrival_words(row)}: {quantity(row[TTFT], 's')} to the first token, {quantity(row[ITL], 's')} between"
        f" tokens, {counted(int(row['n_failed_requests']), 'failed request')}"
        for _, row in points.sort_values(TTFT).iterrows()
    ]
    return f" Not within the limits:{bullets(lines)}" if lines else ""


# --- what happens meanwhile ------------------------------------------------------------------------


def timelines(evidence: Evidence) -> pd.DataFrame:
    """Sequences and power over the first pass of a burst, and of fixed and Poisson arrivals at one rate.

    Returns
    -------
    DataFrame
        ``series`` (the setting in words), ``quantity`` (n_running, n_waiting or power_w), ``time_s`` (since the pass
        began) and ``value``.
    """
    runs = evidence.arrival_runs
    runs = runs[runs["kv_cache_tokens"].isna() & runs["arrival"].isin(["burst", "fixed", "poisson"])]
    rates = runs.groupby("arrival_requests_per_s")["arrival"].nunique()
    both = rates[rates == rates.max()].index
    rate = float(both[len(both) // 2]) if len(both) else float("nan")
    shown = runs[runs["arrival"].eq("burst") | runs["arrival_requests_per_s"].eq(rate).fillna(value=False)]
    parts = []
    for _, run in shown.sort_values("cycle").drop_duplicates("arrival").iterrows():
        key = {name: run[name] for name in ("study", "setting", "cycle")}
        first = rows_with(evidence.windows, **key).nsmallest(1, "window")
        for frame, names in ((evidence.engine_samples, ("n_running", "n_waiting")), (evidence.samples, ("power_w",))):
            rows = rows_with(frame, **key)
            for _, window in first.iterrows():
                since = rows["time_s"] - window["started_s"]
                inside = rows[since.between(0, window["duration_s"])].assign(time_s=since)
                long = inside.melt(["time_s"], list(names), "quantity", "value")
                parts.append(long.assign(series=arrival_words(run)))
    columns = ["series", "quantity", "time_s", "value"]
    return pd.concat(parts, ignore_index=True)[columns] if parts else pd.DataFrame(columns=columns)


def meanwhile(evidence: Evidence) -> Finding:
    """How many sequences run together, and at which power."""
    points = evidence.arrival_curve
    points = points[points["kv_cache_tokens"].isna() & points["n_running_mean"].notna()]
    if points.empty:
        return not_measured("sequences that a server runs over time (study arrival)")
    most, least = (row_with(points, "n_running_mean", largest) for largest in (True, False))
    if most["n_running_mean"] == least["n_running_mean"]:
        return Finding(
            f"{number(most['n_running_mean'], 2)} sequences run together on average, at"
            f" {quantity(most['power_mean_w'], 'W')}."
        )
    return Finding(
        f"From {number(least['n_running_mean'])} ({arrival_words(least)}) to {number(most['n_running_mean'])}"
        f" sequences ({arrival_words(most)}) run together on average, at {quantity(least['power_mean_w'], 'W')} and"
        f" {quantity(most['power_mean_w'], 'W')}.",
        "The weights are read once for all sequences of a step. A server with few of them reads as much for each token"
        f" as others read for many.{_waiting(evidence)}",
    )


def _waiting(evidence: Evidence) -> str:
    """Mean power of the GPU with the model loaded and no request."""
    power_w = runs_of(evidence, "arrival")["idle_loaded_power_w"].mean()
    return f" With the model loaded and no request the GPU draws {quantity(power_w, 'W')}." if known(power_w) else ""


def cache(evidence: Evidence) -> Finding:
    """What a small KV cache costs."""
    rows = rows_with(evidence.arrival_ratio, comparison=NO_LIMIT)
    if rows.empty:
        return not_measured("a limit of the KV cache beside none (study arrival)")
    worst = row_with(rows, RATIO)
    confidence = evidence.assumptions.confidence
    runs = evidence.arrival_runs[evidence.arrival_runs["kv_cache_tokens"].notna()]
    lines = [f"{row['level']}: {estimate(row, RATIO, '×', confidence)}" for _, row in rows.iterrows()]
    share = percent(runs["n_kv_cache_tokens"].max() / evidence.arrival_runs["n_kv_cache_tokens"].max())
    back = counted(int(runs["n_preemptions"].fillna(0).sum()), "sequence")
    return Finding(
        f"A cache of {int(worst['kv_cache_tokens']):,} tokens changes the energy of a request by up to"
        f" {difference(worst[RATIO])} ({arrival_words(pd.Series({**worst, 'kv_cache_tokens': None}))}).",
        f"It holds {share} of the tokens that memory allows; {back} put back for lack of room. Each over the same"
        f" without a limit:{bullets(lines)}",
    )


def one_by_one(evidence: Evidence) -> Finding:
    """The server beside transformers answering one prompt after the other."""
    rows = rows_with(evidence.arrival_ratio, comparison=OVER_ONE_BY_ONE)
    if rows.empty:
        return not_measured(f"{ONE_BY_ONE} (study engine) beside a server (study arrival)")
    most, least = (row_with(rows, RATIO, largest) for largest in (True, False))
    confidence = evidence.assumptions.confidence
    return Finding(
        f"Beside {ONE_BY_ONE}, a request to the server takes {fold(least[RATIO])} to {fold(most[RATIO])} the energy.",
        f"Least: {least['level']}, {estimate(least, RATIO, '×', confidence)}. Most: {most['level']},"
        f" {estimate(most, RATIO, '×', confidence)}. Answers are equally long on average; prompts are not:"
        f" {least['baseline']}.",
    )


# --- every number ----------------------------------------------------------------------------------


def curve_table(evidence: Evidence) -> Prose:
    """Every setting: energy, latency, sequences, power."""
    points = evidence.arrival_curve
    if points.empty:
        return Prose(not_measured(WHAT).title)

    def cell(row: pd.Series, name: str, unit: str) -> str:
        if not known(row[name]):
            return "–"
        ends = row[f"{name}_low"], row[f"{name}_high"]
        return quantity(row[name], unit).strip() + (f" ({span(*ends, unit, row[name])})" if known(ends[0]) else "")

    rows = [
        {
            "arrival": arrival_words(row),
            "energy a request": cell(row, ENERGY, "J"),
            "first token, 95 %": cell(row, TTFT, "s"),
            "between tokens, 95 %": cell(row, ITL, "s"),
            "answered a second": cell(row, "answered_requests_per_s", ""),
            "running": cell(row, "n_running_mean", ""),
            "power": cell(row, "power_mean_w", "W"),
            "failed": row["n_failed_requests"],
            "runs": row["n_runs"],
        }
        for _, row in _in_order(points).iterrows()
    ]
    brackets = f" In brackets: {level(evidence.assumptions.confidence)} intervals, with a spread pooled over settings."
    return Prose(
        f"{table(pd.DataFrame(rows))}\n\nGeometric means over runs; 95 %: the 95th percentile over requests."
        f"{_without_interval(points) or brackets}"
    )


def _in_order(points: pd.DataFrame) -> pd.DataFrame:
    """By pattern, rate and cache."""
    place = points["arrival"].map({name: place for place, name in enumerate(PATTERNS)})
    return points.assign(place=place).sort_values(
        ["place", "arrival_requests_per_s", "kv_cache_tokens"], na_position="first"
    )


def in_plain_words(evidence: Evidence) -> Finding:
    """For the policy report: what request timing is worth, and what that leaves out."""
    whole = rows_with(evidence.arrival_ratio, comparison=SPREAD, scope="all")
    if whole.empty:
        return not_measured("requests that arrive one by one at a server, as in real services")
    row = row_with(whole, RATIO)
    confidence = evidence.assumptions.confidence
    rates = rows_with(evidence.arrival_ratio, comparison=SPREAD, scope="rate")
    pattern = ""
    if len(rates) and (at := row_with(rates, RATIO))[RATIO] < row[RATIO]:
        pattern = (
            " How regularly requests come matters less than how many: at one and the same rate, the patterns furthest"
            f" apart are {at['level']}, {_apart(at, confidence)} than {at['baseline']}."
        )
    best = _least_paced(evidence.arrival_curve[evidence.arrival_curve["meets_limits"]])
    promise = "".join(
        f" While 95 of 100 readers wait at most {quantity(one['time_to_first_token_max_s'], 's')} for the first word,"
        f" the least measured with requests spread over time is {quantity(one[ENERGY], 'J')} ({arrival_words(one)})."
        for _, one in best.iterrows()
    )
    return Finding(
        f"The same request to the same server takes {estimate(row, RATIO, '×', confidence)} as much electricity at its"
        f" dearest ({row['level']}) as at its cheapest ({row['baseline']}).",
        "A server answers requests together and draws power while it waits for the next. A busy one shares each step"
        f" among many requests; in a quiet one a request bears it alone.{pattern}{promise} So electricity per request"
        " is a property of a service and its traffic, not of a model alone: a disclosure must say at which load it was"
        " measured. The model has random weights and each answer's length was drawn beforehand, so this holds for the"
        f" work and says nothing of what real people ask.{_without_interval(whole)}",
    )
