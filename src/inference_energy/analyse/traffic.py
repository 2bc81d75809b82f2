"""What simulated waiting costs: against none, per second, in bursts, before queries or batches."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from inference_energy.models.traffic import (
    ALL,
    BURST,
    CONSTANT,
    ENERGY,
    LARGE,
    OVER_IDLE,
    OVER_NONE,
    PAIRED,
    PER_SECOND,
    POWER,
    QUERY,
    SAME_WAITING,
    SMALL,
    SMALL_BURST_MAX,
)
from inference_energy.pairs import RATIO, TRAFFIC as FACTORS, grounds, paired
from inference_energy.resample import Bootstrap, by_setting, interval, setting_means
from inference_energy.tables import conform
from inference_energy.tables.serving import TRAFFIC

_NOT_NEAR = "no such run has its equal without waiting in the same sitting"
_GROUP = ["model", "precision", "batch_size"]
_EVERYTHING = {"model": "all", "precision": "all", "setting": "all"}


@dataclass(frozen=True)
class Traffic:
    """What waiting costs.

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
        """Rows of ``traffic``."""
        return conform(self.estimates, TRAFFIC)


def traffic(runs: pd.DataFrame, *, confidence: float, n_bootstrap: int, seed: int) -> Traffic:
    r"""Compare every run that waits with the same without waiting, and see what a second costs.

    Runs of all studies on one GPU count (with several, each process waits by itself, and the others
    for it). A run is paired with those that do not wait and are equal in all other factors, in its
    own sitting where there are any; the number of prompts of a pass may differ.

    ``energy_over_no_waiting_ratio``
        Energy per token over that without waiting: geometric mean.
    ``energy_j_per_output_token_per_waited_s``
        :math:`\sum w \Delta e / \sum w^2`: additional J per output token for each second *w* of mean
        waiting before a batch, a slope through the origin (no waiting costs nothing more).
    ``waiting_power_w``
        The same of the energy of a batch: additional joules for each second waited, in watts. It does
        not depend on the batch size.
    ``waiting_over_idle_loaded_power_ratio``
        The physical check: that power over the power of the idle GPU with the model loaded, measured in
        the same runs (their mean weighed by *w* squared); 1 if waiting is idling and costs nothing else.
    ``same_waiting_cost_ratio``
        Waiting power of one kind of waiting over that of another: as energy rises in proportion to
        waiting, this is the ratio of the additional energies at the same mean waiting.
    ``energy_ratio``
        Energy per token of runs that are equal in all but one level: delays before each query over
        before each batch, small bursts over large. They do not wait equally long.

    All but the two ratios of energies rest on pairs within a sitting: between hosts a batch's energy
    differs by more than its waiting costs. Intervals of ratios are Student's up to five settings; all
    others resample settings and, within them, runs.

    Parameters
    ----------
    runs : DataFrame
        The ``runs`` table; a campaign without waiting has no rows here.
    confidence, n_bootstrap, seed
        Of the bootstrap.

    References
    ----------
    Davison and Hinkley (1997), *Bootstrap Methods and their Application*, sections 2.3 and 3.8.
    """
    alone = runs[(runs["n_gpus"] <= 1).fillna(False) & runs[ENERGY].notna()]
    waiting = (alone["traffic"] != "none").fillna(False)
    if not waiting.any():
        return Traffic(pd.DataFrame(columns=TRAFFIC.names), confidence)
    bootstrap = Bootstrap(confidence, n_bootstrap, seed)
    pairs = _with_costs(paired(alone, [*FACTORS, "n_prompts"], ~waiting))
    rows: list[dict[str, object]] = []
    for words, chosen in _kinds(pairs).items():
        about = {"waiting": words, "waited_s": chosen["wait"].mean()} | _EVERYTHING
        rows += [about | row for row in _costs(chosen, bootstrap)]
    for _, chosen in pairs.groupby(_GROUP, sort=True):
        levels = {name: chosen[name].iloc[0] for name in _GROUP}
        about = {"waiting": ALL, "waited_s": chosen["wait"].mean(), "setting": "all"} | levels
        rows += [about | row for row in _costs(chosen, bootstrap)]
        rows.append(about | {"quantity": PER_SECOND} | _slope(chosen, "extra_j_per_output_token", bootstrap))
    rows += _each_setting(pairs, bootstrap)
    rows += _same_waiting(pairs, bootstrap)
    rows += _equal_but_one(alone, bootstrap)
    return Traffic(pd.DataFrame(rows).reindex(columns=TRAFFIC.names), confidence)


