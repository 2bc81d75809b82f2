"""An archive gives back every record, notices every change, and takes nothing that was not measured.

The records are SYNTHETIC; they call their instrument ``nvml_total_energy`` only to get in.
"""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow.parquet as pq
import pytest
import synthetic

from inference_energy.aggregate import aggregate
from inference_energy.archive import read_archive, write_archive
from inference_energy.errors import ArchiveError, ComparabilityError, RecordError
from inference_energy.records import Record, write_record

RESOLVED = synthetic.small_campaign()
FAILING = synthetic.expand(RESOLVED)[1].run_id
RECORDS = synthetic.campaign_records(RESOLVED, energy_method="nvml_total_energy", out_of_memory=[FAILING])


def _measured(folder: Path, records: list[Record]) -> None:
    """What measuring leaves behind."""
    folder.mkdir(exist_ok=True)
    (folder / "campaign.yaml").write_text(RESOLVED.dump(), encoding="utf-8")
    for record in records:
        write_record(folder / "records" / f"{record.run_id}.json", record)


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    folder = tmp_path / "synthetic"
    _measured(folder, RECORDS)
    (folder / "qualification").mkdir()
    (folder / "qualification" / "SYNTHETIC-1.json").write_text("{}", encoding="utf-8")
    write_archive(folder)
    return folder


def test_every_record_comes_back_as_it_was(archive: Path) -> None:
    resolved, records = read_archive(archive)
    assert resolved == RESOLVED
    assert records == RECORDS
    before, after = aggregate(RESOLVED, RECORDS), aggregate(resolved, records)
    for name, frame in before.items():
        pd.testing.assert_frame_equal(frame, after[name], rtol=0, atol=0)


def test_unknown_comes_back_as_unknown(tmp_path: Path) -> None:
    changes = {
        "trace.power_average_w": [[None] * len(RECORDS[0].trace.time_s)],
        "trace.throttle_reasons": [[]],
        "counter_started_j": [None],
        "hardware.devices.0.power_limit_w": 700.0,
    }
    records = [synthetic.altered(RECORDS[0], changes), *RECORDS[1:]]
    _measured(tmp_path, records)
    write_archive(tmp_path)
    assert read_archive(tmp_path)[1] == records


def test_any_tool_reads_the_flat_columns(archive: Path) -> None:
    frame = pd.read_parquet(archive / "records.parquet")
    runs = aggregate(RESOLVED, RECORDS)["runs"]
    for column in (
        "campaign",
        "study",
        "setting",
        "cycle",
        "status",
        "model",
        "precision",
        "batch_size",
        "n_gpus",
        "gpu_name",
        "gpu_uuid_hash",
        "host",
        "sitting",
        "started_at_utc",
        "energy_j_per_output_token",
        "throughput_tokens_per_s",
        "power_mean_w",
    ):
        pd.testing.assert_series_equal(frame[column], runs[column], check_dtype=False)
    windows = frame["windows"].map(len)
    assert windows[frame["status"] == "ok"].eq(5).all()
    assert windows[frame["status"] == "out_of_memory"].eq(0).all()
    assert frame["energy_j_per_output_token"].isna().sum() == 1
    first = pq.read_table(archive / "records.parquet").to_pylist()[0]["windows"][0]
    assert first["energy_j_per_output_token"] == pytest.approx(first["energy_j"] / first["n_output_tokens_measured"])


def test_the_same_records_give_the_same_bytes(archive: Path, tmp_path: Path) -> None:
    old = {path.name: path.read_bytes() for path in archive.glob("*") if path.is_file()}
    write_archive(archive)  # merges the archive with the same records
    assert {path.name: path.read_bytes() for path in archive.glob("*") if path.is_file()} == old
    assert set(old) == {"campaign.yaml", "records.parquet", "SHA256SUMS"}


