"""The archive of a finished campaign: one Parquet file that gives back every record, and its sums.

``records.parquet`` has a row a run, in the planned order, with three kinds of columns:

* flat ones, to be read with any tool, and ``windows`` nested as a list of structs. They are derived
  and for convenience: nothing here reads them back;
* ``record_json``: the record as JSON, without its trace;
* ``trace_<series>``: the trace. Floats are kept at 64 bits, so a record comes back exactly as it was
  written: counters need it (1 mJ in 10^9 J), and compressed series of power gain little from less.

``SHA256SUMS`` covers it, ``campaign.yaml``, the sittings' ``qualification/*.json`` and the log of failed
attempts (``attempts/<study>/<setting>.c<cycle>.jsonl``), in the format of ``sha256sum --check``. Data is
sacred: an archived record comes from a real run, and nothing that is in an archive is dropped or changed
when a later sitting is added to it.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa  # type: ignore[import-untyped]
import pyarrow.parquet as pq  # type: ignore[import-untyped]

from inference_energy import flatten
from inference_energy.aggregate import check, read_records
from inference_energy.config import ResolvedCampaign, read_resolved
from inference_energy.design import expand
from inference_energy.errors import ArchiveError
from inference_energy.records import Record, Trace, parse_record, write_atomically

RECORDS, CAMPAIGN, SUMS = "records.parquet", "campaign.yaml", "SHA256SUMS"
_BESIDE = ("qualification/*.json", "attempts/**/*.jsonl")  # of the sittings; of attempts that failed

_FLAT = pa.schema(
    [
        ("campaign", pa.string()),
        ("study", pa.string()),
        ("setting", pa.string()),
        ("cycle", pa.int64()),
        ("status", pa.string()),
        ("model", pa.string()),
        ("precision", pa.string()),
        ("batch_size", pa.int64()),
        ("parallelism", pa.string()),
        ("n_gpus", pa.int64()),
        ("neighbours", pa.string()),
        ("traffic", pa.string()),
        ("gpu_name", pa.string()),
        ("gpu_uuid_hash", pa.string()),
        ("host", pa.string()),
        ("sitting", pa.string()),
        ("started_at_utc", pa.string()),
        ("energy_method", pa.string()),
        ("energy_j_per_output_token", pa.float64()),
        ("throughput_tokens_per_s", pa.float64()),
        ("power_mean_w", pa.float64()),
    ]
)
_WINDOW = pa.struct(
    [
        ("window", pa.int64()),
        ("started_s", pa.float64()),
        ("duration_s", pa.float64()),
        ("n_iterations", pa.int64()),
        ("n_output_tokens_measured", pa.int64()),
        ("energy_j", pa.float64()),
        ("uncertainty_j", pa.float64()),
        ("energy_j_per_output_token", pa.float64()),
        ("throughput_tokens_per_s", pa.float64()),
        ("power_mean_w", pa.float64()),
    ]
)
_TIMES = {"time_s", "slow_time_s"}  # lists over samples; all other series are lists over devices of such lists
_COUNTS = {"throttle_reasons", "n_other_processes"}


def _trace_type(series: str) -> pa.DataType:
    samples = pa.list_(pa.int64() if series in _COUNTS else pa.float64())
    return samples if series in _TIMES else pa.list_(samples)


_SCHEMA = pa.schema(
    [
        *_FLAT,
        ("windows", pa.list_(_WINDOW)),
        ("record_json", pa.string()),
        *((f"trace_{series}", _trace_type(series)) for series in Trace.model_fields),
    ]
)


def write_archive(folder: Path, allow_missing: bool = False) -> None:
    """Archive the campaign in `folder`: what an older archive holds, and new records.

    Parameters
    ----------
    folder : Path
        ``results/<campaign>``, with ``campaign.yaml`` and ``records/`` or an older archive or both.
    allow_missing : bool
        Whether planned runs may lack their record: for archiving between sittings.

    Raises
    ------
    ArchiveError
        If a record was replayed or comes from a fake, if an archived record and a new one of the
        same run differ, or if the older archive was altered.
    RecordError, ComparabilityError
        See :func:`inference_energy.aggregate.check`; also if a file cannot be written.
    """
    resolved = read_resolved(folder / CAMPAIGN)
    archived = _archived_records(folder, extending=True) if (folder / RECORDS).exists() else []
    records = _merged(archived, read_records(folder), folder)
    for record in records:
        _refuse_unreal(record, folder)
    check(resolved, records, allow_missing)
    content = _parquet(resolved, records)
    digests = {RECORDS: hashlib.sha256(content).hexdigest()}
    digests |= {name: _digest(folder / name) for name in [CAMPAIGN, *_beside(folder)]}
    write_atomically(folder / RECORDS, content)
    lines = (f"{digest}  {name}\n" for name, digest in sorted(digests.items()))
    write_atomically(folder / SUMS, "".join(lines).encode())


def read_archive(folder: Path) -> tuple[ResolvedCampaign, list[Record]]:
    """Give back an archived campaign and its records in the planned order, after checking the sums.

    Raises
    ------
    ArchiveError
        If a file is missing or is not the one that was archived; names it and both hashes.
    """
    records = _archived_records(folder)
    return read_resolved(folder / CAMPAIGN), records


# --- what may be archived ------------------------------------------------------------------------


def _merged(archived: Iterable[Record], new: Iterable[Record], folder: Path) -> list[Record]:
    """All records, each run once."""
    merged = {record.run_id: record for record in archived}
    for record in new:
        if merged.setdefault(record.run_id, record) != record:
            old = merged[record.run_id].identity
            raise ArchiveError(
                f"{folder}: run {record.run_id}",
                f"archived record started at {old.started_at_utc}, another in records/ at"
                f" {record.identity.started_at_utc}",
                "one record of a run",
                f"The archive stands: delete records/{record.run_id}.json, or restart the campaign under another name",
            )
    return list(merged.values())


def _refuse_unreal(record: Record, folder: Path) -> None:
    method, replayed = record.meter.energy_method, record.provenance.replay_of
    if replayed is not None or method in ("replay", "fake"):
        found = f"energy method {method}" + (f", replayed from {replayed}" if replayed else "")
        raise ArchiveError(
            f"{folder}: run {record.run_id}",
            found,
            "a real run: an archive holds nothing else",
            "Measure the campaign with measurement.source: live",
        )


# --- the Parquet file ----------------------------------------------------------------------------


def _parquet(resolved: ResolvedCampaign, records: Sequence[Record]) -> bytes:
    """Bytes of ``records.parquet``: the same for the same records in any order."""
    place = {run.run_id: run.order for run in expand(resolved)}
    rows = [_row(record) for record in sorted(records, key=lambda one: place[one.run_id])]
    buffer = io.BytesIO()
    pq.write_table(
        pa.Table.from_pylist(rows, schema=_SCHEMA),
        buffer,
        compression="zstd",
        compression_level=19,
        use_dictionary=False,
    )  # measured: smaller so, as hardly a value of power comes twice
    return buffer.getvalue()


def _row(record: Record) -> dict[str, Any]:
    windows = flatten.window_rows(record)
    run = flatten.run_row(record, windows)
    trace = record.trace.model_dump()
    return (
        {name: run[name] for name in _FLAT.names}
        | {
            "windows": [{field.name: window[field.name] for field in _WINDOW} for window in windows],
            "record_json": record.model_dump_json(exclude={"trace"}),
        }
        | {f"trace_{series}": values for series, values in trace.items()}
    )


def _archived_records(folder: Path, extending: bool = False) -> list[Record]:
    _verify(folder, extending)
    path = folder / RECORDS
    try:
        rows = pq.read_table(path, columns=["record_json", *(f"trace_{name}" for name in Trace.model_fields)])
    except (pa.ArrowException, OSError, ValueError) as error:
        raise ArchiveError(
            str(path), f"cannot be read: {error}", "a file that write_archive wrote", _restore(folder)
        ) from error
    records = []
    for index, row in enumerate(rows.to_pylist()):
        content = json.loads(row.pop("record_json"))
        content["trace"] = {name.removeprefix("trace_"): values for name, values in row.items()}
        records.append(parse_record(content, f"{path}, row {index}"))
    return records


# --- sums and files ------------------------------------------------------------------------------


def _verify(folder: Path, extending: bool) -> None:
    """Hold every file to its sum.

    An archive that is being extended may come with a longer design, with qualifications of the
    new sittings and with attempts, which its sums do not know yet.
    """
    sums = _read_sums(folder)
    needed = {RECORDS} if extending else {RECORDS, CAMPAIGN, *_beside(folder)}
    if needed - set(sums):
        raise ArchiveError(
            str(folder / SUMS),
            f"no sum of {', '.join(sorted(needed - set(sums)))}",
            "a sum of every archived file",
            _restore(folder),
        )
    for name, digest in sums.items():
        if extending and name == CAMPAIGN:
            continue
        path = folder / name
        if not path.exists():
            raise ArchiveError(str(path), f"missing, though {SUMS} lists it", f"SHA-256 {digest}", _restore(folder))
        found = _digest(path)
        if found != digest:
            raise ArchiveError(str(path), f"altered: SHA-256 {found}", digest, _restore(folder))


def _read_sums(folder: Path) -> dict[str, str]:
    path = folder / SUMS
    if not path.exists():
        raise ArchiveError(str(path), "no such file", f"an archive: {RECORDS}, {CAMPAIGN} and {SUMS}", _restore(folder))
    sums = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        digest, separator, name = line.partition("  ")
        if not separator or len(digest) != 64:
            raise ArchiveError(str(path), f"line {line!r}", "<SHA-256>  <file>", _restore(folder))
        sums[name] = digest
    return sums


def _beside(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for pattern in _BESIDE for path in folder.glob(pattern))


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _restore(folder: Path) -> str:
    return (
        f"Restore it: git checkout -- {folder}. Or, if records/ still holds every record, delete {RECORDS} and"
        f" {SUMS} and archive again"
    )
