"""The command line: every rule of the workflow is one of these commands.

Imports are inside the commands, so that each starts fast.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from inference_energy.errors import DesignError, StudyError

if TYPE_CHECKING:
    from inference_energy.config import ResolvedCampaign
    from inference_energy.design import Run

Command = Callable[[argparse.Namespace], int | None]


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

    def add(name: str, command: Command, text: str) -> argparse.ArgumentParser:
        sub = commands.add_parser(name, help=text, description=text)
        sub.set_defaults(command=command)
        return sub

    _add_measuring(add)
    _add_from_records_to_pages(add)
    add("schema", _schema, "print the JSON schema of the configuration")
    return parser


def _add_measuring(add: Callable[[str, Command, str], argparse.ArgumentParser]) -> None:
    plan = add("plan", _plan, "list the runs of a campaign in the order of measuring")
    qualify = add("qualify", _qualify, "qualify the instrument for this sitting")
    measure = add("measure", _measure, "measure one run and write its record")
    for command in (plan, qualify, measure):
        command.add_argument("campaign", type=Path, help="config/campaigns/<name>.yaml, or a resolved campaign.yaml")
        command.add_argument("--config-dir", type=Path, default=Path("config"), help="where the facts are")
    for command in (qualify, measure):
        command.add_argument("--results", type=Path, default=Path("results"), help="folder of all results")
    measure.add_argument("--run", required=True, metavar="STUDY/SETTING.cCYCLE", help="which run")

    run = add("run", _run, "run snakemake for at most a given time; the run in progress is finished")
    run.add_argument("--budget-s", type=float, required=True, help="seconds after which no further run is started")
    run.add_argument("snakemake", nargs=argparse.REMAINDER, help="-- and the arguments of snakemake")

    launcher = add("launcher", _launcher, "the parent process that runs are forked from")
    launcher.add_argument("action", choices=["state", "stop"])


def _add_from_records_to_pages(add: Callable[[str, Command, str], argparse.ArgumentParser]) -> None:
    archive = add("archive", _archive, "validate a campaign and keep its records for good")
    aggregate = add("aggregate", _aggregate, "check a campaign's records and make its tables")
    analyse = add("analyse", _analyse, "answer one question from a campaign's tables")
    context = add("context", _context, "write what a report assumes beside a campaign's tables")
    page = add("page", _page, "execute a notebook on a campaign and render it")
    index = add("index", _index, "write the index of a campaign's pages")
    headlines = add("headlines", _headlines, "print a campaign's main findings, as README and report give them")

    analyse.add_argument("question")
    page.add_argument("notebook", type=Path)
    for command in (archive, aggregate, analyse, context, page, index, headlines):
        command.add_argument("folder", type=Path, help="results/<campaign>")
    for command in (archive, aggregate):
        command.add_argument("--allow-missing", action="store_true", help="accept a campaign that is not complete")
    aggregate.add_argument("--source", choices=["measured", "archived"], required=True)
    for name, kind in (("confidence", float), ("n-bootstrap", int), ("seed", int), ("margin-fraction", float)):
        analyse.add_argument(f"--{name}", type=kind, required=True)
    context.add_argument("--config", required=True, help="JSON with the sections analysis and report")
    context.add_argument("--config-dir", type=Path, default=Path("config"), help="where the facts are")
    index.add_argument("pages", type=Path, nargs="+")


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
    from inference_energy import design, provenance
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
        _replay(run, resolved, options.results, output)
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
        command=provenance.command(),
    )
    status = launcher.launch(request)
    if status == 0:
        print(progress.report(output, len(runs), time.monotonic() - asked_s), file=sys.stderr)
    elif status != launcher.EXPECTED_FAILURE:
        raise StudyError(
            f"run {run.run_id}",
            f"its process ended with status {status}{' (killed)' if status < 0 else ''}; there is no record",
            "",
            "The error is above; run again to repeat it",
        )
    return status


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
    command = [sys.executable, "-m", "snakemake", *(a for a in options.snakemake if a != "--")]
    process = subprocess.Popen(command)
    try:
        return process.wait(timeout=options.budget_s)
    except subprocess.TimeoutExpired:
        print(f"{options.budget_s:.0f} s are spent: finishing what is in progress", file=sys.stderr)
        process.send_signal(signal.SIGTERM)
        process.wait()
        print(f"Stopped as asked, whatever Snakemake calls it. {_left(command)}", file=sys.stderr)
        return 0
    except KeyboardInterrupt:
        process.wait()  # the terminal interrupted it too
        raise


def _left(command: list[str]) -> str:
    """How many runs are still to be measured, and how to go on."""
    plan = subprocess.run([*command, "--dry-run", "--quiet", "rules"], capture_output=True, text=True, check=False)
    if plan.returncode != 0:
        return "The same command goes on"
    if "Nothing to be done" in plan.stdout + plan.stderr:
        return "Nothing is left to do"
    runs = re.search(r"^measure +(\d+)$", plan.stdout + plan.stderr, re.MULTILINE)
    left = f"{runs[1]} runs are left" if runs else "Every run is measured, tables or pages are left"
    return f"{left}: the same command goes on with them"


def _launcher(options: argparse.Namespace) -> None:
    from inference_energy.measure import launcher

    if options.action == "stop":
        print("stopped" if launcher.stop_parent() else "no parent was running", file=sys.stderr)
    else:
        print(json.dumps(launcher.parent_state()))


# --- from records to pages -----------------------------------------------------------------------


def _aggregate(options: argparse.Namespace) -> None:
    from inference_energy import aggregate, archive, config, pages, tables
    from inference_energy.records import write_text_atomically

    folder: Path = options.folder
    if options.source == "archived":
        resolved, records = archive.read_archive(folder)
    else:
        resolved, records = config.read_resolved(folder / "campaign.yaml"), aggregate.read_records(folder)
    for name, frame in aggregate.aggregate(resolved, records, options.allow_missing).items():
        tables.write(frame, tables.TABLES[name], folder / "tables")
    pages.write_about(resolved, records, folder / "tables" / "about.json")
    dictionary = tables.data_dictionary().to_csv(index=False)
    write_text_atomically(folder / "tables" / "data_dictionary.csv", dictionary)


def _analyse(options: argparse.Namespace) -> None:
    from inference_energy import config, design, questions, tables

    runs = tables.read("runs", options.folder / "tables")
    cycles = set(runs["cycle"])
    planned = design.expand(config.read_resolved(options.folder / "campaign.yaml"))
    statistics = questions.Statistics(
        confidence=options.confidence,
        n_bootstrap=options.n_bootstrap,
        seed=options.seed,
        margin_fraction=options.margin_fraction,
        n_planned_runs=sum(run.cycle in cycles for run in planned),
    )
    questions.answer(options.question, options.folder / "tables", statistics)


def _context(options: argparse.Namespace) -> None:
    from inference_energy import config, pages
    from inference_energy.validation import validated

    sections = json.loads(options.config)
    analysis = validated(config.Analysis, sections["analysis"], "analysis")
    report = validated(config.Report, sections["report"], "report")
    pages.write_context(analysis, report, options.config_dir, Path(), options.folder / "tables" / "context.json")


def _page(options: argparse.Namespace) -> None:
    from inference_energy import policy, render

    folder: Path = options.folder
    notebook: Path = options.notebook
    executed = folder / "notebooks" / notebook.name
    results = os.path.relpath(folder.parent, notebook.parent)
    render.execute(notebook, executed, {"campaign": folder.name, "results": results})
    about = policy.read_about(folder / "tables" / "about.json")
    render.to_html(executed, folder / "report" / f"{notebook.stem}.html", policy.footer(about))


def _index(options: argparse.Namespace) -> None:
    from inference_energy import policy, render

    about = policy.read_about(options.folder / "tables" / "about.json")
    render.index(options.pages, options.folder / "report" / "index.html", about.title, policy.footer(about))


def _headlines(options: argparse.Namespace) -> None:
    from inference_energy import policy

    print(policy.headlines(policy.load(options.folder.parent, options.folder.name)))


def _archive(options: argparse.Namespace) -> None:
    from inference_energy import archive

    archive.write_archive(options.folder, options.allow_missing)
    _, records = archive.read_archive(options.folder)
    print(f"{options.folder}: {len(records)} records archived", file=sys.stderr)


def _schema(_: argparse.Namespace) -> None:
    from inference_energy import config

    print(json.dumps(config.json_schema(), indent=2, sort_keys=True))


if __name__ == "__main__":
    main()
