"""The command line: every rule of the workflow is one of these commands.

Imports are inside the commands, so that each starts fast.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from inference_energy import commands_measure
from inference_energy.commands_measure import Command
from inference_energy.errors import StudyError


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

    commands_measure.add_commands(add)
    _add_from_records_to_pages(add)
    add("schema", _schema, "print the JSON schema of the configuration")
    return parser


def _add_from_records_to_pages(add: Callable[[str, Command, str], argparse.ArgumentParser]) -> None:
    archive = add("archive", _archive, "validate a campaign and keep its records for good")
    aggregate = add("aggregate", _aggregate, "check a campaign's records and make its tables")
    analyse = add("analyse", _analyse, "answer one question from a campaign's tables")
    context = add("context", _context, "write what a report assumes beside a campaign's tables")
    page = add("page", _page, "execute a notebook on a campaign and render it")
    pdf = add("pdf", _pdf, "make a document for print of an executed notebook")
    index = add("index", _index, "write the index of a campaign's pages")
    headlines = add("headlines", _headlines, "print a campaign's main findings, as README and report give them")
    audit = add("audit", _audit, "test a file of published records for physical sense")

    analyse.add_argument("question")
    page.add_argument("notebook", type=Path)
    pdf.add_argument(
        "executed", type=Path, help="results/<campaign>/notebooks/<name>.ipynb, as the command page wrote it"
    )
    for command in (archive, aggregate, analyse, context, page, pdf, index, headlines):
        command.add_argument("folder", type=Path, help="results/<campaign>")
    for command in (archive, aggregate):
        command.add_argument("--allow-missing", action="store_true", help="accept a campaign that is not complete")
    aggregate.add_argument("--source", choices=["measured", "archived"], required=True)
    aggregate.add_argument("--config-dir", type=Path, default=Path("config"), help="where the facts are")
    for name in (
        *("confidence", "margin-fraction", "decoding-margin-fraction"),
        *("time-to-first-token-max-s", "inter-token-latency-max-s"),
    ):
        analyse.add_argument(f"--{name}", type=float, help="where the question needs it")
    for name in ("n-bootstrap", "seed"):
        analyse.add_argument(f"--{name}", type=int, help="where the question needs it")
    context.add_argument("--config", required=True, help="JSON with the sections analysis and report")
    context.add_argument("--config-dir", type=Path, default=Path("config"), help="where the facts are")
    index.add_argument("pages", type=Path, nargs="+")
    audit.add_argument("file", type=Path, help="a table of records: .csv, .csv.gz or .parquet")
    audit.add_argument("--mapping", type=Path, required=True, help="what its columns mean: resources/audit/<name>.yaml")
    audit.add_argument("--to", type=Path, required=True, help="results/audit-<name>")
    audit.add_argument("--config-dir", type=Path, default=Path("config"), help="where the facts are")


# --- from records to pages -----------------------------------------------------------------------


def _aggregate(options: argparse.Namespace) -> None:
    from inference_energy import aggregate, archive, config, pages, qualification, tables
    from inference_energy.records import write_text_atomically

    folder: Path = options.folder
    if options.source == "archived":
        resolved, records = archive.read_archive(folder)
    else:
        resolved, records = config.read_resolved(folder / "campaign.yaml"), aggregate.read_records(folder)
    qualified = qualification.read_all(folder / "qualification")
    hardware = config.read_hardware(options.config_dir / "hardware.yaml")
    for name, frame in aggregate.aggregate(resolved, records, options.allow_missing, qualified, hardware).items():
        tables.write(frame, tables.TABLES[name], folder / "tables")
    pages.write_about(resolved, records, folder / "tables" / "about.json")
    dictionary = tables.data_dictionary().to_csv(index=False)
    write_text_atomically(folder / "tables" / "data_dictionary.csv", dictionary)


def _analyse(options: argparse.Namespace) -> None:
    from inference_energy import config, design, questions

    n_planned_runs = None
    if "n_planned_runs" in questions.find(options.question).settings:
        n_planned_runs = len(design.expand(config.read_resolved(options.folder / "campaign.yaml")))
    statistics = questions.Statistics(
        confidence=options.confidence,
        n_bootstrap=options.n_bootstrap,
        seed=options.seed,
        margin_fraction=options.margin_fraction,
        decoding_margin_fraction=options.decoding_margin_fraction,
        time_to_first_token_max_s=options.time_to_first_token_max_s,
        inter_token_latency_max_s=options.inter_token_latency_max_s,
        n_planned_runs=n_planned_runs,
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
    from inference_energy import render
    from inference_energy.about import footer, read_about

    folder: Path = options.folder
    notebook: Path = options.notebook
    executed = folder / "notebooks" / notebook.name
    results = os.path.relpath(folder.parent, notebook.parent)
    render.execute(notebook, executed, {"campaign": folder.name, "results": results})
    about = read_about(folder / "tables" / "about.json")
    render.to_html(executed, folder / "report" / f"{notebook.stem}.html", footer(about))


def _pdf(options: argparse.Namespace) -> None:
    from inference_energy import render
    from inference_energy.about import footer, read_about

    said = footer(read_about(options.folder / "tables" / "about.json"))
    del said["Versions"]  # the page names them; a document that differs by them alone is the same
    executed: Path = options.executed
    render.to_pdf(executed, options.folder / "report" / f"{executed.stem}.pdf", said)


def _index(options: argparse.Namespace) -> None:
    from inference_energy import render
    from inference_energy.about import footer, read_about

    about = read_about(options.folder / "tables" / "about.json")
    render.index(options.pages, options.folder / "report" / "index.html", about.title, footer(about))


def _headlines(options: argparse.Namespace) -> None:
    from inference_energy import policy

    print(policy.headlines(policy.load(options.folder.parent, options.folder.name)))


def _audit(options: argparse.Namespace) -> None:
    from inference_energy import config, tables
    from inference_energy.audit import published
    from inference_energy.validation import read_mapping, validated

    defaults = options.config_dir / "default.yaml"
    analysis = validated(config.Analysis, read_mapping(defaults).get("analysis", {}), f"{defaults}: analysis")
    found = published.audited(
        options.file,
        options.mapping,
        options.config_dir,
        confidence=analysis.confidence,
        n_bootstrap=analysis.n_bootstrap,
        seed=analysis.seed,
    )
    for name, frame in found.items():
        tables.write(frame, tables.TABLES[name], options.to / "tables")


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
