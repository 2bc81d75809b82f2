"""Frames in, figures out: each says its finding, shows its points, and can be read alone."""

from inference_energy.figures import (
    arrivals as arrivals,
    engines as engines,
    lengths as lengths,
    padding as padding,
    phases as phases,
    sizes as sizes,
)
from inference_energy.figures.agreement import anchors, interference
from inference_energy.figures.audit import audit_beside, audit_energy, audit_power
from inference_energy.figures.batch import batch_fit, batch_ratio, levels_by_batch, ratios
from inference_energy.figures.claims import claims_compared, claims_verdicts
from inference_energy.figures.decoding import decoding_ratio, decoding_temperature, decoding_trend
from inference_energy.figures.effects import factors, grid_check, grid_spread, interaction, level_effects
from inference_energy.figures.method import equivalence, warm_up
from inference_energy.figures.parallelism import several_gpus
from inference_energy.figures.precision import precision_ratio
from inference_energy.figures.quality import counter_against_power, ledger, time_use, trace, window_spread
from inference_energy.figures.report import flops, gaming, levers, regions, response
from inference_energy.figures.scenarios import scenario_energy, scenario_spread
from inference_energy.figures.speed import convexity, explanation, machine_use, pareto_front, roofline
from inference_energy.figures.spread import (
    boundary_spread,
    distribution,
    published_spread,
    smallest_effects,
    study_spread,
    variance_split,
)
from inference_energy.figures.style import Saved, save
from inference_energy.figures.traffic import waiting, waiting_power

__all__ = [
    "Saved",
    "anchors",
    "audit_beside",
    "audit_energy",
    "audit_power",
    "batch_fit",
    "batch_ratio",
    "boundary_spread",
    "claims_compared",
    "claims_verdicts",
    "convexity",
    "counter_against_power",
    "decoding_ratio",
    "decoding_temperature",
    "decoding_trend",
    "distribution",
    "equivalence",
    "explanation",
    "factors",
    "flops",
    "gaming",
    "grid_check",
    "grid_spread",
    "interaction",
    "interference",
    "ledger",
    "level_effects",
    "levels_by_batch",
    "levers",
    "machine_use",
    "pareto_front",
    "precision_ratio",
    "published_spread",
    "ratios",
    "regions",
    "response",
    "roofline",
    "save",
    "scenario_energy",
    "scenario_spread",
    "several_gpus",
    "smallest_effects",
    "study_spread",
    "time_use",
    "trace",
    "variance_split",
    "waiting",
    "waiting_power",
    "warm_up",
    "window_spread",
]
