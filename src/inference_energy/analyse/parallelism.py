"""What more GPUs cost per token, against one GPU, under three accountings."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd

from inference_energy.models.parallelism import (
    ENERGY_RATIO,
    EXPONENT,
    LARGE_BATCH,
    LEFT_OUT,
    MODERATION,
    SMALL_BATCH,
    THROUGHPUT_RATIO,
)
from inference_energy.pairs import PARALLELISM as FACTORS, RATIO, grounds, paired
from inference_energy.resample import Bootstrap
from inference_energy.tables import KEY, conform
from inference_energy.tables.serving import PARALLELISM

_QUANTITIES = {ENERGY_RATIO: "energy_j_per_output_token", THROUGHPUT_RATIO: "throughput_tokens_per_s"}
_CLAIMS = {2: "tp_2proc", 3: "tp_3proc", 4: "tp_4proc"}
#: What the published study did, so that its ratios stand beside ours there.
_PUBLISHED_AS = ("replicas_duplicated", "published", ENERGY_RATIO)
_KEYS = [column.name for column in KEY]


@dataclass(frozen=True)
class Parallelism:
    """Ratios to one GPU, how they grow, and whether the batch size changes them.

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
        """Rows of ``parallelism``."""
        return conform(self.estimates, PARALLELISM)


def parallelism(
    runs: pd.DataFrame,
    accountings: pd.DataFrame,
    claims: pd.DataFrame,
    *,
    small_batch: int = SMALL_BATCH,
    large_batch: int = LARGE_BATCH,
    confidence: float,
    n_bootstrap: int,
    seed: int,
) -> Parallelism:
    r"""Compare every run on several GPUs with the same on one, and see how the ratio grows.

    A run is paired with those on one GPU that are equal in all other factors, in its own sitting
    where there are any. Without simulated waiting the number of prompts of a pass changes nothing
    and may differ. Quantities, each under every accounting:

    ``energy_over_one_gpu_ratio``, ``throughput_over_one_gpu_ratio``
        :math:`r`, the geometric mean over settings (and for each setting, over its runs).
    ``energy_growth_exponent``
        :math:`\beta` of :math:`r = n^\beta`: the mean over settings of :math:`\log r / \log n`.
        0 is no growth, 1 in proportion to the GPUs, above 1 *superlinear*.
    ``energy_ratio_large_over_small_batch_ratio``
        Energy ratio at `large_batch` over that at `small_batch`, all else equal; 1 if the batch size
        does not moderate the effect.

    Intervals are over settings (:func:`inference_energy.resample.mean_over_settings`): Student's up to
    five, else a bootstrap. They know neither that settings of one model and batch size share their
    baseline, nor that pairs of one sitting share its host: on another the CPU may slow processes less.

    Parameters
    ----------
    runs, accountings : DataFrame
        The tables; a campaign on one GPU has no rows here. The code's scenarios stand aside.
    claims : DataFrame
        ``published/claims.csv``, all columns text; ``published_ratio`` comes from it.
    small_batch, large_batch : int
        Batch sizes that are compared.
    confidence, n_bootstrap, seed
        Of the bootstrap.

    References
    ----------
    Davison and Hinkley (1997), *Bootstrap Methods and their Application*, section 3.8.
    """
    runs = runs[runs["study"] != LEFT_OUT]
    several = runs[(runs["n_gpus"] > 1).fillna(False) & runs["energy_j_per_output_token"].notna()]
    kinds = several[["parallelism", "n_gpus"]].drop_duplicates().sort_values(["parallelism", "n_gpus"])
    published = claims[claims["study"] == "baker"].set_index("claim_id")["value"]
    bootstrap = Bootstrap(confidence, n_bootstrap, seed)
    comparable = runs.assign(n_prompts=runs["n_prompts"].where(runs["traffic"] != "none"))
    rows: list[dict[str, object]] = []
    for accounting, counted in accountings.groupby("accounting", sort=True) if len(kinds) else ():
        frame = comparable.drop(columns=list(_QUANTITIES.values())).merge(counted, on=_KEYS)
        for quantity, column in _QUANTITIES.items():
            pairs = paired(frame, FACTORS, frame["n_gpus"] == 1, column)
            about = {"quantity": quantity, "accounting": accounting}
            for kind, n in kinds.itertuples(index=False):
                of_kind = pairs[(pairs["parallelism"] == kind) & (pairs["n_gpus"] == n)]
                claim = _CLAIMS.get(int(n)) if (kind, accounting, quantity) == _PUBLISHED_AS else None
                said = float(published.get(claim, np.nan)) if claim else np.nan
                for row in _ratios(of_kind, bootstrap):
                    rows.append(about | {"parallelism": kind, "n_gpus": n, "published_ratio": said} | row)
            if quantity == ENERGY_RATIO:
                rows += [
                    {"accounting": accounting, "parallelism": kind} | row
                    for kind in kinds["parallelism"].unique()
                    for row in _growth(pairs[pairs["parallelism"] == kind], small_batch, large_batch, bootstrap)
                ]
    return Parallelism(pd.DataFrame(rows).reindex(columns=PARALLELISM.names), confidence)


def _ratios(pairs: pd.DataFrame, bootstrap: Bootstrap) -> Iterator[dict[str, object]]:
    """Over all settings, and of each."""
    everything = {"model": "all", "precision": "all", "setting": "all"}
    if pairs.empty:
        yield everything | grounds(pairs, "no run on one GPU that is equal in all other factors")
        return
    yield everything | bootstrap.geometric(pairs["setting"], pairs[RATIO]) | grounds(pairs)
    for setting, of_setting in pairs.groupby("setting", sort=True):
        levels = {name: of_setting[name].iloc[0] for name in ("model", "precision", "batch_size")}
        estimate = bootstrap.geometric(of_setting["setting"], of_setting[RATIO])
        yield levels | {"setting": setting} | estimate | grounds(of_setting)


def _growth(pairs: pd.DataFrame, small: int, large: int, bootstrap: Bootstrap) -> Iterator[dict[str, object]]:
    """The exponent, and the ratio at the large batch over that at the small one."""
    everything = {"model": "all", "precision": "all", "setting": "all"}
    exponent, moderation = everything | {"quantity": EXPONENT}, everything | {"quantity": MODERATION}
    if pairs.empty:
        yield exponent | grounds(pairs, "no run on one GPU that is equal in all other factors")
    else:
        exponents = np.log(pairs[RATIO].to_numpy(float)) / np.log(pairs["n_gpus"].to_numpy(float))
        yield exponent | bootstrap.arithmetic(pairs["setting"], exponents) | grounds(pairs)
    ratios = pairs[pairs["batch_size"].isin([small, large])].rename(columns={RATIO: "ratio"})
    both = paired(ratios, ["batch_size"], ratios["batch_size"] == small, "ratio")
    if both.empty:
        yield moderation | grounds(both, f"no pair at both batch {small} and batch {large}, all else equal")
    else:
        yield moderation | bootstrap.geometric(both["setting"], both[RATIO]) | grounds(both)
