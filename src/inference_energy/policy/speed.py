"""Is fast also frugal, and what explains energy? Sentences on throughput, latency and utilisation."""

from __future__ import annotations

import pandas as pd

from inference_energy.models.curves import alike
from inference_energy.policy.evidence import Evidence
from inference_energy.policy.wording import (
    Finding,
    Prose,
    bullets,
    counted,
    fold,
    known,
    level,
    listed,
    not_measured,
    number,
    percent,
    quantity,
    row_with,
    setting_words,
    span,
    table,
)

ENERGY, SPEED = "energy_j_per_output_token", "throughput_tokens_per_s"
INFLECTION = "inflection_throughput_tokens_per_s"
_KEY = ["study", "setting", "cycle"]

#: What a reader calls the columns that might explain energy.
PREDICTORS = {
    "flop_per_output_token": "FLOP per token",
    "bytes_per_output_token": "bytes per token",
    "gpu_throughput_tokens_per_s": "throughput of a GPU",
    "gpu_utilisation_fraction": "NVML's utilisation",
    "throughput_tokens_per_s": "throughput of all GPUs",
    "power_over_limit_fraction": "share of the power limit",
    "mfu": "MFU",
    "mbu": "MBU",
}
#: What says how busy a GPU is.
_BUSY = ("mfu", "mbu", "gpu_utilisation_fraction", "power_over_limit_fraction")


def runs_behind(evidence: Evidence, rows: pd.DataFrame) -> pd.DataFrame:
    """Rows of `runs` that some rows of `utilisation` come from."""
    return evidence.ok.merge(rows[_KEY], on=_KEY, how="inner")


def batched(evidence: Evidence) -> pd.DataFrame:
    """Rows of `utilisation` behind `throughput`: one GPU, no waiting; only the batch size varies along a curve."""
    return alike(evidence.utilisation)


# --- throughput ----------------------------------------------------------------------------------


def convexity(evidence: Evidence) -> Finding:
    """The shape of energy against throughput, and where the fixed power ceases to matter."""
    curves = evidence.throughput.dropna(subset=["fixed_power_w"])
    if curves.empty:
        return not_measured(f"enough batch sizes of one model and precision. {_left_out(evidence)}".strip(" ."))
    verdicts = curves["verdict"].value_counts()
    n = len(curves)
    if verdicts.get("convex", 0) == n and (curves["elasticity_ratio"] < 0).all():
        shape = f"falls along a convex curve in {'all ' * (n > 1)}{counted(n, 'curve')} tested"
    else:
        said = listed([f"{word} in {count} of {counted(n, 'curve')}" for word, count in verdicts.items()])
        shape = f"against throughput is {said}"
    inside = curves[curves["inflection_place"] == "within"]
    reached = f"in {len(inside)} of them ({_names(inside)})" if len(inside) else "in none of them"
    own = int((curves["convex_residual_fraction"] < 1e-6).sum())
    scored = curves.dropna(subset=["hyperbola_aicc", "power_law_aicc"])
    better = int((scored["hyperbola_aicc"] < scored["power_law_aicc"]).sum())
    detail = (
        "E = P₀/θ + e: P₀ is a power drawn however little is done, e what one more token adds, θ the throughput."
        " At θ* = P₀/e both parts are equal, and beyond it more throughput saves little."
        " Convexity is tested against its alternative: the data are compared with data drawn around the closest convex"
        f" and around the closest concave relation. In {own} of {counted(n, 'curve')} the means themselves are convex,"
        " so that the free convex fit passes through every point."
        f" By AICc, P₀/θ + e describes {better} of {counted(len(scored), 'curve')} better than a power law does."
    )
    details = [_curve_cells(row) for _, row in curves.iterrows()]
    return Finding(
        f"The energy of a token {shape}; the throughput at which marginal energy outweighs fixed power was reached"
        f" {reached}.",
        f"{detail} {_left_out(evidence)}\n\n{table(pd.DataFrame(details))}\n\nIn brackets:"
        f" {level(evidence.assumptions.confidence)} intervals.",
    )


def _names(curves: pd.DataFrame) -> str:
    return listed([f"{row['model']} {row['precision']}" for _, row in curves.iterrows()])


def _curve_cells(row: pd.Series) -> dict[str, str]:
    """One curve: its parameters, its inflection and which fit is better."""
    ends = number(row["throughput_min_tokens_per_s"]), number(row["throughput_max_tokens_per_s"])
    return {
        "curve": f"{row['model']} {row['precision']}",
        "fixed power P₀": _cell(row, "fixed_power_w", "W"),
        "marginal energy e": _cell(row, "marginal_energy_j_per_output_token", "J"),
        "θ* (tokens/s)": _inflection(row),
        "measured (tokens/s)": f"{' to '.join(ends)}: θ* is {row['inflection_place']}",
        "which law fits": _better(row),
    }


