"""A first look at each study: its rows with names, and one sentence with the numbers filled in."""

from __future__ import annotations

import numpy as np
import pandas as pd

from inference_energy.policy.energy import ENERGY
from inference_energy.policy.evidence import Evidence, runs_of
from inference_energy.policy.wording import (
    Finding,
    Prose,
    counted,
    fold,
    listed,
    not_measured,
    percent,
    span,
)

#: Names of the published scenarios by longest delay (s) and, of the text, batch size; of the code, GPUs.
SCENARIOS: dict[str, dict[tuple[float, int], str]] = {
    "scenarios_text": {
        (0.1, 4): "R1",
        (0.1, 8): "R2",
        (0.5, 16): "R3",
        (0.5, 8): "R4",
        (0.8, 10): "R5",
        (0.8, 16): "R6",
    },
    "scenarios_code": {
        (0.1, 1): "R1",
        (0.1, 2): "R2",
        (0.5, 1): "R3",
        (0.5, 2): "R4",
        (0.8, 1): "R5",
        (0.8, 2): "R6",
    },
}
SHARED = {
    "replicas": "replicas on",
    "replicas_duplicated": "duplicated replicas on",
    "tensor": "tensor parallelism over",
}
VERSIONS = {"scenarios_text": "as the text says", "scenarios_code": "as the code does"}


#: Fewer settings have no 5th and 95th percentile to speak of.
N_FOR_PERCENTILES = 10


def study_state(evidence: Evidence) -> Prose:
    """What there is of every study: settings, cycles, and runs without numbers."""
    lines = []
    for study, question in evidence.about.studies.items():
        rows = evidence.runs[evidence.runs["study"] == study]
        if rows.empty:
            lines.append(f"- **{study}**: {question} Nothing is measured yet.")
            continue
        ok = rows[rows["status"] == "ok"]
        twice = int((ok.drop_duplicates(["setting", "cycle"])["setting"].value_counts() > 1).sum())
        without = rows[rows["status"] != "ok"].groupby("status").size()
        lost = (
            "; without numbers: " + listed([f"{n} {status}" for status, n in without.items()]) if len(without) else ""
        )
        lines.append(
            f"- **{study}**: {question} {counted(ok['setting'].nunique(), 'setting')} with numbers,"
            f" {f'{twice} of them in several cycles' if twice else 'in one cycle'}{lost}."
        )
    return Prose("\n".join(lines) or "No study is named.")


def precision(evidence: Evidence) -> Finding:
    """Which precision takes least energy: within each model, at its smallest and largest batch with several."""
    runs = runs_of(evidence, "batching")
    if runs["precision"].nunique() < 2:
        return not_measured("several precisions (study batching)")
    several = runs.groupby(["model", "batch_size"])["precision"].nunique()
    several = several[several > 1]
    if several.empty:
        return Finding(
            f"{runs['precision'].nunique()} precisions are measured, no two of them yet with the same model and batch.",
            partial(runs),
        )
    parts = []
    for model, of_model in several.groupby("model"):
        batches = of_model.index.get_level_values("batch_size")
        for batch in dict.fromkeys((batches.min(), batches.max())):
            point = runs[(runs["model"] == model) & (runs["batch_size"] == batch)]
            means = _in_shared_cycles(point, "precision").groupby("precision")[ENERGY].apply(_geometric).sort_values()
            if len(means) < 2:
                continue
            most = f"{means.index[-1]} most ({difference(means.iloc[-1] / means.iloc[0])})"
            parts.append(f"{model} at batch {batch}: {means.index[0]} needs least, {most}")
    n_points = counted(len(several), "point")
    if not parts:
        return Finding("No two precisions are measured yet with the same model and batch in one cycle.", partial(runs))
    return Finding(
        f"Energy per output token. {'; '.join(parts)}.",
        f"Several precisions are measured at {n_points} of model and batch size. {partial(runs)}",
    )


