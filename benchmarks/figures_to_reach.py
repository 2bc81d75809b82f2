"""The figures that this project set itself: goal and what is seen, as a Markdown table.

Energies and times of the measuring come from the archived campaign; the times of the workflow are
taken here, in a temporary folder. README.md says how to run this and what was seen.
"""

from __future__ import annotations

import argparse
import math
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
        runs = pd.read_parquet(tables / "runs.parquet")
        figures = [*_measuring(runs, _quality(tables)), *_side_by_side(runs, tables), *workflow]
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


def _side_by_side(runs: pd.DataFrame, tables: Path) -> list[Figure]:
    """What a campaign on machines with several GPUs says; nothing for a campaign without anchors."""
    anchors = pd.read_parquet(tables / "anchors.parquet")
    if anchors.empty:
        return []
    small = runs[(runs["model"] == "llama-3.2-1b") & (runs["precision"] == "float16") & (runs["launcher"] == "fork")]
    alike = small[(small["traffic"] == "none") & (small["n_gpus"] == 1) & (small["status"] == "ok")]
    share = (alike["measured_s"] / (alike["wall_s"] + _gap_s(runs))).median()
    bound = anchors[anchors["gpu_bound"] & (anchors["quantity"] == "energy_j_per_output_token")]
    repeated = bound["same_gpu_largest_fraction"].max()
    interference = pd.read_parquet(tables / "interference.parquet")
    together = interference[
        (interference["setting"] == "GPU-bound together") & (interference["quantity"] == "energy_j_per_output_token")
    ]
    low, high = (
        together[f"beside_over_alone_ratio_{end}"].iloc[0] if len(together) else math.nan for end in ("low", "high")
    )
    lanes, times = _times_as_many_runs(runs)
    return [
        Figure(
            "R of a 1B fp16 run on a forked start, its gap included",
            "≥ 0.85",
            f"median {share:.2f} of {len(alike)} runs",
            share >= 0.85,
            "runs: measured_s, wall_s",
        ),
        Figure(
            "GPU-bound anchors on the same GPU",
            "repeat within 2 %",
            "no GPU was met twice" if math.isnan(repeated) else f"largest deviation {repeated:.2%}",
            repeated <= 0.02,
            "anchors: same_gpu_largest_fraction",
        ),
        Figure(
            "GPU-bound runs beside neighbours over the same runs alone, energy",
            "interval within ± 2 %",
            f"{low:.3f} to {high:.3f}",
            low >= 0.98 and high <= 1.02,
            "interference: GPU-bound together",
        ),
        Figure(
            "runs per hour of four GPUs over those of one",
            "≥ 3.5",
            f"{times:.2f} on {lanes} GPUs",
            times >= 3.5,
            "single-GPU runs of the sitting with most GPUs: lanes busy on average, over how much longer a run takes"
            " beside others (study interference)",
        ),
    ]


def _gap_s(runs: pd.DataFrame) -> float:
    """Median pause between two runs on the same GPU."""
    single = runs[runs["n_gpus"] == 1].sort_values("monotonic_started_s")
    ended_s = (single["monotonic_started_s"] + single["wall_s"]).groupby(single["gpu_uuid_hash"]).shift()
    gaps_s = single["monotonic_started_s"] - ended_s
    return float(gaps_s[gaps_s < 10].median())


def _times_as_many_runs(runs: pd.DataFrame) -> tuple[int, float]:
    """GPUs of the largest machine, and how much its lanes together did in the time of its single-GPU runs."""
    single = runs[(runs["n_gpus"] == 1) & (runs["neighbours"] == "allowed")]
    lanes = single.groupby("sitting")["gpu_uuid_hash"].nunique()
    chosen = single[single["sitting"] == lanes.idxmax()]
    ended_s = chosen["monotonic_started_s"] + chosen["wall_s"]
    # Until the first lane finds nothing more to do: what comes after is the end of the campaign, not its pace.
    until_s = ended_s.groupby(chosen["gpu_uuid_hash"]).max().min()
    begun_s = chosen["monotonic_started_s"].min()
    busy_s = (ended_s.clip(upper=until_s) - chosen["monotonic_started_s"]).clip(lower=0) + _gap_s(runs)
    started = chosen["monotonic_started_s"] < until_s
    return int(lanes.max()), float(busy_s[started].sum() / (until_s - begun_s)) / _times_as_long(runs)


def _times_as_long(runs: pd.DataFrame) -> float:
    """Time of a run beside neighbours over that of the same run alone, from the study that has both."""
    both = runs[(runs["study"] == "interference") & (runs["status"] == "ok")]
    factors = ["model", "precision", "batch_size"]
    wall_s = both.pivot_table(index=factors, columns="neighbours", values="wall_s", aggfunc="mean")
    return float((wall_s["allowed"] / wall_s["none"]).mean())


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
