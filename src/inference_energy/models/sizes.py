"""Names of results on the size of models, numbers and machines, and laws of energy against size."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

ONE_GPU, FEWEST_JOULES = "one_gpu", "fewest_joules"
LINEAR, POWER, EXPONENTIAL = "linear", "power", "exponential"

CONSTANT = "energy_constant_j_per_output_token"
SLOPE = "energy_slope_j_per_output_token_and_billion_parameters"
AT_A_BILLION = "energy_at_a_billion_parameters_j_per_output_token"
EXPONENT = "exponent"
PER_TEN_BILLION = "energy_ratio_per_ten_billion_parameters"
#: Energy of models of so many billions of parameters, by each law's two numbers, and what these are called.
LAWS: dict[str, Callable[[Floats, float, float], Floats]] = {
    LINEAR: lambda sizes, constant, slope: constant + slope * sizes,
    POWER: lambda sizes, at_a_billion, exponent: at_a_billion * sizes**exponent,
    EXPONENTIAL: lambda sizes, constant, per_ten: constant * per_ten ** (sizes / 10),
}
NUMBERS = {LINEAR: (CONSTANT, SLOPE), POWER: (AT_A_BILLION, EXPONENT), EXPONENTIAL: (CONSTANT, PER_TEN_BILLION)}

AICC = "aicc"
LEFT_OUT = "left_out_error_fold"
EXPONENTIAL_OVER = "exponential_left_out_error_over_this_ratio"
R2 = "straight_line_r2"

TAKING_PART, MACHINE = "taking_part", "machine_of_four"
N_MACHINE_GPUS = 4
ENERGY_RATIO, SPEED_RATIO = "energy_per_output_token_ratio", "throughput_ratio"
FEWER_GPUS, SMALLER_MODEL = "fewer_gpus", "smaller_model"

PRECISION_PART, GPUS_PART, BOTH_PARTS = "precision", "gpus", "both"
PRECISION_SHARE = "precision_share_of_log_saving_fraction"
