"""A file of published records in, the tables of its audit out."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from inference_energy.audit.accountings import energies, trackers
from inference_energy.audit.judge import judged
from inference_energy.audit.mapping import Mapping, peak_rate, power_limit, read_mapping_of, read_table, to_records
from inference_energy.audit.records import Records
from inference_energy.facts import read_hardware, read_models
from inference_energy.tables import audits, conform


def audited(
    path: Path, mapping_path: Path, config_dir: Path, *, confidence: float, n_bootstrap: int, seed: int
) -> dict[str, pd.DataFrame]:
    """Every table of the audit of one published file, by name. None holds a row of the file.

    Parameters
    ----------
    path : Path
        ``.csv``, ``.csv.gz`` or ``.parquet``.
    mapping_path : Path
        What its columns mean (:class:`inference_energy.audit.mapping.Mapping`).
    config_dir : Path
        Where the facts of models and hardware are.
    confidence, n_bootstrap, seed
        Of the intervals.

    Raises
    ------
    AnalysisError
        If the file is missing or empty, or a mapped column is missing or not numbers.
    ConfigError
        If the mapping has an unknown key or a wrong unit, or nothing is known of its GPU.
    """
    mapping = read_mapping_of(mapping_path)
    hardware = read_hardware(config_dir / "hardware.yaml")
    limit_w, limit_source = power_limit(mapping, hardware, str(mapping_path))
    frame, sha256 = read_table(path)
    records = to_records(
        frame, mapping, limit_w, read_models(config_dir / "models.yaml"), str(path), peak_rate(mapping, hardware)
    )
    read = trackers(records, confidence=confidence, n_bootstrap=n_bootstrap, seed=seed)
    idle = {} if read.empty else dict(zip(read["group"], read["idle_gpu_power_w"], strict=True))
    found = {
        "audit_source": _source(mapping, records, sha256, limit_w, limit_source).assign(confidence=confidence),
        "audit_checks": judged(records),
        "audit_trackers": read,
        "audit_energy": energies(records, idle, confidence=confidence, n_bootstrap=n_bootstrap, seed=seed),
    }
    return {table.name: conform(found[table.name].reindex(columns=table.names), table) for table in audits.PUBLISHED}


def _source(mapping: Mapping, records: Records, sha256: str, limit_w: float, limit_source: str) -> pd.DataFrame:
    times = records.runs["ended_at"].dropna()
    return pd.DataFrame(
        [
            {
                "records": mapping.name,
                "title": mapping.title,
                "url": mapping.source.url,
                "commit": mapping.source.commit,
                "sha256": sha256,
                "sha256_expected": mapping.source.sha256,
                "n_runs": len(records.runs),
                "gpu_name": mapping.gpu,
                "n_gpus": mapping.n_gpus,
                "power_limit_w": limit_w,
                "power_limit_source": limit_source,
                "groups": ", ".join(sorted(records.runs["group"].dropna().unique())),
                "n_cycles": records.runs["cycle"].nunique(),
                "first_at": None if times.empty else times.min().isoformat(),
                "last_at": None if times.empty else times.max().isoformat(),
                "stated_source": mapping.stated.source,
                "note": mapping.note,
            }
        ]
    )
