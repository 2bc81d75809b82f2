"""The commands that plan and measure; `cli` gives them their arguments."""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from inference_energy.errors import DesignError, StudyError

if TYPE_CHECKING:
    from inference_energy.config import ResolvedCampaign
    from inference_energy.design import Run

Command = Callable[[argparse.Namespace], int | None]
Add = Callable[[str, Command, str], argparse.ArgumentParser]


def add_commands(add: Add) -> None:
    """Add each command with its arguments."""
    planning = add("plan", plan, "say what a campaign will take, from earlier records")
    qualifying = add("qualify", qualify, "qualify the instrument for this sitting")
    measuring = add("measure", measure, "measure one run and write its record")
    for command in (planning, qualifying, measuring):
        command.add_argument("campaign", type=Path, help="config/campaigns/<name>.yaml, or a resolved campaign.yaml")
        command.add_argument("--config-dir", type=Path, default=Path("config"), help="where the facts are")
        command.add_argument("--results", type=Path, default=Path("results"), help="folder of all results")
    measuring.add_argument("--run", required=True, metavar="STUDY/SETTING.cCYCLE", help="which run")
    measuring.add_argument(
        "--also",
        nargs="*",
        default=[],
        metavar="RUN",
        help="runs that the same engine can serve: measured after it unless they have a record",
    )
    planning.add_argument("--ids", action="store_true", help="print the run ids in the order of measuring, and no more")
    for name in ("portions", "cycles"):
        planning.add_argument(f"--{name}", type=int, nargs="+", help=f"only these {name}; default: all")
    planning.add_argument("--studies", nargs="+", help="only these studies; default: all")
    planning.add_argument("--gpus", type=int, default=1, help="GPUs that measure side by side")
    planning.add_argument("--time", type=float, metavar="S", help="how far a time budget in seconds reaches")
    planning.add_argument("--hardware", metavar="NAME", help="GPU model to plan for; default: the one here")
    for name in ("grid", "price", "pue"):
        planning.add_argument(f"--{name}", help=f"key of context.yaml instead of report.{name} of default.yaml")

    running = add("run", run, "run snakemake for at most a given time; the run in progress is finished")
    running.add_argument("--budget-s", type=float, required=True, help="seconds after which no further run is started")
    running.add_argument("--grace-s", type=float, help="seconds more after which runs in progress are ended")
    running.add_argument("--results", type=Path, default=Path("results"), help="folder of all results")
    running.add_argument("snakemake", nargs=argparse.REMAINDER, help="-- and the arguments of snakemake")

    launching = add("launcher", launcher, "the parent process that runs are forked from")
    launching.add_argument("action", choices=["state", "stop"])


def _resolved(path: Path, config_dir: Path) -> ResolvedCampaign:
    """A campaign with its models' facts, whichever of the two files `path` is."""
    from inference_energy import config
    from inference_energy.validation import read_yaml

    content = read_yaml(path)
    if isinstance(content, dict) and "models" in content:
        return config.read_resolved(path)
    return config.resolve(config.read_campaign(path), config.read_models(config_dir / "models.yaml"), str(path))


def _kept_campaign(options: argparse.Namespace) -> Path:
    """The resolved campaign beside its results, written if it is not there."""
    from inference_energy import campaigns

    resolved = _resolved(options.campaign, options.config_dir)
    path: Path = options.results / resolved.campaign.name / "campaign.yaml"
    if options.campaign.resolve() != path.resolve():
        campaigns.keep(resolved, path)
    return path


# --- planning ------------------------------------------------------------------------------------


def plan(options: argparse.Namespace) -> None:
    """Print runs, time, energy, cost and CO2e before anything runs."""
    from inference_energy import config, design, planner
    from inference_energy.validation import read_mapping

    resolved = _resolved(options.campaign, options.config_dir)
    runs = [
        each
        for each in design.expand(resolved, str(options.campaign))
        if options.portions is None or each.portion in options.portions
        if options.cycles is None or each.traversal in options.cycles
        if options.studies is None or each.study in options.studies
    ]
    if options.ids:
        for each in runs:
            print(each.run_id)
        return
    default = config.load(read_mapping(options.config_dir / "default.yaml"), "default.yaml").report
    tariff = planner.tariff(
        config.read_context(options.config_dir / "context.yaml"),
        options.grid or default.grid,
        options.price or default.price,
        options.pue or default.pue,
    )
    name = options.hardware or _device_here(resolved)
    print(planner.report(resolved, runs, options.results, tariff, name, options.gpus, options.time))


