"""How many iterations fill a window."""

from __future__ import annotations

import math

from inference_energy.config import Measurement, Setting
from inference_energy.measure.traffic import expected_wait_s, period_batches


class Plan:
    """When a window is full.

    Where all iterations are alike, a window is full once it is long enough. Where they are not (a
    pause after every burst, a smaller batch at the end of a pass, prompts or answers of several
    lengths), the windows together hold whole periods of that pattern, shared out evenly: each mean
    over the windows is then one over periods. Where requests arrive by themselves, one window holds
    one iteration, which is the whole pass.

    Parameters
    ----------
    levels : Setting
        What is run.
    measurement : Measurement
        Number of windows and how long each must last.
    duration_s : float or None
        Of one warm iteration without waiting; None where none is known: then the shortest plan is
        made of it, one iteration a window and whole periods.

    Attributes
    ----------
    n_windows : int
        One where requests arrive by themselves, else those of `measurement`.
    n_iterations : int
        In all windows together: exactly, or as expected where windows are filled by the clock.
    """

    def __init__(self, levels: Setting, measurement: Measurement, duration_s: float | None) -> None:
        arriving = levels.arrival != "none"
        self.n_windows = 1 if arriving else measurement.n_windows
        self._window_min_s = 0.0 if arriving else measurement.window_min_s
        self.period = math.lcm(period_batches(levels), 1 if arriving else n_unlike(levels))
        per_iteration_s = (duration_s or math.inf) + expected_wait_s(levels)
        if self.period == 1:
            self.n_iterations = self.n_windows * max(1, math.ceil(self._window_min_s / per_iteration_s))
        else:
            n_least = max(self.n_windows, math.ceil(self.n_windows * self._window_min_s / per_iteration_s))
            self.n_iterations = self.period * math.ceil(n_least / self.period)

    def full(self, window: int, n_iterations: int, duration_s: float) -> bool:
        """Whether `window` is full with `n_iterations` that took `duration_s` seconds."""
        if self.period == 1:
            return n_iterations > 0 and duration_s >= self._window_min_s
        return n_iterations >= self._share(window + 1) - self._share(window)

    def _share(self, window: int) -> int:
        return self.n_iterations * window // self.n_windows


def n_unlike(levels: Setting) -> int:
    """Iterations after which their work is the same again: those of a pass where its batches differ, else 1."""
    uneven = levels.n_prompts_per_process % levels.batch_size != 0
    mixed = levels.input_length_cv > 0 or levels.output_length_cv > 0
    return levels.n_batches_per_pass if uneven or mixed else 1
