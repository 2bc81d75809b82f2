"""Frames in, figures out: each says its finding, shows its points, and can be read alone."""

from inference_energy.figures.energy import (
    batch_curve,
    distribution,
    energy_against_throughput,
    throughput,
    variance,
)
from inference_energy.figures.method import equivalence, warm_up
from inference_energy.figures.quality import counter_against_power, ledger, time_use, trace, window_spread
from inference_energy.figures.report import response
from inference_energy.figures.studies import anchors, interference, parallelism, points, precision, traffic
from inference_energy.figures.style import Saved, save

__all__ = [
    "Saved",
    "anchors",
    "batch_curve",
    "counter_against_power",
    "distribution",
    "energy_against_throughput",
    "equivalence",
    "interference",
    "ledger",
    "parallelism",
    "points",
    "precision",
    "response",
    "save",
    "throughput",
    "time_use",
    "trace",
    "traffic",
    "variance",
    "warm_up",
    "window_spread",
]