def _device_here(resolved: ResolvedCampaign) -> str | None:
    """Model of the GPU or CPU that a run would take here; None where there is none."""
    from inference_energy.errors import MeterError
    from inference_energy.measure.devices import find_devices

    try:
        return find_devices(resolved.campaign.measurement.device).names[0]
    except MeterError:
        return None


# --- measuring -----------------------------------------------------------------------------------


def measure(options: argparse.Namespace) -> int:
    """Measure one run, again if it fails by chance, and say where the campaign stands."""
    from inference_energy import budget, design, provenance
    from inference_energy.measure import attempts, launcher, progress, session

    asked_s = time.monotonic()
    campaign_file = _kept_campaign(options)
    resolved = _resolved(campaign_file, options.config_dir)
    runs = design.expand(resolved, str(campaign_file))
    run = design.find(runs, options.run)
    folder = campaign_file.parent
    output = folder / "records" / f"{run.run_id}.json"
    log = attempts.log_path(folder, run)
    attempts.remove_leftovers(folder, output.parent, log.parent, session.qualifications(campaign_file))
    if output.exists():
        print(f"{run.run_id}: already measured ({output})", file=sys.stderr)
        return 0
    if resolved.campaign.measurement.source == "replay":
        _replay(run, resolved, options.results, output)
        return 0
    request = session.Request(
        action="measure",
        campaign_file=str(campaign_file),
        run_id=run.run_id,
        output=str(output),
        hardware_yaml=str(options.config_dir / "hardware.yaml"),
        launcher=run.levels.launcher,
        started_s=time.monotonic(),
        command=provenance.command(),
        engine=run.levels.engine,
        also=_together(run, options.also, runs),
        stop_at_s=budget.stop_at_s(),
    )
    others = [folder / "records" / f"{run_id}.json" for run_id in request.also]
    missing = [path for path in others if not path.exists()]
    status = attempts.carry_out(request, run, resolved, launcher.launch)
    if status == 0:
        followed = sorted((path for path in missing if path.exists()), key=lambda path: path.stat().st_mtime)
        report = progress.report(output, [each.run_id for each in runs], time.monotonic() - asked_s, followed)
        print(report, file=sys.stderr)
    elif status not in (launcher.EXPECTED_FAILURE, attempts.INTERRUPTED):
        raise StudyError(
            f"run {run.run_id}",
            f"its process ended with status {status}{' (killed)' if status < 0 else ''}; there is no record",
            "",
            "The error is above; run again to repeat it",
        )
    return status


def _together(run: Run, also: list[str], runs: list[Run]) -> list[str]:
    """`also`, each of which must be a run that the engine of `run` can serve.

    Raises
    ------
    DesignError
        If the design has no such run, it needs another engine, or one setting is asked for in two cycles: an engine
        that served both would not be measured twice.
    """
    from inference_energy import design

    others = [design.find(runs, run_id) for run_id in also]
    for other in others:
        if design.engine_of(other) is None or design.engine_of(other) != design.engine_of(run):
            raise DesignError(
                "--also",
                f"{other.run_id} needs another engine than {run.run_id}",
                "runs that differ in their workload only",
            )
    asked = Counter((each.study, each.setting) for each in (run, *others))
    for (study, setting), n_runs in asked.items():
        if n_runs > 1:
            raise DesignError(
                "--also", f"{study}/{setting} is asked for {n_runs} times", "an engine of its own for each cycle"
            )
    return also