def _kinds(pairs: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Rows of each kind of waiting; bursts are small or large where delays precede batches."""
    burst, per_query = pairs["traffic"] == "burst", pairs["delay_every"] == "query"
    small = pairs["burst_size"] <= SMALL_BURST_MAX
    masks = {
        ALL: burst | ~burst,
        CONSTANT: ~burst & ~per_query,
        QUERY: ~burst & per_query,
        BURST: burst,
        SMALL: burst & small,
        LARGE: burst & ~small,
    }
    return {words: pairs[mask.fillna(False).astype(bool)] for words, mask in masks.items()}


def _with_costs(pairs: pd.DataFrame) -> pd.DataFrame:
    """Mean waiting before a batch, and what it adds to the energy of a token and of a batch."""
    energy = pairs[ENERGY].astype(float)
    iterations = pairs["n_iterations"].astype(float)
    extra = energy - energy / pairs[RATIO]
    return pairs.assign(
        wait=pairs["waited_s"].astype(float) / iterations,
        extra_j_per_output_token=extra,
        extra_j_per_batch=extra * pairs["n_output_tokens_measured"].astype(float) / iterations,
    )


def _costs(pairs: pd.DataFrame, bootstrap: Bootstrap) -> Iterator[dict[str, object]]:
    """Ratio to no waiting, waiting power, and that over the idle power with the model loaded."""
    if pairs.empty:
        yield {"quantity": OVER_NONE} | grounds(pairs, "no such run has its equal without waiting")
    else:
        yield {"quantity": OVER_NONE} | bootstrap.geometric(pairs["setting"], pairs[RATIO]) | grounds(pairs)
    yield {"quantity": POWER} | _slope(pairs, "extra_j_per_batch", bootstrap)
    near = _near(pairs)
    near = near[near["idle_loaded_power_w"].notna()]
    if near.empty:
        yield {"quantity": OVER_IDLE} | grounds(near, _NOT_NEAR)
        return
    near = near.assign(idle_j_per_batch=near["idle_loaded_power_w"].astype(float) * near["wait"])
    waiting, resampled = _slopes(near, "extra_j_per_batch", bootstrap)
    idle, idle_resampled = _slopes(near, "idle_j_per_batch", bootstrap)  # of the same draws
    yield (
        {"quantity": OVER_IDLE}
        | _ends(waiting / idle, resampled / idle_resampled, len(near), bootstrap)
        | grounds(near)
    )


def _near(pairs: pd.DataFrame) -> pd.DataFrame:
    """Pairs within a sitting: between hosts a batch differs by more than a wait costs."""
    return pairs[(pairs["matched"] == "sitting") & (pairs["wait"] > 0)]


def _slope(pairs: pd.DataFrame, cost: str, bootstrap: Bootstrap) -> dict[str, object]:
    near = _near(pairs)
    if near.empty:
        return grounds(near, _NOT_NEAR)
    return _ends(*_slopes(near, cost, bootstrap), len(near), bootstrap) | grounds(near)


def _slopes(pairs: pd.DataFrame, cost: str, bootstrap: Bootstrap) -> tuple[float, NDArray[np.float64]]:
    """Slope through the origin of `cost` on seconds waited, and those of resamples of settings and runs."""
    xs, ys = pairs["wait"].to_numpy(float), pairs[cost].to_numpy(float)
    products, squares = by_setting(pairs["setting"], xs * ys), by_setting(pairs["setting"], xs * xs)
    # The same seed draws the same settings and runs for both sums.
    above, below = (
        setting_means(values, bootstrap.n_bootstrap, np.random.default_rng(bootstrap.seed)).mean(axis=1)
        for values in (products, squares)
    )
    return float(np.nanmean(products, axis=1).mean() / np.nanmean(squares, axis=1).mean()), above / below


def _ends(estimate: float, resampled: NDArray[np.float64], n: int, bootstrap: Bootstrap) -> dict[str, float]:
    """An estimate from `n` pairs with its interval."""
    low, high = interval(resampled, bootstrap.confidence) if n > 1 else (np.nan, np.nan)
    return {"estimate": estimate, "estimate_low": float(low), "estimate_high": float(high)}


def _each_setting(pairs: pd.DataFrame, bootstrap: Bootstrap) -> Iterator[dict[str, object]]:
    for words, chosen in _kinds(pairs).items():
        if words in (ALL, SMALL, LARGE):  # each setting once
            continue
        for setting, of_setting in chosen.groupby("setting", sort=True):
            levels = {name: of_setting[name].iloc[0] for name in _GROUP}
            about = {"quantity": OVER_NONE, "waiting": words, "setting": setting, "waited_s": of_setting["wait"].mean()}
            yield about | levels | bootstrap.geometric(of_setting["setting"], of_setting[RATIO]) | grounds(of_setting)


def _same_waiting(pairs: pd.DataFrame, bootstrap: Bootstrap) -> Iterator[dict[str, object]]:
    """The cost of a second of one kind of waiting over that of another."""
    kinds = {words: _near(chosen) for words, chosen in _kinds(pairs).items()}
    for first, second in ((BURST, CONSTANT), (QUERY, CONSTANT), (SMALL, LARGE)):
        about = {"quantity": SAME_WAITING, "waiting": f"{first} over {second}"} | _EVERYTHING
        both = pd.concat([kinds[first], kinds[second]])
        lacking = [words for words in (first, second) if kinds[words].empty]
        if lacking:
            yield about | grounds(both, f"{_NOT_NEAR}, of {' and '.join(lacking)}")
            continue
        above, resampled_above = _slopes(kinds[first], "extra_j_per_batch", bootstrap)
        other = replace(bootstrap, seed=bootstrap.seed + 1)  # other settings, drawn on their own
        below, resampled_below = _slopes(kinds[second], "extra_j_per_batch", other)
        fewest = min(len(kinds[first]), len(kinds[second]))
        estimate = _ends(above / below, resampled_above / resampled_below, fewest, bootstrap)
        yield about | estimate | grounds(both, "one pair of a kind: no interval" if fewest == 1 else None)


def _equal_but_one(alone: pd.DataFrame, bootstrap: Bootstrap) -> Iterator[dict[str, object]]:
    """Runs that are equal in all but what delays precede, or but the size of their bursts."""
    burst, per_query = alone["traffic"] == "burst", alone["delay_every"] == "query"
    large = alone["burst_size"] > SMALL_BURST_MAX
    for factor, of_kind, words, baseline, wanted in (
        ("delay_every", alone[~burst & (alone["traffic"] != "none")], QUERY, ~per_query, CONSTANT),
        ("burst_size", alone[burst], SMALL, large, LARGE),
    ):
        about = {"quantity": PAIRED, "waiting": f"{words} over {wanted}"} | _EVERYTHING
        pairs = paired(of_kind, [factor], baseline.reindex(of_kind.index))
        if pairs.empty:
            yield about | grounds(pairs, "no two runs are equal in all else")
            continue
        wait = (pairs["waited_s"].astype(float) / pairs["n_iterations"].astype(float)).mean()
        yield about | {"waited_s": wait} | bootstrap.geometric(pairs["setting"], pairs[RATIO]) | grounds(pairs)