def parallelism(evidence: Evidence) -> Finding:
    """What sharing the work over GPUs costs per token, against one GPU."""
    runs, alone = runs_of(evidence, "parallelism"), one_gpu(evidence)
    if runs.empty:
        return not_measured("several GPUs (study parallelism)")
    over = _over(runs, alone)
    if over.empty:
        return Finding(
            f"{counted(len(runs), 'run')} on several GPUs; one GPU is not measured yet to compare with.", partial(runs)
        )
    ratios = over.groupby([runs["parallelism"], runs["n_gpus"]]).apply(_geometric)
    said = [
        f"{difference(ratio)} with {SHARED[str(kind)]} {n} GPUs"
        for (kind, n), ratio in zip(ratios.index, ratios, strict=True)
    ]
    return Finding(
        f"Against one GPU an output token takes {listed(said)} (geometric means over models and batch sizes,"
        " within a cycle).",
        f"{len(over)} of {counted(len(runs), 'run')} have their match on one GPU. {partial(runs)}",
    )


def one_gpu(evidence: Evidence) -> pd.DataFrame:
    """Runs of study batching on one GPU at the precision of study parallelism."""
    runs, several = runs_of(evidence, "batching"), runs_of(evidence, "parallelism")
    return runs[runs["precision"].isin(several["precision"].unique()) & (runs["n_gpus"] == 1)]


def decoding_rows(evidence: Evidence) -> pd.DataFrame:
    """Runs of study decoding, labelled by method and level; colours tell temperatures."""
    runs = runs_of(evidence, "decoding").copy()
    level = runs["top_k"].astype("Float64").fillna(runs["top_p"].astype("Float64"))
    method = runs["decoding"].str.replace("_", "-")
    runs["label"] = [
        f"{name} {value:g}" if pd.notna(value) else name for name, value in zip(method, level, strict=True)
    ]
    temperature = runs["sampling_temperature"].astype(float).fillna(1.0)
    warm = np.where(temperature > 0.6, "temperature above 0.6", "temperature to 0.6")
    runs["series"] = np.where(runs["decoding"] == "greedy", "greedy", warm)
    runs["place"] = runs["decoding"].map({"greedy": 0, "multinomial": 1, "top_k": 2, "top_p": 3})
    return runs.assign(level=level).sort_values(["place", "level", "setting", "cycle"]).drop(columns=["place", "level"])


def decoding(evidence: Evidence) -> Finding:
    """How far the ways to choose the next token move energy per token from greedy."""
    runs = runs_of(evidence, "decoding")
    greedy = runs[runs["decoding"] == "greedy"]
    if runs.empty or greedy.empty or len(greedy) == len(runs):
        return not_measured("sampling beside greedy decoding (study decoding)")
    others = runs[runs["decoding"] != "greedy"]
    ratios = _over(others, greedy)
    if ratios.empty:
        return not_measured("sampling and greedy decoding in the same cycle (study decoding)")
    by_method = ratios.groupby(others["decoding"]).apply(_geometric)
    methods = by_method.index.str.replace("_", "-")
    said = listed([f"{difference(ratio)} with {name}" for name, ratio in zip(methods, by_method, strict=True)])
    alone = sorted(set(others["model"]) - set(greedy["model"]))
    lacking = f" Greedy decoding of {listed(alone)} is not measured yet." if alone else ""
    spread = runs["window_cv"].median()
    return Finding(
        f"Against greedy decoding an output token takes {said} (means over settings, within a cycle).",
        f"Single runs lie between {difference(ratios.min())} and {difference(ratios.max())}; within a run windows"
        f" differ with a CV of {percent(spread)} (median).{lacking} {partial(runs)}",
    )


def traffic_rows(evidence: Evidence) -> pd.DataFrame:
    """Runs of study traffic with the mean waiting before a batch, and what delays precede."""
    runs = runs_of(evidence, "traffic").copy()
    runs["waited_s_per_batch"] = runs["waited_s"] / runs["n_iterations"].astype(float)
    runs["series"] = np.where(
        runs["traffic"] == "none", "no delay", runs["traffic"] + " delay per " + runs["delay_every"]
    )
    return runs