def _replay(run: Run, resolved: ResolvedCampaign, results: Path, output: Path) -> None:
    """Measure an archived run again from its trace."""
    from inference_energy import archive
    from inference_energy.measure import replay
    from inference_energy.records import write_record

    folder = results / str(resolved.campaign.measurement.replay_of)
    _, records = archive.read_archive(folder)
    source = next((record for record in records if record.run_id == run.run_id), None)
    if source is None:
        raise DesignError(
            f"run {run.run_id}",
            f"is not in the archive {folder}",
            "a run of that campaign: the same study, levels and cycle",
            "Give the replaying campaign the base and studies of the archived one",
        )
    write_record(output, replay.replay_record(source, run, resolved))


def qualify(options: argparse.Namespace) -> None:
    """Qualify every device anew, and print what was found."""
    from inference_energy.measure import launcher, session

    campaign_file = _kept_campaign(options)
    folder = session.qualifications(campaign_file)
    before = set(folder.glob("*.json"))
    status = launcher.launch(
        session.Request(
            action="qualify",
            campaign_file=str(campaign_file),
            run_id="",
            output=str(folder),
            hardware_yaml=str(options.config_dir / "hardware.yaml"),
            launcher="fork",
            started_s=time.monotonic(),
        )
    )
    if status != 0:
        raise StudyError("qualification", f"failed with status {status}", "", "The reason is above")
    for path in sorted(set(folder.glob("*.json")) - before):
        print(path.read_text(encoding="utf-8"))


def launcher(options: argparse.Namespace) -> None:
    """Show or stop the parent that runs are forked from."""
    from inference_energy.measure import launcher as parent

    if options.action == "stop":
        print("stopped" if parent.stop_parent() else "no parent was running", file=sys.stderr)
    else:
        print(json.dumps(parent.parent_state()))


# --- measuring for a stated time -----------------------------------------------------------------


def run(options: argparse.Namespace) -> int:
    """Snakemake, asked by SIGTERM to finish what it runs once the budget is spent."""
    from inference_energy import budget

    command = [sys.executable, "-m", "snakemake", *(a for a in options.snakemake if a != "--")]
    started_s = time.time()
    ended = budget.run(command, options.budget_s, options.grace_s)
    if ended.in_time:
        return ended.status
    how = "ended what was in progress" if ended.cut_off else "finished what was in progress"
    print(f"{options.budget_s:.0f} s are spent: {how}. Stopped as asked, whatever Snakemake calls it", file=sys.stderr)
    for line in _standings(options.results, started_s):
        print(line, file=sys.stderr)
    # Planning takes seconds, which a command that was given a last moment has not.
    print("The same command goes on" if ended.cut_off else _left(command), file=sys.stderr)
    return 0


def _standings(results: Path, since_s: float) -> list[str]:
    """Where each campaign stands that was measured since a moment of the day's clock."""
    from inference_energy import config, design, planner
    from inference_energy.measure import progress

    lines = []
    for log in sorted(results.glob("*/logs/progress.jsonl")):
        if log.stat().st_mtime < since_s:
            continue
        folder = log.parents[1]
        resolved = config.read_resolved(folder / "campaign.yaml")
        runs = design.expand(resolved)
        asked = set(progress.asked_for(folder, [each.run_id for each in runs]))
        now = progress.standing(folder, [each.run_id for each in runs])
        planned = planner.left(
            resolved, [each for each in runs if each.run_id in asked], results, _device_here(resolved)
        )
        lines.append(f"{folder.name}: {now.n_done} of {now.n_planned} runs; {now.sentence()}{planned}")
    return lines


def _left(command: list[str]) -> str:
    """How many runs are still to be measured, and how to go on."""
    planned = subprocess.run([*command, "--dry-run", "--quiet", "rules"], capture_output=True, text=True, check=False)
    if planned.returncode != 0:
        return "The same command goes on"
    if "Nothing to be done" in planned.stdout + planned.stderr:
        return "Nothing is left to do"
    runs = re.search(r"^measure +(\d+)$", planned.stdout + planned.stderr, re.MULTILINE)
    left = f"{runs[1]} runs are left" if runs else "Every run is measured, tables or pages are left"
    return f"{left}: the same command goes on with them"
