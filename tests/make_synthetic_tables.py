"""Write every table of a SYNTHETIC h200-pilot campaign: ``python tests/make_synthetic_tables.py FOLDER``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pandas as pd

sys.path.insert(0, str(Path(__file__).parent))

import synthetic

from inference_energy import tables
from inference_energy.aggregate import aggregate
from inference_energy.analyse.anchors import anchors
from inference_energy.analyse.batch_curve import batch_curve
from inference_energy.analyse.campaign_quality import campaign_quality
from inference_energy.analyse.equivalence import equivalence
from inference_energy.analyse.fold_range import fold_range
from inference_energy.analyse.interference import interference
from inference_energy.analyse.sittings import sittings
from inference_energy.analyse.variability import variability
from inference_energy.config import ResolvedCampaign
from inference_energy.design import expand
from inference_energy.records import Record


def all_tables(resolved: ResolvedCampaign, records: list[Record], n_bootstrap: int = 2000) -> dict[str, pd.DataFrame]:
    """Aggregated and analysed tables of a campaign."""
    found = aggregate(resolved, records)
    bootstrap: dict[str, Any] = {"confidence": 0.95, "n_bootstrap": n_bootstrap, "seed": 1}
    by_gpu = sittings(found["runs"], found["devices"]).table()
    quality = campaign_quality(
        found["runs"],
        found["intervals"],
        found["windows"],
        found["warnings"],
        by_gpu,
        n_planned_runs=len(expand(resolved)),
    )
    return found | {
        "sittings": by_gpu,
        "campaign_quality": quality.table(),
        "energy_summary": fold_range(found["runs"], **bootstrap).table(),
        "variability": variability(found["windows"], **bootstrap).table(),
        "batch_curve": batch_curve(found["runs"], **bootstrap).table(),
        "equivalence": equivalence(found["runs"], confidence=0.95, margin_fraction=0.02).table(),
        "anchors": anchors(found["runs"], margin_fraction=0.02).table(),
        "interference": interference(
            found["runs"], found["device_checks"], confidence=0.95, margin_fraction=0.02
        ).table(),
    }


def main(folder: Path) -> None:
    """Write them to `folder`."""
    resolved = synthetic.resolved_campaign()
    for name, frame in all_tables(resolved, synthetic.campaign_records(resolved)).items():
        tables.write(frame, tables.TABLES[name], folder)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