def test_sha256sum_agrees(archive: Path) -> None:
    done = subprocess.run(
        ["sha256sum", "--check", "--strict", "SHA256SUMS"], cwd=archive, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert [line.split(":")[0] for line in done.stdout.splitlines()] == [
        "campaign.yaml",
        "qualification/SYNTHETIC-1.json",
        "records.parquet",
    ]


# --- altered and missing -------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["records.parquet", "campaign.yaml", "qualification/SYNTHETIC-1.json"])
def test_an_altered_file_is_refused(archive: Path, name: str) -> None:
    content = bytearray((archive / name).read_bytes())
    content[len(content) // 2] ^= 1
    (archive / name).write_bytes(bytes(content))
    with pytest.raises(ArchiveError, match=rf"{name}: altered: SHA-256 [0-9a-f]{{64}}. Expected: [0-9a-f]{{64}}.*git"):
        read_archive(archive)


@pytest.mark.parametrize("name", ["records.parquet", "campaign.yaml", "qualification/SYNTHETIC-1.json", "SHA256SUMS"])
def test_a_missing_file_is_named(archive: Path, name: str) -> None:
    (archive / name).unlink()
    with pytest.raises(ArchiveError, match=rf"{name}: (missing|no such file).*git checkout"):
        read_archive(archive)


def test_a_file_without_a_sum_is_refused(archive: Path) -> None:
    sums = (archive / "SHA256SUMS").read_text(encoding="utf-8").splitlines()
    (archive / "SHA256SUMS").write_text("\n".join(sums[:-1]) + "\n", encoding="utf-8")
    with pytest.raises(ArchiveError, match=r"no sum of records.parquet"):
        read_archive(archive)
    (archive / "SHA256SUMS").write_text("what is this\n", encoding="utf-8")
    with pytest.raises(ArchiveError, match="line 'what is this'"):
        read_archive(archive)


def test_an_altered_archive_is_not_extended(archive: Path) -> None:
    with (archive / "records.parquet").open("ab") as file:
        file.write(b"x")
    with pytest.raises(ArchiveError, match="altered"):
        write_archive(archive)


# --- what gets in --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "changes",
    [
        {"meter.energy_method": "replay", "provenance.replay_of": "h200-pilot"},
        {"provenance.replay_of": "h200-pilot"},
        {"meter.energy_method": "fake"},
    ],
)
def test_what_was_not_measured_is_refused(tmp_path: Path, changes: dict[str, Any]) -> None:
    _measured(tmp_path, [synthetic.altered(one, changes) for one in RECORDS])
    with pytest.raises(ArchiveError, match="a real run"):
        write_archive(tmp_path)
    assert not (tmp_path / "records.parquet").exists()


def test_a_later_sitting_extends_an_archive(tmp_path: Path) -> None:
    first = [one for one in RECORDS if one.identity.cycle == 1]
    _measured(tmp_path, first)
    with pytest.raises(RecordError, match="4 of 8 runs have no record"):
        write_archive(tmp_path)
    write_archive(tmp_path, allow_missing=True)
    assert read_archive(tmp_path)[1] == first
    for path in tmp_path.glob("records/*/*.json"):
        path.unlink()
    (tmp_path / "qualification").mkdir()
    (tmp_path / "qualification" / "SYNTHETIC-2.json").write_text("{}", encoding="utf-8")
    _measured(tmp_path, [one for one in RECORDS if one.identity.cycle == 2])
    write_archive(tmp_path)
    assert read_archive(tmp_path)[1] == RECORDS
    assert "qualification/SYNTHETIC-2.json" in (tmp_path / "SHA256SUMS").read_text(encoding="utf-8")


def test_a_longer_design_extends_an_archive(archive: Path) -> None:
    longer = synthetic.small_campaign(n_cycles=3)
    records = synthetic.campaign_records(longer, energy_method="nvml_total_energy")
    (archive / "campaign.yaml").write_text(longer.dump(), encoding="utf-8")
    for path in archive.glob("records/*/*.json"):
        path.unlink()
    for record in records:
        if record.identity.cycle == 3:
            write_record(archive / "records" / f"{record.run_id}.json", record)
    with pytest.raises(ArchiveError, match=r"campaign\.yaml: altered"):
        read_archive(archive)
    write_archive(archive)
    resolved, found = read_archive(archive)
    assert resolved == longer
    assert found[: len(RECORDS)] == RECORDS
    assert len(found) == 12


def test_a_run_measured_twice_does_not_replace_the_archived_one(archive: Path) -> None:
    again = synthetic.altered(RECORDS[0], {"identity.started_at_utc": "2000-01-01T00:00:00+00:00"})
    _measured(archive, [again])
    with pytest.raises(ArchiveError, match="one record of a run") as caught:
        write_archive(archive)
    assert RECORDS[0].identity.started_at_utc in str(caught.value)
    assert read_archive(archive)[1] == RECORDS


def test_a_mixture_is_not_archived(tmp_path: Path) -> None:
    _measured(tmp_path, [synthetic.altered(RECORDS[0], {"software.driver": "1"}), *RECORDS[1:]])
    with pytest.raises(ComparabilityError, match="driver"):
        write_archive(tmp_path)


def test_a_full_disk_leaves_the_old_archive(archive: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old = (archive / "records.parquet").read_bytes()

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(RecordError, match="No space left on device"):
        write_archive(archive)
    assert (archive / "records.parquet").read_bytes() == old
    assert not list(archive.glob("*.tmp"))
    assert not list(archive.glob(".*"))
