"""Which campaign results are of: what every page ends with. It imports nothing heavy, so that a page starts at once."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from inference_energy.errors import AnalysisError


@dataclass(frozen=True)
class About:
    """Which campaign this is: ``tables/about.json``."""

    campaign: str
    title: str
    description: str
    studies: Mapping[str, str]
    commit: str
    versions: Mapping[str, str]


def read_about(path: Path) -> About:
    """Read ``about.json``: campaign, title, description, studies (name: question), commit, versions.

    Raises
    ------
    AnalysisError
        If the file is missing or a key is missing or unknown.
    """
    content = read_keys(path, {"campaign", "title", "description", "studies", "commit", "versions"})
    return About(**content)


def footer(about: About) -> dict[str, str]:
    """What every page ends with: campaign, commit and versions."""
    versions = ", ".join(f"{name} {version}" for name, version in sorted(about.versions.items()))
    return {"Campaign": f"{about.campaign}: {about.title}", "Commit": about.commit, "Versions": versions}


def read_keys(path: Path, keys: set[str]) -> dict[str, Any]:
    """Read JSON that has these keys and no others.

    Raises
    ------
    AnalysisError
        If the file is missing or its keys are others.
    """
    try:
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise AnalysisError(str(path), "no such file", "", "Make it: snakemake --cores all") from None
    if set(content) != keys:
        raise AnalysisError(
            str(path), f"keys are {sorted(content)}", f"the keys {sorted(keys)}", "Delete it and run Snakemake again"
        )
    return content