def _inflection(row: pd.Series) -> str:
    value, low, high = (row[f"{INFLECTION}{end}"] for end in ("", "_low", "_high"))
    if not known(value):
        return "never reached: e is not above 0"
    return f"{number(value)} ({number(low)} {f'to {number(high)}' if known(high) else 'or more'})"


def _better(row: pd.Series) -> str:
    """Which of the two laws with two parameters describes a curve better."""
    fits = {"P₀/θ + e": "hyperbola", "a power law": "power_law"}
    off = {words: row[f"{fit}_residual_fraction"] for words, fit in fits.items()}
    best, worse = sorted(off, key=off.__getitem__)
    both = f"{best} within {percent(off[best])}, {worse} within {percent(off[worse])}"
    scores = [row["hyperbola_aicc"], row["power_law_aicc"]]
    if not all(known(score) for score in scores):
        return f"{both}; too few points for AICc"
    apart = abs(scores[0] - scores[1])
    return f"{both} (AICc differs by {number(apart, 2)}{', too little to decide' * (apart < 2)})"


def _left_out(evidence: Evidence) -> str:
    """Curves without an answer, with the reason."""
    rows = evidence.throughput[evidence.throughput["fixed_power_w"].isna()]
    return " ".join(f"{_names(curves)}: {note}." for note, curves in rows.groupby("note"))


def convexity_table(evidence: Evidence) -> Prose:
    """Every curve with its fits and tests."""
    if evidence.throughput.empty:
        return Prose(not_measured("energy against throughput").title)
    cells = [
        {
            "curve": f"{row['model']} {row['precision']}",
            "settings": row["n_settings"],
            "runs": row["n_runs"],
            "elasticity": _cell(row, "elasticity_ratio", ""),
            "AICc: P₀/θ + e": _score(row["hyperbola_aicc"]),
            "power law": _score(row["power_law_aicc"]),
            "free convex": _score(row["convex_aicc"]),
            "p: convex": _p_words(row["convex_p_value"]),
            "p: not convex": _p_words(row["concave_p_value"]),
            "verdict": row["verdict"] if isinstance(row["verdict"], str) else "too few points",
        }
        for _, row in evidence.throughput.dropna(subset=["fixed_power_w"]).iterrows()
    ]
    if not cells:
        return Prose(_left_out(evidence))
    shown = pd.DataFrame(cells)
    shown = shown[[name for name in shown if set(shown[name]) != {"none"}]]
    return Prose(
        f"{table(shown)}\n\nElasticity: relative change of energy over relative change of throughput, of"
        " the power law, with its interval; at -1 power would not depend on throughput. AICc: the smaller, the better;"
        " there is none for too few points, and for a free convex fit that passes through every point. p: how likely"
        " data this far from the shape are if it held; `not convex` is straight or concave."
    )


def _p_words(value: float) -> str:
    if not known(value):
        return "none"
    return "below 0.001" if value < 0.001 else "above 0.99" if value > 0.99 else number(value, 2)


def _score(value: float) -> str:
    return number(value, 2) if known(value) else "none"


def _cell(row: pd.Series, name: str, unit: str) -> str:
    value, low, high = (row[f"{name}{end}"] for end in ("", "_low", "_high"))
    if not known(value):
        return "none"
    words = quantity(value, unit).strip()
    return f"{words} ({span(low, high, unit, value)})" if known(low) else words


# --- latency -------------------------------------------------------------------------------------


