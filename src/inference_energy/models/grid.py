"""The published grid beside what was measured, and the model that predicts the rest of it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from inference_energy.errors import AnalysisError
from inference_energy.models.additive import Additive, Part, fit
from inference_energy.models.deployments import ENERGY, deployments, with_levels

PRECISIONS = {"fp32": "float32", "fp16": "float16", "int8": "int8", "int4": "int4"}
N_TOKENS, N_PROMPTS = 128, 128  # of the published grid: tokens in and out, prompts of a process
# SOURCE: baker_setup.csv and baker_scenarios_disagreements.csv: four GPUs are visible to every process; in the code's
# scenarios R1 to R6 only those that take part are, in its A1 again all four.
N_PUBLISHED_GPUS = 4
KEYS = ("model", "precision", "batch_size", "n_gpus", "latency_level")

_FACTORS = ("model", "precision", "parallelism", "decoding", "lengths", "prompts")
_BENDS = ("log2_batch:precision", "log2_batch:model")
_WAITING: Part = ("wait_gpu_s_per_output_token", ())
_STEPS: Part = ("steps_per_output_token", _FACTORS)

#: What may predict: name, words, parts. Which one does is decided by leaving settings out.
CANDIDATES: tuple[tuple[str, str, tuple[Part, ...]], ...] = (
    (
        "factors",
        "a product of factors, a curve over batch size, and one over waiting",
        (("one", (*_FACTORS, "log2_batch", "log2_batch:log2_batch", "log_wait", "log_wait:log2_batch")),),
    ),
    (
        "factors and waiting",
        "a product of factors and a curve over batch size, plus waiting at a fixed power",
        (("one", (*_FACTORS, "log2_batch", "log2_batch:log2_batch")), _WAITING),
    ),
    (
        "bent factors and waiting",
        "a product of factors with a slope over batch size for each precision and model, plus waiting at a fixed power",
        (("one", (*_FACTORS, "log2_batch", "log2_batch:log2_batch", *_BENDS)), _WAITING),
    ),
    (
        "steps, tokens and waiting",
        "an energy for each step, shared by the batch, plus one for each token, plus waiting at a fixed power",
        (_STEPS, ("one", ("model", "precision")), _WAITING),
    ),
    (
        "steps by model and precision",
        "an energy for each step by model and precision, plus one for each token, plus waiting at a fixed power",
        (
            ("steps_per_output_token", (*_FACTORS, "model:precision")),
            ("one", ("model", "precision")),
            _WAITING,
        ),
    ),
)

_SPARE = 5  # settings beyond the coefficients, at least
_FEWEST = 2  # settings of a level: the effect of one alone could not be told from that setting
_UNTOLD = "the measured settings do not tell its levels from those they came together with"


@dataclass(frozen=True)
class Candidate:
    """A way to predict, fitted or not.

    Attributes
    ----------
    name, words : str
    fitted : Additive or None
        Missing with too few settings.
    reason : str
        Why it is missing.
    """

    name: str
    words: str
    fitted: Additive | None
    reason: str


@dataclass(frozen=True)
class GridModel:
    """All candidates on the same settings, and the chosen one.

    Attributes
    ----------
    settings : DataFrame
        One row a measured setting.
    candidates : list of Candidate
    held_out : ndarray of bool, shape (n_settings,)
        Settings that every fitted candidate can predict without them.
    chosen : Candidate or None
        The one with the smallest root mean square error of settings left out.
    """

    settings: pd.DataFrame
    candidates: list[Candidate]
    held_out: np.ndarray
    chosen: Candidate | None


def fit_candidates(runs: pd.DataFrame, n_waiting: int | None = None) -> GridModel:
    """Fit every candidate to the measured deployment settings that say something of the grid.

    Tensor parallelism is left out: its steps are of another kind, and the grid has none.

    Parameters
    ----------
    runs : DataFrame
        The ``runs`` table.
    n_waiting : int, optional
        GPUs whose power a second of waiting takes, where energy is that of the whole machine; those
        that take part without it.

    Raises
    ------
    AnalysisError
        If no run has an energy, or one is not above 0.
    """
    known = deployments(runs)
    if n_waiting is not None:
        known = all_waiting(known, runs.loc[known.index, "n_gpus"], n_waiting)
    settings = per_setting(known[~known["parallelism"].str.startswith("tensor")])
    candidates = []
    for name, words, parts in CANDIDATES:
        fitted = fit(settings, parts) if len(settings) > 1 else None
        reason = ""
        if fitted is None or fitted.freedom < _SPARE:
            n = fitted.n_parameters if fitted else 1
            reason = f"{len(settings)} measured settings are too few for {n} coefficients and {_SPARE} to spare"
        candidates.append(Candidate(name, words, None if reason else fitted, reason))
    usable = [(one, one.fitted) for one in candidates if one.fitted is not None]
    held_out = np.all([np.isfinite(fitted.left_out()[0]) for _, fitted in usable] or [np.zeros(len(settings))], axis=0)
    if not held_out.any():
        return GridModel(settings, candidates, held_out.astype(bool), None)
    chosen = min(usable, key=lambda pair: float((pair[1].left_out()[0][held_out] ** 2).mean()))[0]
    return GridModel(settings, candidates, held_out, chosen)


def all_waiting(settings: pd.DataFrame, n_gpus: pd.Series, n_waiting: int) -> pd.DataFrame:
    """`settings` with the seconds of waiting of `n_waiting` GPUs in place of those that take part."""
    seconds = settings["wait_gpu_s_per_output_token"] * n_waiting / n_gpus.astype(float)
    return settings.assign(wait_gpu_s_per_output_token=seconds)


def per_setting(runs: pd.DataFrame) -> pd.DataFrame:
    """Means over the runs of each setting (of the logarithm of energy, and of waits)."""
    numbers = {"log_energy", "batch_wait_s", "wait_gpu_s_per_output_token"}
    how = {name: "mean" if name in numbers else "first" for name in runs.columns if name != "setting"}
    how |= {"of_grid": "max"}
    means = runs.groupby("setting", sort=True).agg(how).reset_index()
    return with_scales(means.assign(n_runs=runs.groupby("setting", sort=True).size().to_numpy()))


def with_scales(settings: pd.DataFrame) -> pd.DataFrame:
    """`settings` with the scales and curves that candidates name."""
    return settings.assign(
        steps_per_output_token=2.0 ** -settings["log2_batch"].astype(float) / 8,
        log_wait=np.log1p(settings["batch_wait_s"].astype(float)),
    )


def published_grid(configs: pd.DataFrame, axes: pd.DataFrame, latency: pd.DataFrame) -> pd.DataFrame:
    """All settings of the published grid, as rows like those of :func:`per_setting`.

    The wait before a batch is the mean of its delay (of the slowest process where there are several)
    plus the pauses of a pass over its batches.

    Parameters
    ----------
    configs, axes, latency : DataFrame
        ``baker_grid_configs.csv``, ``baker_grid_axes.csv`` and ``baker_grid_latency_levels.csv``, as text.

    Raises
    ------
    AnalysisError
        If they name a precision or a level of waiting that is not known.
    """
    models = [name.rpartition("/")[2].lower() for name in axes.loc[axes["axis"] == "model", "level"]]
    grid = configs.merge(latency, on="latency_level", how="left").merge(pd.DataFrame({"model": models}), how="cross")
    unknown = set(grid["precision"]) - set(PRECISIONS)
    if unknown or grid["simulate"].isna().any():
        raise AnalysisError(
            "resources/published/baker_grid_configs.csv",
            f"precisions {sorted(unknown)} or levels of waiting that baker_grid_latency_levels.csv lacks",
            f"precisions {', '.join(PRECISIONS)}",
            "Restore it: git checkout resources",
        )
    number = {name: pd.to_numeric(grid[name], errors="coerce") for name in latency.columns}
    n_gpus, batch = grid["num_processes"].astype(int), grid["batch_size"].astype(int)
    waits = grid["simulate"].eq("1")
    low, high = number["delay_min_s"].fillna(0), number["delay_max_s"].fillna(0)
    n_batches = -(-N_PROMPTS // batch)
    pauses = (n_batches // number["burst_size_batches"]).fillna(0) * number["burst_interval_s"].fillna(0) / n_batches
    wait = low + (high - low) * n_gpus / (n_gpus + 1) + pauses
    burst = grid["burst"].eq("1")
    rows = pd.DataFrame(
        {
            "study": "grid",
            "model": grid["model"],
            "precision": grid["precision"].map(PRECISIONS),
            "batch_size": batch,
            "n_gpus": n_gpus,
            "latency_level": grid["latency_level"],
            "parallelism": np.where(n_gpus > 1, "replicas_duplicated", "none"),
            "decoding": "top_p",
            "sampling_temperature": 0.8,
            "top_p": 0.8,
            "n_prompts": N_PROMPTS,
            "n_input_tokens": N_TOKENS,
            "n_output_tokens": N_TOKENS,
            "traffic": np.where(waits, np.where(burst, "burst", "constant"), "none"),
            "delay_min_s": number["delay_min_s"].where(waits),
            "delay_max_s": number["delay_max_s"].where(waits),
            "delay_every": "batch",
            "burst_interval_s": number["burst_interval_s"].where(burst),
            "burst_size": number["burst_size_batches"].where(burst),
            "waited_s": wait.where(waits),
            "n_iterations": 1,
            "n_output_tokens_measured": batch * N_TOKENS * n_gpus,
            "setting": "",
            "sitting": "",
            ENERGY: np.nan,
        }
    ).sort_values(["model", "precision", "n_gpus", "batch_size", "latency_level"], ignore_index=True)
    levels = with_scales(with_levels(rows))
    return levels.assign(**{name: rows[name] for name in ("n_gpus", "latency_level")}, identity=identity(rows))


def identity(runs: pd.DataFrame) -> pd.Series:
    """One text for all that tells a setting of the grid from others."""
    names = ("model", "precision", "batch_size", "parallelism", "n_gpus", "decoding", "n_prompts", "traffic")
    numbers = ("n_input_tokens", "n_output_tokens", "sampling_temperature", "top_p", "delay_min_s", "delay_max_s")
    said = pd.Series("", index=runs.index)
    for name in (*names, *numbers, "delay_every", "burst_interval_s", "burst_size"):
        said += "|" + runs[name].map(lambda level: "" if pd.isna(level) else f"{level:g}" if _number(level) else level)
    return said


def _number(level: object) -> bool:
    return not isinstance(level, str)


def predictable(found: GridModel, grid: pd.DataFrame) -> np.ndarray:
    """For each setting why it cannot be predicted; empty where it can."""
    if found.chosen is None or found.chosen.fitted is None:
        why = next((one.reason for one in found.candidates if one.reason), "no setting can be left out")
        return np.full(len(grid), why, dtype=object)
    fitted = found.chosen.fitted
    decided = fitted.decided(fitted.predict(grid)[1]) if len(grid) else np.zeros(0, dtype=bool)
    reasons = np.where(decided, "", _UNTOLD).astype(object)
    lacking = np.full(len(grid), "", dtype=object)
    for factor in fitted.encoder.levels:
        counts = found.settings[factor].value_counts()
        for level in sorted(set(grid[factor])):
            if (n := int(counts.get(level, 0))) < _FEWEST:
                rows = (grid[factor] == level).to_numpy(bool)
                lacking[rows] += f"; {'only one' if n else 'no'} setting with {level} is measured"
    return np.where(lacking == "", reasons, [text.removeprefix("; ") for text in lacking])
