"""How often do the bootstrap's intervals hold the truth? Prints a table; ``python benchmarks/bootstrap_coverage.py``.

Settings are drawn from a population whose statistics are known exactly, each is measured in two cycles with an error of
5 %, and the share of simulated campaigns whose 95 % interval holds the population's value is counted.
"""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from inference_energy.analyse.fold_range import statistics
from inference_energy.resample import interval, setting_means, smoothed

Floats = NDArray[np.float64]

CONFIDENCE, ERROR_CV, N_CYCLES = 0.95, 0.05, 2
SIZES = (30, 60, 120, 450)

SHOWN = (
    "energy_mean_j_per_output_token",
    "cv",
    "energy_p05_j_per_output_token",
    "energy_p50_j_per_output_token",
    "energy_p95_j_per_output_token",
    "p95_over_p5_fold",
    "p95_over_p50_fold",
    "p50_over_p5_fold",
    "max_over_min_fold",
    "log_skewness_ratio",
)


def grid_logs() -> Floats:
    """Log energies of a grid of 2,112 settings: model, precision, batch size, waiting, processes.

    Sizes of the effects are near those that `h200` showed: energy falls as batch^-0.85, waiting
    costs up to a factor 3, and more for small batches.
    """
    models, precisions, processes = np.log([1, 2]), np.log([2.0, 1.0, 1.9, 1.4]), np.log([1, 1.3, 1.5, 1.8])
    levels = itertools.product(np.log([2, 4, 8, 16, 32, 64]), np.linspace(0, 1.2, 11), models, precisions, processes)
    return np.array(
        [-0.85 * batch + 0.9 * wait * (1 - 0.1 * batch) + model + kind + n for batch, wait, model, kind, n in levels]
    )


def lognormal_logs(sd: float) -> Floats:
    """Log energies at a million percentiles of a normal distribution: tails without bounds."""
    rng = np.random.default_rng(0)
    return np.asarray(rng.normal(0, sd, 1_000_000))


POPULATIONS: dict[str, Callable[[], Floats]] = {
    "grid": grid_logs,
    "log-normal, sd 0.9": lambda: lognormal_logs(0.9),
    "log-normal, sd 1.2": lambda: lognormal_logs(1.2),
}


def coverage(logs: Floats, n_settings: int, n_campaigns: int, n_bootstrap: int, seed: int) -> dict[str, float]:
    """Share of simulated campaigns whose interval holds the population's value, by statistic.

    Parameters
    ----------
    logs : ndarray
        Logarithms of the population's energies.
    n_settings, n_campaigns, n_bootstrap, seed
        Size of a campaign, number of campaigns, resamples of each.
    """
    truth = {name: float(value[0]) for name, value in statistics(np.exp(logs)[None]).items()}
    rng = np.random.default_rng(seed)
    hits = dict.fromkeys(SHOWN, 0)
    for _ in range(n_campaigns):
        settings = rng.choice(logs, n_settings)
        values = np.exp(settings[:, None] + ERROR_CV * rng.standard_normal((n_settings, N_CYCLES)))
        resampled = statistics(smoothed(setting_means(values, n_bootstrap, rng), values, rng))
        for name in SHOWN:
            low, high = interval(resampled[name], CONFIDENCE)
            hits[name] += bool(low <= truth[name] <= high)
    return {name: hit / n_campaigns for name, hit in hits.items()}


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--n-campaigns", type=int, default=1000)
    parser.add_argument("--n-bootstrap", type=int, default=500)
    options = parser.parse_args()
    print("| population | settings | " + " | ".join(SHOWN) + " |")
    print("| --- " * (len(SHOWN) + 2) + "|")
    for name, population in POPULATIONS.items():
        logs = population()
        for n_settings in SIZES:
            found = coverage(logs, n_settings, options.n_campaigns, options.n_bootstrap, seed=1)
            print(f"| {name} | {n_settings} | " + " | ".join(f"{found[each]:.3f}" for each in SHOWN) + " |", flush=True)


if __name__ == "__main__":
    main()
