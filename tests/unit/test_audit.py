"""Published records through a mapping: checks and accountings on tables made for the purpose."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml
from made_records import IDLE_W, LIMIT_W, MAPPING, N_OUTPUT, N_PROMPTS, SECONDS, WORKING_W, table

from inference_energy.audit.accountings import energies, trackers
from inference_energy.audit.checks import CHECKS
from inference_energy.audit.judge import judged
from inference_energy.audit.mapping import read_mapping_of, read_table, to_records
from inference_energy.audit.published import audited
from inference_energy.audit.records import Records
from inference_energy.errors import AnalysisError, ConfigError
from inference_energy.facts import read_hardware, read_models

ROOT = Path(__file__).resolve().parents[2]
BOOTSTRAP: dict[str, Any] = {"confidence": 0.95, "n_bootstrap": 100, "seed": 1}


def _mapping(folder: Path, **changes: Any) -> Path:
    path = folder / "mapping.yaml"
    path.write_text(yaml.safe_dump(MAPPING | changes), encoding="utf-8")
    return path


def _records(frame: pd.DataFrame, folder: Path, **changes: Any) -> Records:
    models = read_models(ROOT / "config" / "models.yaml")
    return to_records(frame, read_mapping_of(_mapping(folder, **changes)), LIMIT_W, models, "made.csv")


def _checks(frame: pd.DataFrame, folder: Path) -> pd.DataFrame:
    return judged(_records(frame, folder)).set_index("check")


def test_units_become_joules_seconds_and_fractions(tmp_path: Path) -> None:
    records = _records(table(), tmp_path)
    assert records.runs.loc[3, "energy_j"] == pytest.approx(4 * 901 * SECONDS)  # 4 x (800 + 100 + 1) W x 10 s
    assert records.processes["duration_s"].to_numpy() == pytest.approx(SECONDS)
    assert records.runs.loc[0, "batch_duration_s"] == pytest.approx(SECONDS / 8)
    assert records.mean_power_w().iloc[0] == pytest.approx(290)
    assert sorted(records.gpus["utilisation_fraction"].unique()) == [0.0, 1.0]
    assert len(records.processes) == 2 * (1 + 2 + 3 + 4)


def test_trackers_of_all_gpus_are_told_from_those_of_one(tmp_path: Path) -> None:
    every, own = _checks(table(), tmp_path), _checks(table(reads_all=False), tmp_path)
    assert every.loc["power_own_gpu", ["n_tested", "n_failing"]].tolist() == [20, 20]
    # 290 W over 1 x 250 W in both cycles; 460 W and 630 W are below two and three limits.
    assert every.loc["power_gpus_of_processes", ["n_tested", "n_failing"]].tolist() == [12, 2]
    assert every.loc["power_all_gpus", "verdict"] == own.loc["power_all_gpus", "verdict"] == "holds"
    assert own.loc["power_own_gpu", "verdict"] == "holds"
    worst = every.loc["power_own_gpu"]
    assert (worst["worst_found"], worst["worst_expected"], worst["worst_example"]) == ("800 W", "250 W", "c1n4")
    assert worst["found_over_expected_worst_ratio"] == pytest.approx(3.2)


def test_a_sum_over_trackers_of_one_machine_is_more_than_it_can_draw(tmp_path: Path) -> None:
    row = _checks(table(), tmp_path).loc["power_summed"]
    # 290, 920, 1890 and 3200 W against 1000 W.
    assert row[["n_tested", "n_failing"]].tolist() == [8, 4]
    assert row["found_over_expected_median_ratio"] == pytest.approx((0.92 + 1.89) / 2)
    assert _checks(table(reads_all=False), tmp_path).loc["power_summed", "verdict"] == "holds"


def test_whether_prompts_are_shared_follows_from_batches(tmp_path: Path) -> None:
    repeated, shared = _checks(table(), tmp_path), _checks(table(shares=True), tmp_path)
    assert repeated.loc["each_answers_all_prompts", ["n_tested", "verdict"]].tolist() == [6, "holds"]
    assert repeated.loc["prompts_are_shared", "verdict"] == "fails"
    assert shared.loc["prompts_are_shared", "verdict"] == "holds"
    assert shared.loc["each_answers_all_prompts", "verdict"] == "fails"
    assert repeated.loc["tokens_of_one_process", "verdict"] == "holds"
    assert repeated.loc["tokens_of_all_processes", ["n_failing", "verdict"]].tolist() == [6, "fails in part"]


def test_the_text_is_held_against_the_data(tmp_path: Path) -> None:
    rows = _checks(table(), tmp_path)
    assert rows.loc["output_length", ["worst_found", "worst_expected"]].tolist() == ["16 tokens", "500 tokens"]
    assert rows.loc["input_length", ["verdict", "n_tested"]].tolist() == ["not testable", 0]
    assert "do not hold" in rows.loc["input_length", "reason"]
    assert rows.loc["cycles", ["n_tested", "verdict"]].tolist() == [4, "holds"]
    assert rows.loc["cycles_apart", ["n_tested", "verdict"]].tolist() == [4, "holds"]  # 2000 s, stated 1000 s
    once = _checks(table().iloc[:4], tmp_path)
    assert once.loc["cycles", ["n_failing", "worst_found"]].tolist() == [4, "1 cycle"]


@pytest.mark.parametrize(
    ("check", "column", "row", "value"),
    [
        ("energy_summed", "total_kwh", 5, 1.0),
        ("energy_per_token", "j_per_token", 2, 1.0),
        ("energy_parts", "all_0", 3, 1.0),
        ("tracked_time", "seconds", 0, 20.0),
        ("other_gpus_rest", "use_3", 1, 90.0),
        ("runs_apart", "when", 1, pd.Timestamp("2025-01-01 00:33:45")),  # 5 s after run 0 ended
        ("cpu_power_varies", "cpu_power_0", 0, 80.0),
    ],
)
def test_each_check_sees_what_breaks_it(tmp_path: Path, check: str, column: str, row: int, value: object) -> None:
    frame = table()
    before = _checks(frame, tmp_path).loc[check]
    frame.loc[row, column] = value
    after = _checks(frame, tmp_path).loc[check]
    expected = -1 if check == "cpu_power_varies" else 1  # there, what is alike fails
    assert after["n_failing"] - before["n_failing"] == expected
    if expected == 1:
        assert after["worst_example"] == frame.loc[row, "id"]


def test_names_given_twice_are_seen(tmp_path: Path) -> None:
    frame = table()
    frame.loc[1, "id"] = "c1n1"
    assert _checks(frame, tmp_path).loc["run_names", "n_failing"] == 2


def test_every_check_has_a_name_of_its_own() -> None:
    assert len({check.name for check in CHECKS}) == len(CHECKS)


def test_the_line_gives_idle_and_working_power(tmp_path: Path) -> None:
    rows = trackers(_records(table(), tmp_path), **BOOTSTRAP)
    assert rows["n_processes"].tolist() == [1, 2, 3, 4]
    assert rows["power_w"].tolist() == pytest.approx([290, 460, 630, 800])
    assert rows["power_summed_w"].tolist() == pytest.approx([290, 920, 1890, 3200])
    first = rows.iloc[0]
    for name, watts in (("base", 120), ("added", 170), ("idle_gpu", 30), ("working_gpu", 200)):
        assert first[[f"{name}_power_w", f"{name}_power_w_low", f"{name}_power_w_high"]].tolist() == pytest.approx(
            [watts] * 3
        )


def test_one_run_beside_somebody_elses_work_does_not_move_the_line(tmp_path: Path) -> None:
    frame = pd.concat([table(), table(), table()], ignore_index=True)
    frame.loc[0, "gpu_0"] *= 1.6  # as if one more GPU worked
    first = trackers(_records(frame, tmp_path), **BOOTSTRAP).iloc[0]
    assert first["working_gpu_power_w"] == pytest.approx(WORKING_W)
    assert first["power_most_w"] == pytest.approx(464)
    # Ordinary least squares would have been moved.
    n, power = frame["processes"].to_numpy(float), frame["gpu_0"].to_numpy(float) * 3.6e6 / SECONDS
    assert np.polyfit(n, power, 1)[0] != pytest.approx(170, abs=1)


def test_energy_per_token_under_each_accounting_by_hand(tmp_path: Path) -> None:
    rows = energies(_records(table(), tmp_path), {"all": IDLE_W}, **BOOTSTRAP)
    four = rows[rows["n_processes"] == 4].set_index("accounting")
    tokens, machine = N_PROMPTS * N_OUTPUT, (800 + 101) * SECONDS
    expected = {
        "published": 4 * machine / tokens,
        "sum_per_generated": machine / tokens,
        "once_per_counted": machine / tokens,
        "once_per_generated": machine / (4 * tokens),
        "gpus_per_generated": 800 * SECONDS / (4 * tokens),
        "working_gpus_per_counted": 800 * SECONDS / tokens,
        "working_gpus_per_generated": 200 * SECONDS / tokens,
    }
    assert four["energy_j_per_output_token"].to_dict() == pytest.approx(expected)
    ratio = four["over_one_process_ratio"]
    assert ratio["published"] == pytest.approx(4 * 901 / 391)
    assert ratio["once_per_generated"] == pytest.approx(901 / 391 / 4)
    assert ratio["working_gpus_per_generated"] == pytest.approx(1.0)
    assert (rows.loc[rows["n_processes"] == 1, "over_one_process_ratio"] == 1).all()


def test_settings_with_one_number_of_processes_are_left_out(tmp_path: Path) -> None:
    frame = table()
    frame["batch"] = frame["processes"]
    records = _records(frame, tmp_path)
    assert trackers(records, **BOOTSTRAP).empty
    assert energies(records, {}, **BOOTSTRAP).empty
    without_one = _records(table()[lambda made: made["processes"] > 1], tmp_path)
    assert energies(without_one, {"all": IDLE_W}, **BOOTSTRAP)["over_one_process_ratio"].isna().all()


@pytest.mark.parametrize("ending", ["csv", "csv.gz", "parquet"])
def test_every_kind_of_file_gives_the_same_tables(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"made.{ending}"
    if ending == "parquet":
        table().to_parquet(path)
    else:
        content = table().to_csv(index=False).encode()
        path.write_bytes(gzip.compress(content) if ending == "csv.gz" else content)
    found = audited(path, _mapping(tmp_path), ROOT / "config", **BOOTSTRAP)
    assert set(found) == {"audit_source", "audit_checks", "audit_trackers", "audit_energy"}
    source = found["audit_source"].iloc[0]
    assert (source["n_runs"], source["power_limit_w"], source["first_at"]) == (8, 250.0, "2025-01-01T00:33:40")
    assert len(found["audit_checks"]) == len(CHECKS)
    assert found["audit_trackers"]["idle_gpu_power_w"].iloc[0] == pytest.approx(IDLE_W)


def test_bad_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(AnalysisError, match="no such file"):
        read_table(tmp_path / "none.csv")
    for name, content, words in (
        ("rows.csv", b"id,processes\n", "no rows"),
        ("empty.csv", b"", "not readable"),
        ("broken.csv.gz", b"no gzip", "not readable"),
        ("made.xlsx", b"x", "unknown kind"),
    ):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(AnalysisError, match=words):
            read_table(tmp_path / name)


def test_a_missing_column_and_text_for_numbers_are_named(tmp_path: Path) -> None:
    with pytest.raises(AnalysisError, match=r"no column 'total_kwh'. Like it: total_kw\b"):
        _records(table().rename(columns={"total_kwh": "total_kw"}), tmp_path)
    with pytest.raises(AnalysisError, match=r"column tokens.*numbers"):
        _records(table().assign(tokens="many"), tmp_path)
    with pytest.raises(AnalysisError, match=r"column when.*times"):
        _records(table().assign(when="a while ago"), tmp_path)


def test_bad_mappings_are_refused(tmp_path: Path) -> None:
    runs = MAPPING["runs"]
    for changes, words in (
        ({"runs": runs | {"energy_j": {"column": "total_kwh", "unit": "kW"}}}, "'kW'. Known: J, Wh, kWh"),
        ({"runs": runs | {"energy_j": {"column": "total_kwh"}}}, "energy_j.unit: this key is missing"),
        ({"colums": {}}, "unknown key"),
        ({"n_gpus": 0}, "at least 1"),
    ):
        with pytest.raises(ConfigError, match=words):
            read_mapping_of(_mapping(tmp_path, **changes))
    processes = {name: MAPPING["processes"][name] for name in ("gpu_energy_j", "energy_j")}
    with pytest.raises(ConfigError, match="duration_from_cpu without"):
        _records(table(), tmp_path, processes=processes)
    table().to_csv(tmp_path / "made.csv", index=False)
    with pytest.raises(ConfigError, match="no facts of 'NVIDIA B999'"):
        audited(tmp_path / "made.csv", _mapping(tmp_path, gpu="NVIDIA B999"), ROOT / "config", **BOOTSTRAP)


def test_the_mapping_of_the_published_records_is_valid() -> None:
    mapping = read_mapping_of(ROOT / "resources" / "audit" / "baker.yaml")
    assert mapping.gpu in read_hardware(ROOT / "config" / "hardware.yaml")
    assert mapping.source.commit in mapping.source.url


def test_an_emissions_file_of_one_tracker_needs_few_columns(tmp_path: Path) -> None:
    """The columns that CodeCarbon itself writes: no processes, no tokens; power above a card's limit is still seen."""
    frame = pd.DataFrame(
        {
            "run_id": ["a", "b"],
            "timestamp": ["2025-01-01T00:01:00", "2025-01-01T00:02:00"],
            "duration": [10.0, 20.0],
            "cpu_energy": [1.0, 2.0],
            "gpu_energy": [200 * 10 / 3.6e6, 300 * 20 / 3.6e6],
            "ram_energy": [1.0, 1.0],
            "energy_consumed": [2 + 200 * 10 / 3.6e6, 3 + 300 * 20 / 3.6e6],
        }
    )
    kwh = {name: {"column": name, "unit": "kWh"} for name in frame if "energy" in name}
    changes = {
        "runs": {
            "run": {"column": "run_id"},
            "ended_at": {"column": "timestamp"},
            "duration_s": {"column": "duration", "unit": "s"},
            "energy_j": kwh["energy_consumed"],
        },
        "processes": {
            "gpu_energy_j": kwh["gpu_energy"],
            "cpu_energy_j": kwh["cpu_energy"],
            "ram_energy_j": kwh["ram_energy"],
            "energy_j": kwh["energy_consumed"],
            "duration_s": {"column": "duration", "unit": "s"},
        },
        "duration_from_cpu": False,
        "gpus": None,
        "setting": ["run_id"],
        "n_gpus": 1,
    }
    rows = judged(_records(frame, tmp_path, **changes)).set_index("check")
    assert rows.loc["power_own_gpu", ["n_tested", "n_failing", "worst_example"]].tolist() == [2, 1, "b"]
    for name in ("energy_parts", "energy_summed", "tracked_time", "runs_apart", "run_names"):
        assert rows.loc[name, "verdict"] == "holds", name
    for name in ("energy_per_token", "tokens_of_all_processes", "cycles", "other_gpus_rest"):
        assert rows.loc[name, "verdict"] == "not testable", name


