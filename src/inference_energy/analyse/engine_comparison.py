"""How much energy does the engine decide, all else equal? Transformers, vLLM's eager mode, and its CUDA graphs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd

from inference_energy.models.curves import of_study
from inference_energy.models.engines import (
    BASE,
    EAGER,
    ENGINES,
    GRAPHS,
    MANY,
    NET,
    OF_BATCH,
    OF_ENGINE,
    ONE,
    QUANTITIES,
    RATIOS,
    THROUGHPUT,
    TOTAL,
    TRANSFORMERS,
    with_components,
)
from inference_energy.models.repetitions import paired_ends, pooled
from inference_energy.pairs import ENERGY, RATIO, grounds, paired
from inference_energy.resample import Bootstrap
from inference_energy.tables import FACTORS, conform
from inference_energy.tables.engines import ENGINE_COMPARISON

#: Engines and what they are divided by. At the same batch, and transformers one by one over vLLM with many at once.
SAME_BATCH = ((TRANSFORMERS, EAGER), (TRANSFORMERS, GRAPHS), (EAGER, GRAPHS))
ONE_OVER_MANY = ((TRANSFORMERS, EAGER), (TRANSFORMERS, GRAPHS))
#: Claims of Wetzel on transformers over vLLM; speed is stated the other way round.
_CLAIMS = {TOTAL: "vllm_fold", NET: "vllm_nonidle_fold", BASE: "vllm_idle_fold", THROUGHPUT: "vllm_speed"}
_SHOWN = ["setting", "sitting", "model", "batch_size"]
_PAIRED = [RATIO, "matched", "n_baseline_runs"]
_NEEDED = [*(column.name for column in FACTORS), "study", "setting", "cycle", "sitting", "words", *QUANTITIES]
_ESTIMATE = ("estimate", "estimate_low", "estimate_high")
N_SETTINGS_MIN = 3  # fewer settings say nothing of the spread between settings


@dataclass(frozen=True)
class EngineComparison:
    """Quantities of engines and their ratios.

    Attributes
    ----------
    estimates : DataFrame
        One row an estimate.
    confidence : float
        Level of the intervals.
    """

    estimates: pd.DataFrame
    confidence: float

    def table(self) -> pd.DataFrame:
        """Rows of ``engine_comparison``."""
        return conform(self.estimates, ENGINE_COMPARISON)


def engine_comparison(
    runs: pd.DataFrame,
    claims: pd.DataFrame,
    *,
    study: str = "engine",
    confidence: float,
    n_bootstrap: int,
    seed: int,
) -> EngineComparison:
    """Quantities of every engine by model and batch size, and their ratios.

    Energy, throughput, power, and what energy consists of (:func:`inference_energy.models.engines.with_components`).
    Ratios are *transformers over vLLM* and *eager mode over CUDA graphs*, each run over those equal in all other
    factors, in its own sitting where there are any (:func:`inference_energy.pairs.paired`). Twice:

    - *at the same batch size*: the engine alone differs;
    - *transformers one by one over vLLM with many prompts at once*: the batch differs too, as where a script that
      answers prompts in turn is replaced by an engine that schedules them.

    *Of one model and batch size*: the geometric mean over its runs, with Student's interval and a spread pooled over
    all settings of the comparison (:mod:`inference_energy.models.repetitions`). Settings bound by the CPU scatter more
    than others: for them the pooled interval is too narrow, for the others too wide.

    *Over models*: the geometric mean of the settings' means with the interval of
    :func:`inference_energy.resample.mean_over_settings`, from three settings on.

    Parameters
    ----------
    runs : DataFrame
        The ``runs`` table; runs without energy are left out. A campaign without `study` has an empty table.
    claims : DataFrame
        ``published/claims.csv``, all columns text; ``published_ratio`` comes from it.
    study : str
        Its settings are taken, in whatever study they were measured.
    confidence, n_bootstrap, seed
        Of the intervals.

    Raises
    ------
    AnalysisError
        If a value is not above 0.
    """
    known = with_components(of_study(runs, study, ENERGY))[_NEEDED]
    published = claims[claims["study"] == "wetzel"].set_index("claim_id")["value"].astype(float)
    bootstrap = Bootstrap(confidence, n_bootstrap, seed)
    rows: list[dict[str, object]] = []
    for quantity in QUANTITIES:
        of_quantity = known[known[quantity].notna()]
        values = of_quantity[[*_SHOWN, "words", quantity]]
        for engine in ENGINES:
            about: dict[str, object] = {"quantity": quantity, "engine": engine}
            rows += [about | row for row in _levels(values[values["words"] == engine], quantity, confidence)]
        said = published.get(_CLAIMS.get(quantity, ""), np.nan)
        said = 1 / said if quantity == THROUGHPUT else said
        for compared, pairs in _compared(of_quantity, quantity) if quantity in RATIOS else ():
            about = compared | {
                "quantity": quantity,
                "published_ratio": said if compared["engine"] == TRANSFORMERS else np.nan,
            }
            found = [*_ratios(pairs, values, quantity, confidence), *_over_models(pairs, bootstrap)]
            rows += [{"baseline_batch_size": row["batch_size"]} | about | row for row in found]
    return EngineComparison(pd.DataFrame(rows, columns=ENGINE_COMPARISON.names), confidence)


def _compared(known: pd.DataFrame, quantity: str) -> Iterator[tuple[dict[str, object], pd.DataFrame]]:
    """Every comparison that the campaign has: what is divided by what, and the pairs."""
    one, many = known["batch_size"] == ONE, known["batch_size"] == MANY
    for same in (True, False):
        factors = OF_ENGINE if same else (*OF_ENGINE, *OF_BATCH)
        for engine, baseline in SAME_BATCH if same else ONE_OVER_MANY:
            above, below = known["words"] == engine, known["words"] == baseline
            if not same:
                above, below = above & one, below & many
            if not (above.any() and below.any()):
                continue
            pairs = paired(known[above | below], factors, below, quantity)[[*_SHOWN, *_PAIRED]]
            if len(pairs):
                yield {"engine": engine, "baseline": baseline} | ({} if same else {"baseline_batch_size": MANY}), pairs


def _levels(runs: pd.DataFrame, quantity: str, confidence: float) -> Iterator[dict[str, object]]:
    """Geometric mean over the runs of every setting."""
    spread = pooled(runs, quantity)
    for _, of_setting in runs.groupby("setting", sort=True):
        mean = float(np.log(of_setting[quantity].astype(float)).mean())
        ends = spread.ends(mean, len(of_setting), confidence)
        note = None if spread.known else spread.why_none()
        yield _of(of_setting) | dict(zip(_ESTIMATE, ends, strict=True)) | {
            "n_settings": 1, "n_pairs": len(of_setting), "note": note
        }  # fmt: skip


def _ratios(pairs: pd.DataFrame, runs: pd.DataFrame, quantity: str, confidence: float) -> Iterator[dict[str, object]]:
    """Geometric mean over the pairs of every setting."""
    for _, of_setting in pairs.groupby("setting", sort=True):
        ends, how = paired_ends(of_setting, pairs, runs, quantity, confidence)
        row = _of(of_setting) | dict(zip(_ESTIMATE, ends, strict=True))
        yield row | grounds(of_setting, pooled=True) | how


def _over_models(pairs: pd.DataFrame, bootstrap: Bootstrap) -> Iterator[dict[str, object]]:
    """Of all models: at every batch size, and over these."""
    groups: list[tuple[object, pd.DataFrame]] = list(pairs.groupby("batch_size", sort=True))
    for batch_size, within in groups + ([(None, pairs)] if len(groups) > 1 else []):
        row = {"model": "all", "batch_size": batch_size} | bootstrap.geometric(within["setting"], within[RATIO])
        if (n := within["setting"].nunique()) >= N_SETTINGS_MIN:
            yield row | grounds(within)
        else:
            reason = f"no interval, because one over models takes {N_SETTINGS_MIN} settings and there are {n}"
            yield row | dict.fromkeys(_ESTIMATE[1:], np.nan) | grounds(within, reason)


def _of(runs: pd.DataFrame) -> dict[str, object]:
    return {"model": runs["model"].iloc[0], "batch_size": runs["batch_size"].iloc[0]}