def pareto_front(evidence: Evidence) -> Finding:
    """What the most frugal settings cost in latency."""
    found = []
    for model, rows in evidence.pareto.groupby("model"):
        front = rows[rows["on_front"]]
        ends = row_with(front, "latency_s", largest=False), row_with(front, ENERGY, largest=False)
        found.append((str(model), len(front), len(rows), *ends))
    if not found:
        return not_measured("energy and latency of a deployment")
    saved = listed([f"{fold(fast[ENERGY] / frugal[ENERGY])} ({model})" for model, _, _, fast, frugal in found])
    longer = listed(
        [f"{fold(frugal['latency_s'] / fast['latency_s'])} ({model})" for model, _, _, fast, frugal in found]
    )
    details = [
        f"{model}: fastest {_setting_words(fast)} with {quantity(fast['latency_s'], 's')} and"
        f" {quantity(fast[ENERGY], 'J')} a token; most frugal {_setting_words(frugal)} with"
        f" {quantity(frugal['latency_s'], 's')} and {quantity(frugal[ENERGY], 'J')}; no other setting beats"
        f" {n_front} of {n} in both"
        for model, n_front, n, fast, frugal in found
    ]
    same = all(fast.name == frugal.name for _, _, _, fast, frugal in found)
    return Finding(
        "The setting that answers first also takes the least energy per token."
        if same
        else f"The setting with least energy per token takes {longer} the time of the one that answers first, and that"
        f" one takes {saved} its energy.",
        "The latency of a query is the time for its batch's whole answer; simulated waiting is not in it. Hosts differ"
        " in speed where the CPU sets the pace, so that settings of nearly the same latency change places from run to"
        f" run: `stays` says how often a setting is on the front when runs are drawn anew.{bullets(details)}",
    )


def _setting_words(row: pd.Series) -> str:
    """A setting in a few words: what differs from one GPU, greedy, no waiting."""
    parts = [f"{row['precision']}, batch {row['batch_size']}"]
    if row["n_gpus"] > 1:
        parts.append(f"{row['n_gpus']} GPUs ({row['parallelism']})")
    if isinstance(row["decoding"], str) and row["decoding"] != "greedy":
        parts.append(row["decoding"])
    if isinstance(row["traffic"], str) and row["traffic"] != "none":
        parts.append(f"{row['traffic']} waiting")
    return ", ".join(parts)


def pareto_rows(evidence: Evidence) -> pd.DataFrame:
    """Table `pareto` with a label for each setting."""
    return evidence.pareto.assign(label=[_setting_words(row) for _, row in evidence.pareto.iterrows()])


def pareto_table(evidence: Evidence) -> Prose:
    """The settings on the front."""
    front = pareto_rows(evidence)
    front = front[front["on_front"]]
    if front.empty:
        return Prose(not_measured("energy and latency of a deployment").title)
    cells = [
        {
            "model": row["model"],
            "setting": row["label"],
            "runs": row["n_runs"],
            "energy per token": _cell(row, ENERGY, "J"),
            "latency": _cell(row, "latency_s", "s"),
            "waiting": quantity(row["waiting_s"], "s"),
            "stays": percent(row["front_fraction"]),
        }
        for _, row in front.iterrows()
    ]
    return Prose(
        f"{table(pd.DataFrame(cells))}\n\nIn brackets: {level(evidence.assumptions.confidence)} intervals from the"
        " scatter of runs around their setting, pooled over the model."
    )


# --- utilisation ---------------------------------------------------------------------------------


def machine_use(evidence: Evidence) -> Finding:
    """How much of a GPU's peaks is used."""
    rows = evidence.utilisation
    rated = rows.dropna(subset=["mfu"])
    if rated.empty:
        notes = rows["note"].dropna().unique()
        return not_measured("the share of a GPU's peak rates. " + ". ".join(notes) if len(notes) else "utilisation")
    most, memory = row_with(rated, "mfu"), row_with(rated, "mbu")
    details = [
        {"model and precision": f"{model} {precision}"} | {PREDICTORS[name]: _range(group[name]) for name in _BUSY}
        for (model, precision), group in rated.groupby(["model", "precision"])
    ]
    return Finding(
        f"No setting uses more than {percent(most['mfu'])} of the GPU's arithmetic ({setting_words(most)}) or"
        f" {percent(memory['mbu'])} of its memory bandwidth ({setting_words(memory)}); the median is"
        f" {percent(rated['mfu'].median())} and {percent(rated['mbu'].median())}.",
        f"{_waits(rated)}FLOP and bytes are counted from the architecture, at least what must be done; int4 is held"
        f" against float16, in which it computes, and int8 against int8. Smallest to largest over runs:"
        f"\n\n{table(pd.DataFrame(details))}",
    )


def _waits(rated: pd.DataFrame) -> str:
    """How long a GPU has nothing to do, and what it draws meanwhile."""
    kernels, power = rated["gpu_utilisation_fraction"].median(), rated["power_over_limit_fraction"].median()
    if not (known(kernels) and known(power)):
        return ""
    return (
        f"In the median run some kernel was running {percent(kernels)} of the time, at {percent(power)} of the power"
        " limit: in the rest of the time the GPU waits for its host to launch the next one, and draws power. "
    )