# --- work against energy ---------------------------------------------------------------------------


def _served(tmp_path: Path, energy_kwh: float) -> pd.Series:
    """The check of work per joule on one run of 8B on an H100: 1,000 requests of 1,000 tokens in and 50 out."""
    table = "model,pattern,n,seconds,kwh,watts\n" + f"8B,fixed,1000,100,{energy_kwh!r},75\n8B,burst,1000,90,1.0,400\n"
    (tmp_path / "served.csv").write_text(table)
    (tmp_path / "served.yaml").write_text(
        "name: served\ntitle: t\nsource: {url: u, commit: c, sha256: s}\ngpu: NVIDIA H100 80GB HBM3\nn_gpus: 1\n"
        "precision: bfloat16\nmodels: {8B: llama-3.1-8b}\nsetting: [pattern]\nstated: {source: none}\n"
        "runs:\n  run: {columns: [model, pattern]}\n  group: {column: model}\n  n_prompts: {column: n}\n"
        "  n_input_tokens: {value: 1000, source: made up}\n  n_output_tokens: {value: 50, source: made up}\n"
        "  energy_j: {column: kwh, unit: kWh}\n  duration_s: {column: seconds, unit: s}\n"
        "processes:\n  gpu_energy_j: {column: kwh, unit: kWh}\n  duration_s: {column: seconds, unit: s}\n"
    )
    found = audited(tmp_path / "served.csv", tmp_path / "served.yaml", ROOT / "config", **BOOTSTRAP)
    return found["audit_checks"].set_index("check").loc["work_per_joule"]


def test_work_per_joule_by_hand(tmp_path: Path) -> None:
    # Layers of Llama-3.1-8B: 8,030,261,248 parameters less twice 128,256 x 4,096. A request sends 1,049 tokens through.
    flop = 2 * (8_030_261_248 - 2 * 128_256 * 4_096) * 1_049 * 1_000
    best = 989.5e12 / 700  # FLOP per joule at peak rate and limit
    least_kwh = flop / best / 3.6e6
    row = _served(tmp_path, least_kwh * 1.001)
    assert (row["n_tested"], row["n_failing"], row["verdict"]) == (2, 0, "holds")
    row = _served(tmp_path, least_kwh / 4)
    assert (row["n_failing"], row["worst_example"]) == (1, "8B, fixed")
    assert row["found_over_expected_worst_ratio"] == pytest.approx(4.0, rel=1e-9)
    assert row["worst_expected"] == "1.414 TFLOP/J"