def traffic(evidence: Evidence) -> Finding:
    """What simulated waiting costs."""
    runs = traffic_rows(evidence)
    idle = runs[runs["traffic"] == "none"]
    if runs.empty or len(idle) == len(runs):
        return not_measured("waiting beside no waiting (study traffic)")
    waiting = runs[runs["traffic"] != "none"]
    over = _over(waiting, idle)
    if over.empty:
        return Finding(
            f"{counted(len(waiting), 'run')} with simulated waiting, up to {percent(waiting['waited_fraction'].max())}"
            " of the time; the same model and batch size without waiting is not measured yet to compare with.",
            partial(runs),
        )
    low, high = float(over.min()), float(over.max())
    return Finding(
        f"Waiting between requests makes an output token cost {' to '.join(dict.fromkeys((fold(low), fold(high))))} as"
        f" much energy, with up to {percent(waiting['waited_fraction'][over.index].max())} of the time spent waiting.",
        f"{len(over)} of {counted(len(waiting), 'run')} with waiting have their match without. {partial(runs)}",
    )


def scenario_rows(evidence: Evidence) -> pd.DataFrame:
    """Runs of both versions of the scenarios, labelled A1 and R1 to R6."""
    runs = evidence.ok[evidence.ok["study"].isin(list(SCENARIOS))].copy()
    runs["label"] = [_scenario(row) for _, row in runs.iterrows()]
    runs["series"] = runs["study"].map(VERSIONS)
    return runs.sort_values(["label", "study", "cycle"])


def scenarios(evidence: Evidence) -> Finding:
    """How far the scenarios lie apart in both versions."""
    runs = scenario_rows(evidence)
    if runs.empty:
        return not_measured("the scenarios (studies scenarios_text and scenarios_code)")
    said = []
    for study, words in VERSIONS.items():
        for model, rows in runs[runs["study"] == study].groupby("model"):
            means = rows.groupby("label")[ENERGY].apply(_geometric).sort_values()
            if len(means) > 1:
                said.append(
                    f"{fold(means.iloc[-1] / means.iloc[0])} ({words}, {model}: {means.index[0]} to {means.index[-1]})"
                )
    if not said:
        return Finding(f"{counted(len(runs), 'run')} of scenarios: too few to compare.", partial(runs))
    return Finding(
        f"From the most frugal to the most costly scenario energy per token rises {listed(said)}.", partial(runs)
    )


def grid_rows(evidence: Evidence) -> pd.DataFrame:
    """Runs of study grid by number of processes; colours tell precisions."""
    runs = runs_of(evidence, "grid").copy()
    runs["label"] = [counted(int(n), "GPU") for n in runs["n_gpus"]]
    runs["series"] = runs["precision"]
    return runs.sort_values(["n_gpus", "setting", "cycle"])


def grid(evidence: Evidence) -> Finding:
    """How far everyday choices of deployment spread energy per token."""
    runs = runs_of(evidence, "grid")
    settings = runs.groupby(["model", "setting"])[ENERGY].mean()
    if settings.empty:
        return not_measured("settings of study grid")
    said = []
    for model, values in settings.groupby("model"):
        if len(values) < N_FOR_PERCENTILES:
            continue
        low, high = np.percentile(values, [5, 95])
        n_settings = counted(len(values), "setting")
        said.append(f"{fold(high / low)} for {model} ({span(low, high, 'J')}, {n_settings})")
    if not said:
        return Finding(f"{counted(len(settings), 'setting')} of the grid: too few to tell its spread.", partial(runs))
    return Finding(
        f"Between the 5th and the 95th percentile of the grid's settings energy per token spreads {listed(said)}.",
        partial(runs),
    )


def length_rows(evidence: Evidence) -> pd.DataFrame:
    """Runs of study lengths beside those of batching with the same levels else."""
    longer = runs_of(evidence, "lengths")
    keys = ["model", "precision", "batch_size"]
    same = runs_of(evidence, "batching").merge(longer[keys].drop_duplicates(), on=keys)
    runs = pd.concat([same, longer]) if len(longer) else longer.copy()
    runs["label"] = [
        f"batch {row.batch_size}: {row.n_input_tokens} in, {row.n_output_tokens} out" for row in runs.itertuples()
    ]
    runs["series"] = "run"
    return runs.sort_values(["batch_size", "n_output_tokens", "cycle"])