def _range(values: pd.Series) -> str:
    numbers = values.dropna().astype(float)
    if numbers.empty:
        return "unknown"
    low, high = percent(numbers.min()), percent(numbers.max())
    return low if low == high else f"{low} to {high}"


def busy(evidence: Evidence) -> Finding:
    """How far what a GPU uses of its peaks tells the energy of a token."""
    rows = evidence.explained[evidence.explained["predictor"].isin(_BUSY)].dropna(subset=["variance_fraction"])
    if rows.empty:
        return not_measured("how far utilisation explains energy")
    rows = rows[rows["scope"] == rows["scope"].iloc[-1]].set_index("predictor")
    said = listed([f"{PREDICTORS[name]} {percent(row['variance_fraction'])}" for name, row in rows.iterrows()])
    confidence = level(evidence.assumptions.confidence)
    details = [
        f"{PREDICTORS[name]}: {percent(row['variance_fraction'])} ({confidence} interval"
        f" {percent(row['variance_fraction_low'])} to {percent(row['variance_fraction_high'])})"
        for name, row in rows.iterrows()
    ]
    return Finding(
        f"Of the differences in energy per token, how busy a GPU is explains: {said}.",
        "NVML counts the time in which any kernel runs, however small, so that a GPU that looks half busy may do a"
        f" hundredth of what it could.{bullets(details)}",
    )


# --- what explains energy ------------------------------------------------------------------------


def explanation(evidence: Evidence) -> Finding:
    """How much of the variance of energy FLOP explain, against throughput and utilisation."""
    rows = evidence.explained.dropna(subset=["variance_fraction"])
    if rows.empty:
        notes = evidence.explained["note"].dropna().unique()
        return not_measured("what explains energy. It " + notes[0] if len(notes) else "what explains energy")
    widest = "all" if (rows["scope"] == "all").any() else rows["scope"].iloc[0]
    share = rows[rows["scope"] == widest].set_index("predictor")
    within = rows[(rows["scope"] != "all") & (rows["predictor"] == "flop_per_output_token")]
    constant = bool((within["n_values"] == 1).all())
    flop = "FLOP per token explain none of the differences in energy within a model" if constant else "FLOP vary"
    both = share["variance_fraction"]
    over = f" and {percent(both['flop_per_output_token'])} over all models" if widest == "all" else ""
    return Finding(
        f"{flop}{over}; throughput of a GPU explains {percent(both['gpu_throughput_tokens_per_s'])}.",
        f"{_by_design(constant)} Energy per token is power over throughput, so that throughput explains what power does"
        " not: it is the outcome of a setting, no cause of its own. Shares are R² of log energy per token on the"
        f" logarithm of each, over settings.\n\n{_shares(rows)}",
    )


def _by_design(constant: bool) -> str:
    if not constant:
        return "Lengths differ between settings, so that FLOP per token do."
    return (
        "FLOP per token are the same at every batch size, precision, number of GPUs and waiting: by design they cannot"
        " tell one deployment from another."
    )


def _shares(rows: pd.DataFrame) -> str:
    """A table of shares, a column a scope, and what the joint models lose."""
    cells: dict[str, dict[str, str]] = {}
    joined = []
    for scope, of_scope in rows.groupby("scope", sort=False):
        where = "all models together" if scope == "all" else str(scope)
        head = f"{where}, {counted(int(of_scope['n_settings'].iloc[0]), 'setting')}"
        cells[head] = {PREDICTORS[row["predictor"]]: _share(row) for _, row in of_scope.iterrows()}
        joint = of_scope.dropna(subset=["unique_fraction"])
        if len(joint):
            most = row_with(joint, "unique_fraction")
            joined.append(
                f"{where}: together {listed([PREDICTORS[name] for name in joint['predictor']])} explain"
                f" {percent(most['joint_fraction'])}; without {PREDICTORS[most['predictor']]} it would be"
                f" {percent(most['joint_fraction'] - most['unique_fraction'])}"
            )
    shown = pd.DataFrame(cells).reindex(
        [words for words in PREDICTORS.values() if words in set().union(*cells.values())]
    )
    return table(shown.fillna("–").reset_index(names="explained by")) + bullets(joined)


def _share(row: pd.Series) -> str:
    low, high = row["variance_fraction_low"], row["variance_fraction_high"]
    value = percent(row["variance_fraction"])
    return f"{value} ({percent(low)} to {percent(high)})" if known(low) and low != high else value


def explanation_rows(evidence: Evidence) -> pd.DataFrame:
    """Table `explained` with words for each predictor."""
    return evidence.explained.assign(words=evidence.explained["predictor"].map(PREDICTORS))
