"""From records to tables: check that they belong together, then flatten them.

Three things are checked before a number is worked out: *completeness* (every planned run has its
record, and no record is unplanned), *comparability* (one kind of machine, one set of versions, one
instrument, the same prompts) and *cycle separation* (a setting's cycles are apart in time).
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Collection, Hashable, Mapping, Sequence
from datetime import datetime
from pathlib import Path

import pandas as pd

from inference_energy import flatten
from inference_energy.config import HardwareFacts, ResolvedCampaign
from inference_energy.design import Run, anchor_studies, expand, setting_id
from inference_energy.errors import ComparabilityError, RecordError
from inference_energy.qualification import Qualification
from inference_energy.readings import gpu_name, taking_part
from inference_energy.records import Record, read_record
from inference_energy.tables import (
    DEVICE_CHECKS,
    DEVICES,
    ENGINE_SAMPLES,
    INTERVALS,
    ITERATIONS,
    REQUESTS,
    RUNS,
    SAMPLES,
    TABLES,
    WARNINGS,
    WINDOWS,
    conform,
)

_N_SHOWN = 3  # names in an error; the rest is a number


def read_records(folder: Path) -> list[Record]:
    """Every record below ``<folder>/records/``, in order of path.

    Raises
    ------
    RecordError
        If a record cannot be read, or lies where another run's record belongs.
    """
    records = []
    for path in sorted((folder / "records").glob("*/*.json")):
        record = read_record(path)
        expected = f"{record.run_id}.json"
        if path.relative_to(folder / "records").as_posix() != expected:
            raise RecordError(
                str(path),
                f"holds the record of run {record.run_id}",
                f"records/{expected}",
                "Move it there, or delete it: the run is repeated",
            )
        records.append(record)
    return records


def aggregate(
    resolved: ResolvedCampaign,
    records: Sequence[Record],
    allow_missing: bool = False,
    qualifications: Sequence[Qualification] = (),
    hardware: Mapping[str, HardwareFacts] | None = None,
) -> dict[str, pd.DataFrame]:
    """The tables of a campaign that come from its records and facts alone: see :mod:`inference_energy.tables`.

    Parameters
    ----------
    resolved : ResolvedCampaign
        The design the records belong to.
    records : sequence of Record
        In any order; rows come in the planned order.
    allow_missing : bool
        Whether planned runs may lack their record.
    qualifications : sequence of Qualification
        Of the sittings.
    hardware : mapping of str to HardwareFacts
        Peak rates of GPUs; one that is not in it, such as a CPU, has no row in ``gpu_facts``.

    Raises
    ------
    RecordError, ComparabilityError
        See :func:`check`.
    """
    check(resolved, records, allow_missing)
    place = {run.run_id: run.order for run in expand(resolved)}
    rows: dict[str, list[flatten.Row]] = {
        table.name: []
        for table in (
            *(RUNS, WINDOWS, INTERVALS, ITERATIONS, SAMPLES, DEVICES, DEVICE_CHECKS, WARNINGS),
            *(REQUESTS, ENGINE_SAMPLES),
        )
    }
    openers = {
        shared.process: record for record in records if (shared := record.launch.shared) and shared.position == 0
    }
    for record in sorted(records, key=lambda one: place[one.run_id]):
        windows = flatten.window_rows(record)
        shared = record.launch.shared
        rows["runs"].append(flatten.run_row(record, windows, openers.get(shared.process) if shared else None))
        rows["windows"] += windows
        rows["intervals"] += flatten.interval_rows(record)
        rows["iterations"] += flatten.iteration_rows(record)
        rows["samples"] += flatten.sample_rows(record)
        rows["devices"] += flatten.device_rows(record)
        rows["device_checks"] += flatten.device_check_rows(record)
        rows["warnings"] += flatten.warning_rows(record)
        rows["requests"] += flatten.request_rows(record)
        rows["engine_samples"] += flatten.engine_sample_rows(record)
    rows["qualifications"] = [_qualification_row(one) for one in qualifications]
    rows["architectures"] = _architecture_rows(resolved)
    rows["gpu_facts"] = _gpu_fact_rows(records, hardware or {})
    return {
        name: conform(pd.DataFrame(found, columns=None if found else TABLES[name].names), TABLES[name])
        for name, found in rows.items()
    }


def _qualification_row(found: Qualification) -> flatten.Row:
    """The row of ``qualifications``."""
    device = next(one for one in found.hardware.devices if one.participates)
    return {
        "host": found.hardware.host,
        "cpu_name": found.hardware.cpu_name,
        "n_cpus": found.hardware.n_cpus,
        "gpu_name": device.name,
        "gpu_uuid_hash": device.uuid_hash,
    } | {
        name: getattr(found, name)
        for name in (
            *("sitting", "made_at_utc", "energy_method", "period_s", "resolution_j", "read_latency_s"),
            *("idle_power_w", "load_power_w", "counter_over_power_ratio", "power_lag_s"),
            *("launch_latency_s", "launch_latency_sampled_s", "cpu_benchmark_s"),
        )
    }


def _architecture_rows(resolved: ResolvedCampaign) -> list[flatten.Row]:
    """The rows of ``architectures``; a shape that leaves a key out means it as transformers' LlamaConfig does."""
    rows: list[flatten.Row] = []
    for name, facts in sorted(resolved.models.items()):
        shape = facts.shape
        n_heads = shape["num_attention_heads"]
        rows.append(
            {
                "model": name,
                "n_layers": shape["num_hidden_layers"],
                "n_hidden": shape["hidden_size"],
                "n_intermediate": shape["intermediate_size"],
                "n_heads": n_heads,
                "n_kv_heads": shape.get("num_key_value_heads", n_heads),
                "n_head_dim": shape.get("head_dim", shape["hidden_size"] // n_heads),
                "n_vocab": shape["vocab_size"],
                "tied_embeddings": shape.get("tie_word_embeddings", False),
                "n_parameters": int(facts.n_parameters.value),
            }
        )
    return rows


def _gpu_fact_rows(records: Sequence[Record], hardware: Mapping[str, HardwareFacts]) -> list[flatten.Row]:
    """The rows of ``gpu_facts``: of the GPUs that took part in a run with numbers."""
    names = sorted({gpu_name(record) for record in records if record.status == "ok"} & set(hardware))
    return [
        {
            "gpu_name": name,
            "precision": precision,
            "peak_flop_per_s": peak.value,
            "memory_bandwidth_bytes_per_s": hardware[name].memory_bandwidth_bytes_per_s.value,
            "power_limit_w": hardware[name].power_limit_w.value,
        }
        for name in names
        for precision, peak in hardware[name].peak_flop_per_s.items()
    ]


# --- checks --------------------------------------------------------------------------------------


def check(resolved: ResolvedCampaign, records: Sequence[Record], allow_missing: bool = False) -> None:
    """Refuse records that do not make up one campaign.

    Raises
    ------
    RecordError
        If a record is missing (unless `allow_missing`), unplanned, doubled, or not of the setting it
        is named after.
    ComparabilityError
        If two records must not be compared, or two cycles are too close; names both.
    """
    check_completeness(resolved, records, allow_missing)
    check_comparability(records)
    check_cycle_separation(records, resolved.campaign.cycle_gap_min_s, anchor_studies(resolved.campaign))


def check_completeness(resolved: ResolvedCampaign, records: Sequence[Record], allow_missing: bool = False) -> None:
    """Hold records and design to each other; see :func:`check`."""
    name = resolved.campaign.name
    planned: list[Run] = expand(resolved)
    known = {run.run_id for run in planned}
    found: set[str] = set()
    for record in records:
        if record.identity.campaign != name or record.run_id not in known:
            raise RecordError(
                f"campaign {name}",
                f"record {record.identity.campaign}: {record.run_id} is not in the design",
                f"one of its {len(planned)} runs",
                "Move it elsewhere, or restore the design it was measured for",
            )
        if record.identity.setting != setting_id(record.levels):
            raise RecordError(
                f"record {record.run_id}",
                f"its levels make up setting {setting_id(record.levels)}",
                f"levels of {record.identity.setting}",
                "Delete it: the run is repeated",
            )
        if record.run_id in found:
            raise RecordError(f"campaign {name}", f"two records of run {record.run_id}", "one", "Keep one of them")
        found.add(record.run_id)
    missing = [run.run_id for run in planned if run.run_id not in found]
    if missing and not (allow_missing and found):
        raise RecordError(
            f"campaign {name}",
            f"{len(missing)} of {len(planned)} runs have no record: {_listed(missing)}",
            "a record of every run",
            "Measure them: snakemake --cores all; or allow missing runs",
        )


#: What must not differ, and within which group of records: name, value, group.
_Trait = tuple[str, Callable[[Record], Hashable], Callable[[Record], Hashable]]


def _everywhere(_: Record) -> Hashable:
    return "the campaign"


def _engine(record: Record) -> Hashable:
    return f"engine {record.levels.engine}, status {record.status}"


def _workload(record: Record) -> Hashable:
    levels = record.levels
    n_prompts = levels.n_prompts_per_pass
    alike = f"{levels.model}, {n_prompts} prompts of {levels.n_input_tokens} tokens, prompts {levels.prompts}"
    if not (levels.input_length_cv or levels.output_length_cv):
        return alike
    return f"{alike}, lengths spread by {levels.input_length_cv:g} in and {levels.output_length_cv:g} out" + (
        f", {levels.n_output_tokens} tokens out" if levels.output_length_cv else ""
    )


def _power_limits(record: Record) -> Hashable:
    limits = {record.hardware.devices[index].power_limit_w for index in taking_part(record)}
    return "+".join(sorted(f"{limit} W" for limit in limits))


COMPARABLE: tuple[_Trait, ...] = (
    ("GPU model", gpu_name, _everywhere),
    ("power limit", _power_limits, _everywhere),
    ("driver", lambda record: record.software.driver, _everywhere),
    ("vLLM version", lambda record: record.engine.version if record.engine else None, _engine),
    ("torch version", lambda record: record.software.torch, _everywhere),
    ("transformers version", lambda record: record.software.transformers, _everywhere),
    ("energy method", lambda record: record.meter.energy_method, _everywhere),
    ("replayed campaign", lambda record: record.provenance.replay_of or "none: a real run", _everywhere),
    (
        "model revision",
        lambda record: record.provenance.model_revision,
        lambda record: f"{record.levels.model}, weights {record.levels.weights}",
    ),
    ("prompt hash", lambda record: record.workload.token_ids_sha256 if record.workload else None, _workload),
)


def check_comparability(records: Sequence[Record]) -> None:
    """Refuse to mix what must not be compared; see :func:`check`.

    Hosts, sittings, devices and digests of source and design may differ: they are columns. A failed
    run has no numbers to compare, and may have failed before its machine was known.
    """
    for name, value, group in COMPARABLE:
        first: dict[Hashable, Record] = {}
        for record in records:
            if record.status == "failed":
                continue
            if name == "prompt hash" and record.workload is None:
                continue  # it failed before there were prompts
            other = first.setdefault(group(record), record)
            if value(record) != value(other):
                raise ComparabilityError(
                    f"campaign {record.identity.campaign}",
                    f"mixed {name} within {group(record)}: {value(other)} in {other.run_id}, {value(record)} in"
                    f" {record.run_id}",
                    f"one {name}",
                    "Keep them in two campaigns, or measure one of the two anew",
                )


def check_cycle_separation(
    records: Sequence[Record], cycle_gap_min_s: float, anchors: Collection[str] = frozenset()
) -> None:
    """Hold a setting's cycles apart in time; see :func:`check`.

    The start of one and the start of the next are at least `cycle_gap_min_s` apart, and never equal:
    equal starts are one run under two names. Studies in `anchors` are measured in every portion: their
    cycles may follow one another at once.
    """

    def setting(record: Record) -> tuple[str, str]:
        return record.identity.study, record.identity.setting

    def started(record: Record) -> datetime:
        return datetime.fromisoformat(record.identity.started_at_utc)

    ordered = sorted(records, key=lambda record: (setting(record), started(record)))
    for earlier, later in itertools.pairwise(ordered):
        if setting(earlier) != setting(later):
            continue
        gap_s = (started(later) - started(earlier)).total_seconds()
        least_s = 0 if earlier.identity.study in anchors else cycle_gap_min_s
        if gap_s < least_s or gap_s == 0:
            raise ComparabilityError(
                f"campaign {earlier.identity.campaign}",
                f"{earlier.run_id} started at {earlier.identity.started_at_utc} and {later.run_id} at"
                f" {later.identity.started_at_utc}, {gap_s:.0f} s apart",
                f"cycles of one setting at least {least_s:.0f} s apart (cycle_gap_min_s), and never one run"
                " under two names",
                f"Delete the record of {later.run_id} and measure it again later",
            )


def _listed(names: Sequence[str]) -> str:
    more = len(names) - _N_SHOWN
    return ", ".join(names[:_N_SHOWN]) + (f" and {more} more" if more > 0 else "")
