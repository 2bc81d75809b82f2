"""The campaigns that a configuration names, with their runs and files: what the workflow asks for."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from inference_energy import config, design
from inference_energy.config import ResolvedCampaign, StudyConfig
from inference_energy.design import Run
from inference_energy.errors import ArchiveError, ConfigError, did_you_mean
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
    portions, studies : tuple or None
        Portions and studies that are asked for; None: all.
    n_gpus_lent : int or None
        GPUs that the workflow may use (Snakemake's resource `gpu`); None: any number.
    """

    resolved: ResolvedCampaign
    folder: Path
    archived: bool
    cycles: tuple[int, ...]
    portions: tuple[int, ...] | None = None
    studies: tuple[str, ...] | None = None
    n_gpus_lent: int | None = None

    @property
    def name(self) -> str:
        """Name of the campaign."""
        return self.resolved.campaign.name

    @cached_property
    def _asked(self) -> list[Run]:
        every = design.expand(self.resolved)
        known = sorted({run.portion for run in every})
        for portion in self.portions or ():
            if portion not in known:
                raise ConfigError("portions", f"{portion} is no portion of {self.name}", f"one of {known}")
        studies = self.resolved.campaign.studies
        for study in self.studies or ():
            if study not in studies:
                raise ConfigError("studies", f"{study!r} is no study of {self.name}. {did_you_mean(study, studies)}")
        portions = known if self.portions is None else self.portions
        asked = studies if self.studies is None else self.studies
        return [run for run in every if run.traversal in self.cycles and run.portion in portions and run.study in asked]

    @cached_property
    def runs(self) -> list[Run]:
        """Every run that is asked for and fits the GPUs lent, in the order of measuring.

        Raises
        ------
        ConfigError
            If a portion or a study is asked for that the design does not have.
        """
        return [run for run in self._asked if self._fits(run)]

    @property
    def n_left_out(self) -> int:
        """Runs that are asked for and need more GPUs than are lent."""
        return 0 if self.archived else len(self._asked) - len(self.runs)

    @property
    def partial(self) -> bool:
        """Whether some runs may lack a record: they are not asked for here, or the archive was made without them."""
        some = self.portions is not None or self.studies is not None
        return self.archived or len(self.cycles) < self.resolved.campaign.n_cycles or some or self.n_left_out > 0

    def _fits(self, run: Run) -> bool:
        return self.n_gpus_lent is None or not self._on_gpus or run.levels.n_gpus <= self.n_gpus_lent

    @property
    def _on_gpus(self) -> bool:
        measurement = self.resolved.campaign.measurement
        return measurement.device == "gpu" and measurement.source == "live"

    @cached_property
    def _place(self) -> dict[str, int]:
        return {run.run_id: place for place, run in enumerate(self.runs)}

    @cached_property
    def _together(self) -> dict[str, list[Run]]:
        """Of each run that shares an engine, all that do, in the order of measuring."""
        return {run.run_id: group for group in design.served_together(self.runs) for run in group}

    def also(self, *, study: str, setting: str, cycle: str, **_: str) -> list[str]:
        """Runs that the engine of a run can serve, besides itself."""
        run_id = f"{study}/{setting}.c{cycle}"
        return [run.run_id for run in self._together.get(run_id, []) if run.run_id != run_id]

    def started_by(self, *, study: str, setting: str, cycle: str, **_: str) -> list[str]:
        """Record of the run that starts the engine of a run; none for that run itself, and for one with its own."""
        run_id = f"{study}/{setting}.c{cycle}"
        first = next((run.run_id for run in self._together.get(run_id, [])), run_id)
        return [] if first == run_id else [f"{self.folder}/records/{first}.json"]

    def priority(self, *, study: str, setting: str, cycle: str, **_: str) -> int:
        """Snakemake's priority of a run: earlier in the order, higher."""
        return len(self.runs) - self._place.get(f"{study}/{setting}.c{cycle}", 0)

    def n_gpus(self, *, study: str, setting: str, cycle: str, **_: str) -> int:
        """GPUs of the machine that a run takes: all that are lent, unless others may run beside it."""
        n_lent = self.n_gpus_lent or 1
        place = self._place.get(f"{study}/{setting}.c{cycle}")
        if place is None or not self._on_gpus:  # two runs on one CPU would disturb each other
            return n_lent
        levels = self.runs[place].levels
        return levels.n_gpus if levels.neighbours == "allowed" else n_lent

    def record_paths(self) -> list[str]:
        """Files of all runs' records."""
        return [f"{self.folder}/records/{run.run_id}.json" for run in self.runs]

    def aggregate_inputs(self) -> list[str]:
        """What the tables are made of: the archive, or every record."""
        if self.archived:
            return [f"{self.folder}/{name}" for name in ("records.parquet", "campaign.yaml", "SHA256SUMS")]
        return self.record_paths()


def planned(study: StudyConfig, config_dir: Path, n_gpus_lent: int | None = None) -> dict[str, PlannedCampaign]:
    """The campaigns to carry through the workflow, by name.

    Parameters
    ----------
    study : StudyConfig
        The merged configuration.
    config_dir : Path
        Where ``campaigns/`` and ``models.yaml`` are.
    n_gpus_lent : int, optional
        GPUs that the workflow may use; runs that need more are left out.

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
        return {resolved.campaign.name: _planned(resolved, results, study, n_gpus_lent, archived=False)}
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
        found[choice.name] = _planned(resolved, results, study, n_gpus_lent, archived=archived)
    return found


def _planned(
    resolved: ResolvedCampaign, results: Path, study: StudyConfig, n_gpus_lent: int | None, *, archived: bool
) -> PlannedCampaign:
    every = tuple(range(1, resolved.campaign.n_cycles + 1))
    for cycle in study.cycles or ():
        if cycle not in every:
            raise ConfigError("cycles", f"{cycle} is no cycle of {resolved.campaign.name}", f"one of {list(every)}")
    folder = results / resolved.campaign.name
    if archived:
        return PlannedCampaign(resolved, folder, archived, every)
    cycles = every if study.cycles is None else tuple(study.cycles)
    portions = None if study.portions is None else tuple(study.portions)
    studies = None if study.studies is None else tuple(study.studies)
    return PlannedCampaign(resolved, folder, archived, cycles, portions, studies, n_gpus_lent)


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
    """Save the resolved design beside the results, touching nothing that is up to date, and what is asked for of it."""
    path = campaign.folder / "campaign.yaml"
    if not campaign.archived:
        keep(campaign.resolved, path)
        # Progress counts these.
        asked_for = "".join(f"{run.run_id}\n" for run in campaign.runs)
        write_text_atomically(campaign.folder / "logs" / "asked_for.txt", asked_for)
    return path


def keep(resolved: ResolvedCampaign, path: Path) -> None:
    """Write the resolved design, unless it is there already: what is made from it would be made again."""
    text = resolved.dump()
    if not path.exists() or path.read_text(encoding="utf-8") != text:
        write_text_atomically(path, text)
