"""The campaigns that a configuration names, with their runs and files: what the workflow asks for."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from inference_energy import config, design
from inference_energy.config import ResolvedCampaign, StudyConfig
from inference_energy.design import Run
from inference_energy.errors import ArchiveError, ConfigError
from inference_energy.records import write_text_atomically


@dataclass(frozen=True)
class PlannedCampaign:
    """One campaign of the workflow.

    Attributes
    ----------
    folder : Path
        ``results/<name>``.
    archived : bool
        Whether its records come from the archive instead of being measured.
    cycles : tuple of int
        Cycles that are asked for.
    """

    resolved: ResolvedCampaign
    folder: Path
    archived: bool
    cycles: tuple[int, ...]

    @property
    def name(self) -> str:
        """Name of the campaign."""
        return self.resolved.campaign.name

    @cached_property
    def runs(self) -> list[Run]:
        """Every run that is asked for, in the order of measuring."""
        return [run for run in design.expand(self.resolved) if run.cycle in self.cycles]

    @cached_property
    def _order(self) -> dict[str, int]:
        return {run.run_id: run.order for run in self.runs}

    def priority(self, *, study: str, setting: str, cycle: str, **_: str) -> int:
        """Snakemake's priority of a run: earlier in the order, higher."""
        return len(self.runs) * self.resolved.campaign.n_cycles - self._order.get(f"{study}/{setting}.c{cycle}", 0)

    def record_paths(self) -> list[str]:
        """Files of all runs' records."""
        return [f"{self.folder}/records/{run.run_id}.json" for run in self.runs]

    def aggregate_inputs(self) -> list[str]:
        """What the tables are made of: the archive, or every record."""
        if self.archived:
            return [f"{self.folder}/{name}" for name in ("records.parquet", "campaign.yaml", "SHA256SUMS")]
        return self.record_paths()


def planned(study: StudyConfig, config_dir: Path) -> dict[str, PlannedCampaign]:
    """The campaigns to carry through the workflow, by name.

    Parameters
    ----------
    study : StudyConfig
        The merged configuration.
    config_dir : Path
        Where ``campaigns/`` and ``models.yaml`` are.

    Raises
    ------
    ArchiveError
        If an archived campaign has no archive.
    ConfigError, DesignError
        If a design cannot be made.
    """
    results = Path(study.results_dir)
    models = config.read_models(config_dir / "models.yaml")
    if study.campaign is not None:
        resolved = config.resolve(study.campaign, models, f"campaign {study.campaign.name}")
        return {resolved.campaign.name: _planned(resolved, results, study, archived=False)}
    found: dict[str, PlannedCampaign] = {}
    for choice in study.campaigns:
        if choice.name in found:
            raise ConfigError("campaigns", f"{choice.name} is named twice", "each campaign once")
        archived = choice.source == "archived"
        if archived:
            _require_archive(results / choice.name)
            resolved = config.read_resolved(results / choice.name / "campaign.yaml")
        else:
            path = config_dir / "campaigns" / f"{choice.name}.yaml"
            resolved = config.resolve(config.read_campaign(path), models, str(path))
        found[choice.name] = _planned(resolved, results, study, archived)
    return found


def _planned(resolved: ResolvedCampaign, results: Path, study: StudyConfig, archived: bool) -> PlannedCampaign:
    every = tuple(range(1, resolved.campaign.n_cycles + 1))
    for cycle in study.cycles or ():
        if cycle not in every:
            raise ConfigError("cycles", f"{cycle} is no cycle of {resolved.campaign.name}", f"one of {list(every)}")
    cycles = every if archived or study.cycles is None else tuple(study.cycles)
    return PlannedCampaign(resolved, results / resolved.campaign.name, archived, cycles)


def _require_archive(folder: Path) -> None:
    for name in ("records.parquet", "campaign.yaml", "SHA256SUMS"):
        if not (folder / name).exists():
            raise ArchiveError(
                str(folder / name),
                "missing",
                "an archived campaign",
                "Restore it (git checkout), measure the campaign, or take it off `campaigns`",
            )


def keep_resolved(campaign: PlannedCampaign) -> Path:
    """Save the resolved design beside the results, touching nothing that is up to date."""
    path = campaign.folder / "campaign.yaml"
    text = campaign.resolved.dump()
    if not campaign.archived and (not path.exists() or path.read_text(encoding="utf-8") != text):
        write_text_atomically(path, text)
    return path
