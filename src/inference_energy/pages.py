"""What pages say of a campaign besides its tables: ``about.json`` and ``context.json``."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from inference_energy import __version__, provenance
from inference_energy.config import Analysis, Report, ResolvedCampaign
from inference_energy.facts import read_context
from inference_energy.records import Record, write_text_atomically

#: Packages whose versions decide what a page shows.
ANALYSIS_PACKAGES = ("numpy", "pandas", "scipy", "statsmodels", "matplotlib")


def write_about(resolved: ResolvedCampaign, records: Sequence[Record], path: Path) -> None:
    """Which campaign this is, where it was measured, and with what it was analysed.

    The commit is the one the records were measured at: it does not change when a page is made
    again, so the same records and the same source give the same bytes.
    """
    campaign = resolved.campaign
    about: dict[str, Any] = {
        "campaign": campaign.name,
        "title": campaign.title,
        "description": campaign.description,
        "studies": {name: study.question for name, study in campaign.studies.items()},
        "commit": _joined(record.provenance.commit and record.provenance.commit[:8] for record in records),
        "versions": {
            **{
                f"{name} (measured)": _joined(getattr(record.software, name) for record in records)
                for name in ("torch", "transformers", "codecarbon", "driver")
            },
            **_engines(records),
            **{name: provenance.version_of(name) or "unknown" for name in ANALYSIS_PACKAGES},
            "inference-energy": f"{__version__} (source {provenance.source_sha256()[:8]})",
        },
    }
    _write(path, about)


def _engines(records: Sequence[Record]) -> dict[str, str]:
    """Versions of engines that say theirs, such as vLLM."""
    known = [record.engine for record in records if record.engine is not None and record.engine.version]
    told = [(engine.name.removesuffix("_server"), engine.version) for engine in known]  # one package
    names = sorted({name for name, _ in told})
    return {f"{name} (measured)": _joined(version for of, version in told if of == name) for name in names}


def write_context(analysis: Analysis, report: Report, config_dir: Path, root: Path, path: Path) -> None:
    """What the report assumes, with every ``ASSUME:`` and ``SOURCE:`` note of the project."""
    content = {
        **report.model_dump(),
        "confidence": analysis.confidence,
        "context": read_context(config_dir / "context.yaml").model_dump(mode="json"),
        "notes": provenance.notes(root),
    }
    _write(path, content)


def _joined(values: Any) -> str:
    return ", ".join(sorted({str(value) for value in values if value})) or "unknown"


def _write(path: Path, content: dict[str, Any]) -> None:
    write_text_atomically(path, json.dumps(content, indent=1, ensure_ascii=False) + "\n")
