"""Simulated waiting for requests: when the next batch of a process may start.

A delay precedes each batch (published code) or each query, of which a batch waits for all
(published text). With bursts, a pause comes after every `burst_size` of them. The published code
counts anew in each pass over the prompts, so the last, incomplete burst of a pass has no pause.

References
----------
The published grid's latency levels: ``resources/published``, ``baker_grid_latency_levels.csv``.
"""

from __future__ import annotations

import math

import numpy as np

from inference_energy.config import Setting

#: Sets the delays apart from everything else that is drawn from the campaign's seed.
_STREAM = 77


class Traffic:
    """The waiting of one process.

    Parameters
    ----------
    levels : Setting
        Delays are uniform between ``delay_min_s`` and ``delay_max_s``.
    seed, process : int
        The campaign's seed, and the number of the process: each has delays of its own.
    """

    def __init__(self, levels: Setting, seed: int, process: int) -> None:
        self._levels = levels
        self._rng = np.random.default_rng([seed, process, _STREAM])
        self._delays_s: list[float] = []  # of each batch so far: a batch asked for again waits as long

    def wait_s(self, batch: int) -> float:
        """Seconds to wait before batch number `batch`, counted from 0 over all passes of the run."""
        levels = self._levels
        if levels.delay_min_s is None or levels.delay_max_s is None:
            return 0.0
        while len(self._delays_s) <= batch:
            n = _n_arrivals(levels, len(self._delays_s))
            self._delays_s.append(float(self._rng.uniform(levels.delay_min_s, levels.delay_max_s, n).sum()))
        return self._delays_s[batch] + n_pauses(levels, batch) * (levels.burst_interval_s or 0.0)


def n_pauses(levels: Setting, batch: int) -> int:
    """Pauses between bursts that fall before batch number `batch`, counted from 0, or between its queries."""
    size = levels.burst_size
    if size is None:
        return 0
    first = _first_arrival(levels, batch)
    # At a new pass, only a burst that the pass before completed has its pause here; a run begins without.
    new_pass = batch > 0 and _n_arrivals_per_pass(levels) % size == 0
    before = first % size == 0 if first else new_pass
    last = first + _n_arrivals(levels, batch) - 1
    return int(before) + last // size - first // size


def period_batches(levels: Setting) -> int:
    """After how many batches the pattern of pauses repeats; 1 where there are none."""
    size = levels.burst_size
    if size is None or (levels.n_prompts is not None and _n_arrivals_per_pass(levels) < size):
        return 1
    together = 1 if levels.delay_every == "batch" else levels.batch_size
    period = size // math.gcd(size, together)
    if levels.n_prompts is None:
        return period
    repeats = levels.n_batches_per_pass % period == 0 and _n_arrivals_per_pass(levels) % size == 0
    return period if repeats else levels.n_batches_per_pass


def expected_wait_s(levels: Setting) -> float:
    """Mean wait before a batch, in seconds, over a pass (over a period of the pauses where batches never end)."""
    if levels.delay_min_s is None or levels.delay_max_s is None:
        return 0.0
    n = period_batches(levels) if levels.n_prompts is None else levels.n_batches_per_pass
    batches = range(n, 2 * n)  # the very first batch of a run lacks its pause
    delays_s = sum(_n_arrivals(levels, i) for i in batches) * (levels.delay_min_s + levels.delay_max_s) / 2
    return (delays_s + sum(n_pauses(levels, i) for i in batches) * (levels.burst_interval_s or 0.0)) / n


def _n_arrivals_per_pass(levels: Setting) -> int:
    """What delays precede in a pass: batches or queries of one process."""
    return levels.n_batches_per_pass if levels.delay_every == "batch" else levels.n_prompts_per_process


def _first_arrival(levels: Setting, batch: int) -> int:
    """Number within the pass of the first arrival that `batch` waits for; without passes it runs on."""
    position = batch if levels.n_prompts is None else batch % levels.n_batches_per_pass
    return position if levels.delay_every == "batch" else position * levels.batch_size


def _n_arrivals(levels: Setting, batch: int) -> int:
    """Batches or queries that `batch` waits for: itself, or its prompts."""
    if levels.delay_every == "batch":
        return 1
    if levels.n_prompts is None:
        return levels.batch_size
    return min(levels.batch_size, levels.n_prompts_per_process - _first_arrival(levels, batch))
