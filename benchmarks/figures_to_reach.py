"""The figures that the first version was to reach: goal and what is seen, as a Markdown table.

Energies and times of the measuring come from the archived campaign; the times of the workflow are
taken here, in a temporary folder. README.md says how to run this and what was seen.
"""

from __future__ import annotations

import argparse
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

ROOT = Path(__file__).resolve().parents[1]
REPEATS = 3


@dataclass(frozen=True)
class Figure:
    """One line of the table."""

    what: str
    goal: str
    seen: str
    reached: bool
    how: str


def main() -> None:
    """Print the table; exit with 1 if a figure is not reached."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--archive", type=Path, default=ROOT / "results" / "h200-pilot", help="an archived campaign")
    parser.add_argument("--config", nargs="*", default=[], metavar="KEY=VALUE", help="more for snakemake --config")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        results = Path(name)
        workflow = _workflow(options.archive, options.config, results)
        tables = results / options.archive.name / "tables"
        figures = [*_measuring(pd.read_parquet(tables / "runs.parquet"), _quality(tables)), *workflow]
    print(f"{platform.node()}: {os.cpu_count()} cores, Python {platform.python_version()}\n")
    print("| what | goal | seen | | how |\n| --- | --- | --- | --- | --- |")
    for each in figures:
        print(f"| {each.what} | {each.goal} | {each.seen} | {'reached' if each.reached else 'missed'} | {each.how} |")
    sys.exit(0 if all(each.reached for each in figures) else 1)


def _quality(tables: Path) -> pd.Series:
    """The line of `campaign_quality` over all sittings."""
    quality = pd.read_parquet(tables / "campaign_quality.parquet")
    return quality[quality["sitting"] == "all"].iloc[0]


def _measuring(runs: pd.DataFrame, quality: pd.Series) -> list[Figure]:
    """What the archived campaign says."""
    small = (runs["model"] == "llama-3.2-1b") & (runs["precision"] == "float16") & (runs["status"] == "ok")
    forked = runs.loc[small & (runs["launcher"] == "fork"), "started_to_first_iteration_s"]
    cold = runs.loc[small & (runs["launcher"] == "cold"), "started_to_first_iteration_s"]
    # The first run of a sitting waits for the parent to import: it starts as a cold one does.
    waited = forked[forked > 0.5 * cold.min()]
    quick = forked.drop(waited.index)
    ratio = quality["counter_over_power_median_ratio"]
    share = quality["measured_fraction"]
    closure = quality["ledger_closure_fraction"]
    return [
        Figure(
            "forked start to first warm-up iteration, 1B fp16",
            "≤ 1.0 s",
            f"median {quick.median():.2f} s, longest {quick.max():.2f} s of {len(quick)} runs"
            f" ({len(waited)} more waited for the parent: {waited.max():.1f} s; cold: {cold.median():.1f} s)",
            quick.max() <= 1.0,
            "runs: started_to_first_iteration_s",
        ),
        Figure(
            "R: measured over wall seconds",
            "≥ 0.6, aim for 0.85",
            f"{share:.2f}",
            share >= 0.6,
            "campaign_quality: measured_fraction",
        ),
        Figure(
            "counter over integrated instant power, median",
            "1 within 1 %",
            f"{ratio:.4f}",
            abs(ratio - 1) <= 0.01,
            "campaign_quality: counter_over_power_median_ratio",
        ),
        Figure(
            "ledger",
            "closes within 2 %",
            f"{closure:.2%}",
            abs(closure) <= 0.02,
            "campaign_quality: ledger_closure_fraction",
        ),
    ]


def _workflow(archive: Path, config: list[str], results: Path) -> list[Figure]:
    """What the workflow takes here; leaves the tables of `archive` in `results`."""
    copy = results / archive.name
    shutil.copytree(archive / "qualification", copy / "qualification")
    for name in ("records.parquet", "campaign.yaml", "SHA256SUMS"):
        shutil.copy(archive / name, copy / name)
    archived = [
        "--config",
        f"results_dir={results}",
        f"campaigns=[{{name: {archive.name}, source: archived}}]",
        *config,
    ]
    grid = ["--dry-run", "--configfile", "config/campaigns/thesis.yaml", "--config", f"results_dir={results}"]
    return [
        _timed("archive → report, 2 cores", "≤ 90 s, aim for 60", 90, [_snakemake_s("--cores", "2", *archived)]),
        _timed("planning the DAG of 4,224 runs", "≤ 6 s", 6, [_snakemake_s(*grid) for _ in range(REPEATS)]),
        _timed("nothing to do, archived campaign", "≤ 5 s", 5, [_snakemake_s(*archived) for _ in range(REPEATS)]),
    ]


def _timed(what: str, goal: str, limit_s: float, seen_s: list[float]) -> Figure:
    median_s = statistics.median(seen_s)
    how = "one call" if len(seen_s) == 1 else f"median of {len(seen_s)} calls"
    return Figure(what, goal, f"{median_s:.1f} s", median_s <= limit_s, f"snakemake, {how}")


def _snakemake_s(*arguments: str) -> float:
    """Seconds that a call of Snakemake takes."""
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    started_s = time.monotonic()
    done = subprocess.run(
        ["snakemake", *arguments],
        cwd=ROOT,
        env={**os.environ, "PATH": path},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        sys.exit(f"snakemake {' '.join(arguments)} failed:\n{done.stdout}")
    return time.monotonic() - started_s


if __name__ == "__main__":
    main()
