"""Write every table of a SYNTHETIC h200-pilot campaign: ``python tests/make_synthetic_tables.py FOLDER``."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path

import pandas as pd

sys.path.insert(0, str(Path(__file__).parent))

import synthetic

from inference_energy import tables
from inference_energy.aggregate import aggregate
from inference_energy.config import ResolvedCampaign, read_hardware
from inference_energy.design import expand
from inference_energy.questions import QUESTIONS, Statistics, answered
from inference_energy.records import Record

RESOURCES = Path(__file__).resolve().parents[1] / "resources"


def all_tables(
    resolved: ResolvedCampaign, records: list[Record], n_bootstrap: int = 2000, questions: Iterable[str] = QUESTIONS
) -> dict[str, pd.DataFrame]:
    """Aggregated tables of a campaign, and those of `questions`."""
    known = read_hardware(synthetic.REPOSITORY / "config/hardware.yaml")
    found = aggregate(resolved, records, hardware={"SYNTHETIC GPU": known["NVIDIA H200"]})
    statistics = Statistics(
        confidence=0.95,
        n_bootstrap=n_bootstrap,
        seed=1,
        margin_fraction=0.02,
        decoding_margin_fraction=0.05,
        time_to_first_token_max_s=2.0,
        inter_token_latency_max_s=0.1,
        n_planned_runs=len(expand(resolved)),
    )
    for question in questions:
        found[question] = answered(question, found.__getitem__, statistics, RESOURCES)
    return found


def main(folder: Path) -> None:
    """Write them to `folder`."""
    resolved = synthetic.resolved_campaign()
    for name, frame in all_tables(resolved, synthetic.campaign_records(resolved)).items():
        tables.write(frame, tables.TABLES[name], folder)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