def lengths(evidence: Evidence) -> Finding:
    """What longer prompts and answers change."""
    runs = length_rows(evidence)
    said = [
        f"{difference(rows.iloc[-1] / rows.iloc[0])} ({where})"
        for where, rows in _by_point(runs, "n_output_tokens").items()
    ]
    if not said:
        return not_measured("two lengths of prompt and answer (study lengths)")
    return Finding(f"With the longer prompts and answers an output token takes {listed(said)}.", partial(runs))


def tf32_rows(evidence: Evidence) -> pd.DataFrame:
    """Runs of study tf32, labelled by batch size and precision."""
    runs = runs_of(evidence, "tf32").copy()
    runs["label"] = [f"batch {row.batch_size}: {row.precision}" for row in runs.itertuples()]
    runs["series"] = runs["precision"]
    return runs.sort_values(["batch_size", "precision", "cycle"])


def tf32(evidence: Evidence) -> Finding:
    """What TF32 saves against float32."""
    by_point = _by_point(runs_of(evidence, "tf32"), "precision")
    said = [f"{difference(rows['tf32'] / rows['float32'])} ({where})" for where, rows in by_point.items()]
    if not said:
        return not_measured("TF32 beside float32 (study tf32)")
    return Finding(
        f"With TF32 instead of float32 an output token takes {listed(said)}.", partial(runs_of(evidence, "tf32"))
    )


def _scenario(row: pd.Series) -> str:
    if row["traffic"] == "none":
        return "A1"
    second = row["batch_size"] if row["study"] == "scenarios_text" else row["n_gpus"]
    return SCENARIOS[row["study"]].get((float(row["delay_max_s"]), int(second)), "other")


def _over(runs: pd.DataFrame, baseline: pd.DataFrame) -> pd.Series:
    """Energy per token of each run over the geometric mean of the baseline of its model, batch size and cycle.

    Cycles are measured in different sittings, often on another host, so they are not mixed.
    """
    keys = ["model", "batch_size", "cycle"]
    levels = baseline.groupby(keys, as_index=False)[ENERGY].agg(level=_geometric)
    joined = runs[[*keys, ENERGY]].reset_index().merge(levels, on=keys).set_index("index")
    return joined[ENERGY] / joined["level"]


def _by_point(runs: pd.DataFrame, name: str) -> dict[str, pd.Series]:
    """Geometric means by the levels of `name`, for each model and batch size that has several."""
    found = {}
    for model, of_model in runs.groupby("model"):
        for batch, rows in of_model.groupby("batch_size"):
            means = _in_shared_cycles(rows, name).groupby(name)[ENERGY].apply(_geometric)
            if len(means) > 1:
                found[f"{model}, batch {batch}"] = means
    return found


def _in_shared_cycles(rows: pd.DataFrame, name: str) -> pd.DataFrame:
    """Only the cycles in which every level of `name` was measured: sittings differ, so cycles are not mixed."""
    n_levels = rows.groupby("cycle")[name].nunique()
    return rows[rows["cycle"].isin(n_levels.index[n_levels == rows[name].nunique()])]


def _geometric(values: pd.Series) -> float:
    return float(np.exp(np.log(values.astype(float)).mean()))


def difference(ratio: float) -> str:
    """``3.1 % more``, ``2 % less``, ``2.5×``."""
    if ratio >= 2:
        return fold(ratio)
    return f"{percent(abs(ratio - 1))} {'more' if ratio >= 1 else 'less'}"


def partial(runs: pd.DataFrame) -> str:
    """How much there is behind a finding."""
    once = int((runs.groupby(["study", "setting"])["cycle"].nunique() < 2).sum())
    n = runs.groupby(["study", "setting"]).ngroups
    left = "" if not once else ", all in one cycle only" if once == n else f", {once} of them in one cycle only"
    return f"{counted(len(runs), 'run')} of {counted(n, 'setting')}{left}."
