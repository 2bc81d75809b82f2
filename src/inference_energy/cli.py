"""The command line: every rule of the workflow is one of these commands.

Imports are inside the commands, so that each starts fast.
"""

from __future__ import annotations

import argparse
import json
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from inference_energy.errors import ConfigError, DesignError, StudyError


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one command; an error of ours becomes one paragraph and exit status 2."""
    options = _parser().parse_args(arguments)
    try:
        sys.exit(options.command(options) or 0)
    except StudyError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        sys.exit(130)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="inference-energy", description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def add(name: str, command: Any, text: str) -> argparse.ArgumentParser:
        sub = commands.add_parser(name, help=text, description=text)
        sub.set_defaults(command=command)
        return sub

    plan = add("plan", _plan, "list the runs of a campaign in the order of measuring")
    plan.add_argument("campaign", type=Path, help="config/campaigns/<name>.yaml, or a resolved campaign.yaml")
    plan.add_argument("--config-dir", type=Path, default=Path("config"), help="where models.yaml is")

    for name, command, text in (
        ("measure", _measure, "measure one run and write its record"),
        ("qualify", _qualify, "qualify the instrument for this sitting"),
    ):
        sub = add(name, command, text)
        sub.add_argument("campaign", type=Path, help="config/campaigns/<name>.yaml, or a resolved campaign.yaml")
        sub.add_argument("--config-dir", type=Path, default=Path("config"), help="where models.yaml, hardware.yaml are")
        sub.add_argument("--results", type=Path, default=Path("results"), help="folder of all results")
        if name == "measure":
            sub.add_argument("--run", required=True, metavar="STUDY/SETTING.cCYCLE", help="which run")

    run = add("run", _run, "run snakemake for at most a given time; the run in progress is finished")
    run.add_argument("--budget-s", type=float, required=True, help="seconds after which no further run is started")
    run.add_argument("snakemake", nargs=argparse.REMAINDER, help="arguments of snakemake")

    launcher = add("launcher", _launcher, "the parent process that runs are forked from")
    launcher.add_argument("action", choices=["state", "stop"])

    add("schema", _schema, "print the JSON schema of the configuration")
    return parser


# --- measuring -----------------------------------------------------------------------------------


def _resolved(path: Path, config_dir: Path) -> Any:
    """A campaign with its models' facts, whichever of the two files `path` is."""
    from inference_energy import config
    from inference_energy.validation import read_yaml

    content = read_yaml(path)
    if isinstance(content, dict) and "models" in content:
        return config.read_resolved(path)
    return config.resolve(config.read_campaign(path), config.read_models(config_dir / "models.yaml"), str(path))


def _plan(options: argparse.Namespace) -> None:
    from inference_energy import design

    resolved = _resolved(options.campaign, options.config_dir)
    runs = design.expand(resolved, str(options.campaign))
    for run in runs:
        print(run.run_id)
    n_settings = len({(run.study, run.setting) for run in runs})
    print(f"{len(runs)} runs: {n_settings} settings in {resolved.campaign.n_cycles} cycles", file=sys.stderr)


def _measure(options: argparse.Namespace) -> int:
    from inference_energy import design
    from inference_energy.measure import launcher, progress, session
    from inference_energy.measure.engines import require_supported

    asked_s = time.monotonic()
    campaign_file = _kept_campaign(options)
    resolved = _resolved(campaign_file, options.config_dir)
    runs = design.expand(resolved, str(campaign_file))
    run = design.find(runs, options.run)
    require_supported(run.levels)
    output = campaign_file.parent / "records" / f"{run.run_id}.json"
    if output.exists():
        print(f"{run.run_id}: already measured ({output})", file=sys.stderr)
        return 0
    if resolved.campaign.measurement.source == "replay":
        from inference_energy.measure import replay

        replay.perform(run, resolved, options.results, output)
        return 0
    _require_qualified(campaign_file, resolved, options)
    request = session.Request(
        action="measure",
        campaign_file=str(campaign_file),
        run_id=run.run_id,
        output=str(output),
        hardware_yaml=str(options.config_dir / "hardware.yaml"),
        launcher=run.levels.launcher,
        started_s=time.monotonic(),
    )
    status = launcher.launch(request)
    if status == 0:
        progress.report(output, len(runs), time.monotonic() - asked_s)
    elif status != launcher.EXPECTED_FAILURE:
        raise StudyError(
            f"run {run.run_id}",
            f"its process ended with status {status}{' (killed)' if status < 0 else ''}; there is no record",
            "",
            "The error is above; run again to repeat it",
        )
    return status


def _kept_campaign(options: argparse.Namespace) -> Path:
    """The resolved campaign beside its results, written if it is not there."""
    from inference_energy.records import write_text_atomically

    resolved = _resolved(options.campaign, options.config_dir)
    path: Path = options.results / resolved.campaign.name / "campaign.yaml"
    if options.campaign.resolve() == path.resolve():
        return path
    text = resolved.dump()
    if not path.exists() or path.read_text(encoding="utf-8") != text:
        write_text_atomically(path, text)
    return path


def _require_qualified(campaign_file: Path, resolved: Any, options: argparse.Namespace) -> None:
    """Qualify the instrument unless this sitting has done so."""
    from inference_energy.measure import launcher, qualify, session
    from inference_energy.measure.devices import find_devices

    folder = session.qualifications(campaign_file)
    if qualify.current(folder, find_devices(resolved.campaign.measurement.device)) is not None:
        return
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


def _qualify(options: argparse.Namespace) -> None:
    from inference_energy.measure import qualify, session
    from inference_energy.measure.devices import find_devices

    campaign_file = _kept_campaign(options)
    resolved = _resolved(campaign_file, options.config_dir)
    _require_qualified(campaign_file, resolved, options)
    path = qualify.current(session.qualifications(campaign_file), find_devices(resolved.campaign.measurement.device))
    if path is not None:
        print(path.read_text(encoding="utf-8"))


def _run(options: argparse.Namespace) -> int:
    """Snakemake, asked by SIGTERM to finish what it runs once the budget is spent."""
    process = subprocess.Popen([sys.executable, "-m", "snakemake", *(a for a in options.snakemake if a != "--")])
    try:
        return process.wait(timeout=options.budget_s)
    except subprocess.TimeoutExpired:
        print(f"{options.budget_s:.0f} s are spent: finishing the run in progress", file=sys.stderr)
        process.send_signal(signal.SIGTERM)
        process.wait()
        return 0


def _launcher(options: argparse.Namespace) -> None:
    from inference_energy.measure import launcher

    if options.action == "stop":
        print("stopped" if launcher.stop_parent() else "no parent was running", file=sys.stderr)
    else:
        print(json.dumps(launcher.parent_state()))


# --- everything else -----------------------------------------------------------------------------


def _schema(_: argparse.Namespace) -> None:
    from inference_energy import config

    print(json.dumps(config.json_schema(), indent=2, sort_keys=True))


__all__ = ["ConfigError", "DesignError", "main"]

if __name__ == "__main__":
    main()
