"""Engines beside each other, in one process, and their start: worked by hand and by statsmodels, on SYNTHETIC runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import drawn_engines
import numpy as np
import pandas as pd
import pytest
import statsmodels.formula.api as smf
from drawn_engines import EAGER, GRAPHS, MODELS, TRANSFORMERS, run, runs
from scipy import stats
from statsmodels.stats.weightstats import DescrStatsW

from inference_energy import tables
from inference_energy.analyse.claims import ANSWERS, claims
from inference_energy.analyse.engine_comparison import engine_comparison
from inference_energy.analyse.engine_start import engine_start
from inference_energy.analyse.sharing import sharing
from inference_energy.models import engines
from inference_energy.policy.estimates import rows_with

ROOT = Path(__file__).resolve().parents[2]
CLAIMS = pd.read_csv(ROOT / "resources/published/claims.csv", dtype="string", keep_default_na=False)
BOOTSTRAP: dict[str, Any] = {"confidence": 0.95, "n_bootstrap": 500, "seed": 1}
TOST: dict[str, Any] = {"confidence": 0.95, "margin_fraction": 0.02}
ENDS = ["estimate", "estimate_low", "estimate_high"]


@pytest.fixture(scope="module")
def compared() -> pd.DataFrame:
    return engine_comparison(runs(), CLAIMS, **BOOTSTRAP).table()


def _one(frame: pd.DataFrame, **levels: Any) -> pd.Series:
    found = rows_with(frame, **levels)
    assert len(found) == 1, (levels, found)
    return found.iloc[0]


def test_an_engine_that_only_another_study_measured_is_taken_and_one_of_its_own_kind_is_not(
    compared: pd.DataFrame,
) -> None:
    given = runs()
    moved = given["model"].eq(MODELS[0]) & given["execution"].eq("graphs") & given["study"].eq("engine")
    elsewhere = given.assign(study=given["study"].mask(moved, "prompts_at_once"))
    pd.testing.assert_frame_equal(engine_comparison(elsewhere, CLAIMS, **BOOTSTRAP).table(), compared)
    apart = elsewhere.assign(engine_process=elsewhere["engine_process"].mask(moved, "own"))
    found = engine_comparison(apart, CLAIMS, **BOOTSTRAP).table()
    assert rows_with(found, model=MODELS[0], engine="vLLM with CUDA graphs").empty
    assert not rows_with(found, model=MODELS[1], engine="vLLM with CUDA graphs").empty


# --- what energy consists of ---------------------------------------------------------------------


def test_components_by_hand() -> None:
    """1 J at 200 tokens/s: 80 W idle are 0.4 J; a quarter of 60 W and of 36 W are 0.075 J and 0.045 J."""
    found = engines.with_components(runs([run("engine", MODELS[0], 1, 1, 1.0, **TRANSFORMERS)])).iloc[0]
    parts = (engines.NET, engines.IDLE, engines.CPU, engines.RAM, engines.BASE, engines.TOTAL)
    assert found[list(parts)].tolist() == pytest.approx([0.6, 0.4, 0.075, 0.045, 0.52, 1.12])
    assert np.isnan(found[engines.IDLE_GPUS])  # not metered
    assert found["words"] == "transformers"


def test_idle_gpus_bear_their_own_power_and_a_negative_part_is_missing() -> None:
    row = run("engine", MODELS[0], 1, 1, 1.0, **GRAPHS, idle_devices_power_w=240.0)
    found = engines.with_components(runs([row | {"idle_power_w": 250.0}])).iloc[0]
    assert found[engines.IDLE_GPUS] == pytest.approx(240 / 200)
    assert np.isnan(found[engines.NET])  # 250 W idle of 200 W
    assert found["words"] == "vLLM with CUDA graphs"


def test_a_run_without_idle_interval_takes_its_gpus_in_its_sitting_then_the_campaigns() -> None:
    first = run("engine", MODELS[0], 1, 1, 1.0, **EAGER)
    rows = [
        first,
        first | {"cycle": 2, "idle_power_w": None},  # the same GPU and sitting: 80 W
        first | {"cycle": 3, "gpu_uuid_hash": "b", "idle_power_w": 90.0},
        first | {"cycle": 4, "sitting": "other", "idle_power_w": None},  # 80, 80 and 90 W by now: their mean
    ]
    found = engines.with_components(runs(rows))[engines.IDLE] * 200
    assert found.tolist() == pytest.approx([80.0, 80.0, 90.0, 250 / 3])


# --- beside each other ---------------------------------------------------------------------------


def test_ratios_at_the_same_batch_are_those_of_construction(compared: pd.DataFrame) -> None:
    same = rows_with(compared, quantity=engines.ENERGY, baseline="vLLM with CUDA graphs")
    for batch, over in drawn_engines.OVER_GRAPHS.items():
        for engine, key in (("transformers", "t"), ("vLLM in eager mode", "e")):
            rows = rows_with(same, engine=engine, batch_size=batch, baseline_batch_size=batch)
            for model, expected in zip(MODELS, over[key], strict=True):
                assert _one(rows, model=model)["estimate"] == pytest.approx(expected, rel=1e-4)
            every = _one(rows, model="all")
            assert every["estimate"] == pytest.approx(np.prod(over[key]) ** (1 / 3), rel=1e-4)
            assert (every["n_settings"], every["n_pairs"], every["n_sitting_pairs"]) == (3, 6, 6)
    speed = _one(
        compared, quantity=engines.THROUGHPUT, engine="transformers", baseline="vLLM with CUDA graphs", model=MODELS[2],
        batch_size=64, baseline_batch_size=64,
    )  # fmt: skip
    assert speed["estimate"] == pytest.approx(1 / 1.8, rel=1e-4)  # of equal power
    assert speed["published_ratio"] == pytest.approx(1 / 5.6)


def test_one_by_one_over_many_at_once(compared: pd.DataFrame) -> None:
    row = _one(
        compared, quantity=engines.ENERGY, engine="transformers", baseline="vLLM with CUDA graphs", model=MODELS[0],
        batch_size=1, baseline_batch_size=64,
    )  # fmt: skip
    assert row["estimate"] == pytest.approx(4.0 / 0.025, rel=1e-3)
    assert not len(rows_with(compared, engine="vLLM in eager mode", batch_size=1, baseline_batch_size=64))


def test_the_interval_of_a_setting_is_that_of_cell_means(compared: pd.DataFrame) -> None:
    """Student's with the spread pooled over cells: what statsmodels gives for a model of one mean a cell."""
    frame = runs()
    chosen = frame[(frame["study"] == "engine") & (frame["execution"] != "graphs")]
    keys = ["model", "batch_size", "cycle"]
    wide = chosen.pivot_table(index=keys, columns="engine", values=engines.ENERGY).astype(float).reset_index()
    wide["log_ratio"] = np.log(wide["transformers"] / wide["vllm"])
    wide["cell"] = wide["model"] + wide["batch_size"].astype(str)
    fitted = smf.ols("log_ratio ~ 0 + C(cell)", wide).fit()
    expected = np.exp(fitted.conf_int(0.05).loc[f"C(cell)[{MODELS[2]}64]"])
    row = _one(
        compared, quantity=engines.ENERGY, engine="transformers", baseline="vLLM in eager mode", model=MODELS[2],
        batch_size=64, baseline_batch_size=64,
    )  # fmt: skip
    assert row[["estimate_low", "estimate_high"]].tolist() == pytest.approx(expected.tolist(), rel=1e-9)


def test_over_models_the_interval_is_students_of_their_means(compared: pd.DataFrame) -> None:
    logs = np.log(drawn_engines.OVER_GRAPHS[64]["e"])
    half = stats.t.ppf(0.975, 2) * logs.std(ddof=1) / np.sqrt(3)
    row = _one(
        compared, quantity=engines.ENERGY, engine="vLLM in eager mode", baseline="vLLM with CUDA graphs", model="all",
        batch_size=64,
    )  # fmt: skip
    assert row[ENDS].tolist() == pytest.approx(np.exp([logs.mean(), logs.mean() - half, logs.mean() + half]), rel=1e-4)


def test_levels_are_geometric_means(compared: pd.DataFrame) -> None:
    levels = compared[compared["baseline"].isna()]
    row = _one(levels, quantity=engines.ENERGY, engine="vLLM with CUDA graphs", model=MODELS[1], batch_size=64)
    assert row["estimate"] == pytest.approx(2.0 * 0.025 * np.sqrt(1.01 * 0.99))
    assert (row["n_settings"], row["n_pairs"]) == (1, 2)
    assert pd.isna(row["n_sitting_pairs"])


def test_one_cycle_has_estimates_without_intervals() -> None:
    rows = [row for row in drawn_engines.engine_runs() if row["cycle"] == 1 and row["model"] == MODELS[0]]
    first = engine_comparison(runs(rows), CLAIMS, **BOOTSTRAP).table()
    found = first[(first["quantity"] == engines.ENERGY) & (first["model"] != "all")]
    assert found["estimate"].notna().all()
    assert found["estimate_low"].isna().all()
    assert found["note"].str.contains("nothing was measured twice").all()


def test_a_setting_that_two_studies_measured_in_a_cycle_is_no_repetition() -> None:
    """Both in one process: their scatter is not that of cycles. The study's own runs count, not the others'."""
    rows = [row for row in drawn_engines.engine_runs() if row["cycle"] == 1]
    others = [row | {"study": "prompts_at_once", engines.ENERGY: 1.1 * row[engines.ENERGY]} for row in rows]
    found, alone = (engine_comparison(runs(frame), CLAIMS, **BOOTSTRAP).table() for frame in (others + rows, rows))
    assert found.loc[found["model"] != "all", "estimate_low"].isna().all()
    pd.testing.assert_frame_equal(found, alone)


def test_without_the_study_there_are_no_rows() -> None:
    frame = runs(drawn_engines.sharing_runs())
    assert engine_comparison(frame, CLAIMS, **BOOTSTRAP).table().empty


def test_claims_take_the_like_comparison_first(compared: pd.DataFrame) -> None:
    """8B: transformers take 1.8 times at the same batch, not 4.7; graphs save energy with 1B, 2.0 and 1.5 times."""
    rules = pd.read_csv(ROOT / "resources/claim_rules.csv", dtype="string", keep_default_na=False)
    names = ("vllm_fold", "vllm_nonidle_fold", "vllm_idle_fold", "vllm_speed", "cuda_graphs_small")
    empty = [pd.DataFrame(columns=tables.TABLES[name].names) for name in ANSWERS]
    frames = dict(zip(ANSWERS, empty, strict=True)) | {"engine_comparison": compared}
    published, ruled = (frame[frame["claim_id"].isin(names)].reset_index(drop=True) for frame in (CLAIMS, rules))
    found = claims(runs(), *frames.values(), published, ruled, **BOOTSTRAP).table()
    assert found["note"].dropna().empty
    main = found[found["main"]].set_index("claim_id")
    assert main.loc["vllm_speed", ["estimate", "verdict"]].tolist() == [pytest.approx(1.8, rel=1e-3), "same direction"]
    # 24 W of CPU and RAM beside 300 W in both: the fold of energy stays as it is.
    assert main.loc["vllm_fold", "estimate"] == pytest.approx(1.8, rel=1e-3)
    assert main.loc["vllm_idle_fold", "estimate"] == pytest.approx(1.8, rel=1e-3)
    assert main.loc["cuda_graphs_small", ["verdict", "n_estimates"]].tolist() == ["reproduced", 2]
    assert main.loc["cuda_graphs_small", "estimate"] == pytest.approx(1.5, rel=1e-3)  # the least favourable
    assert (main["n_runs"] == 4).sum() == 4  # two cycles of a setting and of its baseline
    apart = found[(found["claim_id"] == "vllm_fold") & ~found["main"]]
    assert apart["estimate"].min() == pytest.approx(1.8, rel=1e-3)
    assert apart["estimate"].max() > 50  # one by one over many at once


# --- one engine for several runs -----------------------------------------------------------------


def test_shared_over_own_agrees_with_statsmodels() -> None:
    rows = sharing(runs(), **TOST).table()
    of_energy = rows_with(rows, comparison=engines.SHARED_OVER_OWN, quantity=engines.ENERGY)
    ratios = {8: (1.0021, 1.0022), 32: (1.00212, 1.00222), 128: (1.00214, 1.00224)}
    margins = np.log([0.98, 1.02])
    for batch, pair in ratios.items():
        row, described = _one(of_energy, batch_size=batch), DescrStatsW(np.log(pair))
        assert row["p_value"] == pytest.approx(described.ttost_mean(*margins)[0], rel=1e-6)
        ends = np.exp(described.tconfint_mean(alpha=0.1))
        assert row[["estimate_low", "estimate_high"]].tolist() == pytest.approx(ends.tolist(), rel=1e-9)
        assert row["verdict"] == "equivalent"
    # Processes differ by more than settings do: the interval over all is that of the two processes' means.
    row, described = _one(of_energy, model="all"), DescrStatsW(np.log(list(ratios.values())).mean(axis=0))
    assert row["estimate"] == pytest.approx(np.exp(described.mean))
    assert row["p_value"] == pytest.approx(described.ttost_mean(*margins)[0], rel=1e-6)
    assert (row["n_settings"], row["n_pairs"], row["n_sitting_pairs"]) == (3, 6, 6)
    assert (row["confidence"], row["verdict"]) == (pytest.approx(0.9), "equivalent")


@pytest.mark.parametrize(
    ("ratios", "axis", "verdict"),
    [
        (((1.02, 0.99), (1.0201, 0.9901), (1.0199, 0.9899)), 0, "undecided"),  # two processes on unlike GPUs
        (((1.004, 1.0041), (0.996, 0.9961), (1.0, 1.0001)), 1, "equivalent"),  # settings differ, processes do not
    ],
)
def test_over_all_the_interval_is_the_wider_of_settings_and_processes(
    ratios: tuple[tuple[float, float], ...], axis: int, verdict: str
) -> None:
    rows = [
        run("sharing", MODELS[0], batch, cycle, ratio, **GRAPHS | {"engine_process": kind} | where)
        for place, (batch, pair) in enumerate(zip((8, 32, 128), ratios, strict=True))
        for cycle, each in enumerate(pair, start=1)
        for kind, ratio, where in (
            ("own", 1.0, {}),
            ("shared", each, {"process": f"p{cycle}", "process_position": place}),
        )
    ]
    found = rows_with(sharing(runs(rows), **TOST).table(), quantity=engines.ENERGY, comparison=engines.SHARED_OVER_OWN)
    row, described = _one(found, model="all"), DescrStatsW(np.log(ratios).mean(axis=axis))
    expected = np.exp([described.mean, *described.tconfint_mean(alpha=0.1)])
    assert row[ENDS].tolist() == pytest.approx(expected.tolist(), rel=1e-9)
    assert row["verdict"] == verdict


@pytest.mark.parametrize(("ratios", "verdict"), [((1.03, 1.0301), "different"), ((1.0, 1.04), "undecided")])
def test_what_differs_and_what_is_open(ratios: tuple[float, float], verdict: str) -> None:
    rows = [
        run("sharing", MODELS[0], 8, cycle, ratio, **GRAPHS | {"engine_process": kind})
        for cycle, each in enumerate(ratios, start=1)
        for kind, ratio in (("own", 1.0), ("shared", each))
    ]
    found = rows_with(sharing(runs(rows), **TOST).table(), quantity=engines.ENERGY, model=MODELS[0])
    assert found["verdict"].tolist() == [verdict]


def test_the_drift_is_that_of_a_model_with_settings_and_processes() -> None:
    rng = np.random.default_rng(3)
    rows = []
    for cycle in range(1, 5):
        places = rng.permutation(4)
        for batch, place in zip((1, 8, 32, 128), places, strict=True):
            energy = np.exp(np.log(5.0 / batch) + 0.05 * cycle + 0.003 * place + rng.normal(0, 0.002))
            where = {"process": f"p{cycle}", "process_position": int(place)}
            rows.append(run("sharing", MODELS[0], batch, cycle, float(energy), **GRAPHS | where))
    frame = runs(rows)
    row = _one(sharing(frame, **TOST).table(), quantity=engines.ENERGY, comparison=engines.LAST_OVER_FIRST)
    data = frame.assign(y=np.log(frame[engines.ENERGY]), place=frame["process_position"].astype(float))
    fitted = smf.ols("y ~ C(setting) + C(process) + place", data).fit()
    ends = fitted.conf_int(0.1).loc["place"]
    expected = np.exp(3 * np.array([fitted.params["place"], *ends]))
    assert row[ENDS].tolist() == pytest.approx(expected.tolist(), rel=1e-8)
    assert (row["n_places"], row["n_pairs"], row["n_settings"]) == (4, 16, 4)


def test_one_cycle_tells_no_drift_and_no_equivalence() -> None:
    frame = runs()
    rows = sharing(frame[frame["cycle"] == 1].reset_index(drop=True), **TOST).table()
    row = _one(rows, quantity=engines.ENERGY, comparison=engines.LAST_OVER_FIRST)
    assert np.isnan(row["estimate"])
    assert "several places" in row["note"]
    every = _one(rows, quantity=engines.ENERGY, comparison=engines.SHARED_OVER_OWN, model="all")
    assert (every["verdict"], every["n_settings"]) == ("undecided", 3)
    assert "one shared process" in every["note"]


def test_without_shared_engines_there_are_no_rows() -> None:
    assert sharing(runs([run("engine", MODELS[0], 1, 1, 1.0, **TRANSFORMERS)]), **TOST).table().empty


# --- starts --------------------------------------------------------------------------------------


def test_starts_and_what_pays_them_back() -> None:
    """1B, batch 1: graphs cost 4 kJ (new) or 2 kJ (reused) more to start; 2 J less 1 J is saved a token."""
    frame = runs(drawn_engines.engine_runs())
    rows = engine_start(frame, drawn_engines.devices(frame), confidence=0.95).table()
    graphs = rows_with(rows, engine="vLLM with CUDA graphs", model=MODELS[0])
    assert _one(graphs, quantity="load_energy_j", compile_cache="new")["estimate"] == pytest.approx(5000.0)
    eager = _one(rows, quantity="load_energy_j", engine="vLLM in eager mode", model=MODELS[0])
    assert (eager["estimate"], eager["n_starts"]) == (pytest.approx(1000.0), 2)
    for cache, tokens in (("new", 4000.0), ("reused", 2000.0)):
        paid = _one(graphs, quantity="payback_tokens", compile_cache=cache, batch_size=1)
        assert paid["estimate"] == pytest.approx(tokens, rel=1e-3)
        assert paid["note"] == "no interval, because 3 runs repeat a setting, and it takes 4"  # eager mode's starts
        seconds = _one(graphs, quantity="payback_s", compile_cache=cache, batch_size=1)["estimate"]
        assert seconds == pytest.approx(tokens / (200 / np.sqrt(1.01 * 0.99)), rel=1e-3)


def _paid(seed: int, eager: float = 2.0) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """Two cycles: starts of 3 kJ and 1 kJ scatter by 5 %, tokens of `eager` and 1 J by 1 %. Runs, devices, answer."""
    rng = np.random.default_rng(seed)
    rows, loaded = [], []
    for batch in (1, 8, 64):
        for cycle in (1, 2):
            for words, energy, start in ((EAGER, eager, 1000.0), (GRAPHS, 1.0, 3000.0)):
                levels = words | {"compile_cache": "reused" if words is GRAPHS else "none"}
                rows.append(
                    run("engine", MODELS[0], batch, cycle, float(energy * np.exp(rng.normal(0, 0.01))), **levels)
                )
                loaded.append(float(start * np.exp(rng.normal(0, 0.05))))
    frame = runs(rows)
    devices = drawn_engines.devices(frame)
    devices = devices.assign(load_energy_j=[j for each in loaded for j in (each, 1e6)])
    return frame, devices, engine_start(frame, devices, confidence=0.95).table()


def test_the_interval_of_a_payback_is_students_by_the_delta_method() -> None:
    """Variances pooled from all starts and all settings, gradient by differences, freedom after Satterthwaite."""
    frame, devices, found = _paid(1)
    starts = np.log(devices.loc[devices["participates"], "load_energy_j"].to_numpy(float))
    kind = (frame["execution"] == "graphs").to_numpy()
    s2 = sum(starts[of].var(ddof=1) * 5 for of in (kind, ~kind)) / 10  # six starts of each kind
    logs = np.log(frame[engines.ENERGY].to_numpy(float))
    e2 = sum(logs[frame["setting"] == name].var(ddof=1) for name in frame["setting"].unique()) / 6  # two of each
    one = (frame["batch_size"] == 1).to_numpy()
    at = np.array([starts[kind].mean(), starts[~kind].mean(), logs[one & ~kind].mean(), logs[one & kind].mean()])

    def log_payback(x: np.ndarray) -> float:
        return float(np.log((np.exp(x[0]) - np.exp(x[1])) / (np.exp(x[2]) - np.exp(x[3]))))

    gradient = np.array([(log_payback(at + h) - log_payback(at - h)) / 2e-6 for h in 1e-6 * np.eye(4)])
    parts = [(gradient[:2] ** 2).sum() * s2 / 6, (gradient[2:] ** 2).sum() * e2 / 2]
    freedom = sum(parts) ** 2 / (parts[0] ** 2 / 10 + parts[1] ** 2 / 6)
    half = stats.t.ppf(0.975, freedom) * np.sqrt(sum(parts))
    row = _one(found, quantity="payback_tokens", batch_size=1)
    assert row[ENDS].tolist() == pytest.approx(np.exp(log_payback(at) + half * np.array([0, -1, 1])).tolist(), rel=1e-6)
    assert pd.isna(row["note"])


def test_the_payback_is_covered_as_often_as_it_should_be() -> None:
    hits = []
    for seed in range(10):
        rows = rows_with(_paid(seed)[2], quantity="payback_tokens")
        hits += rows["estimate_low"].lt(2000).mul(rows["estimate_high"].gt(2000)).tolist()
    assert np.mean(hits) >= 0.85  # of 300: 97 %; a range of two cycles would cover half


def test_a_payback_whose_saving_may_be_nil_has_no_interval() -> None:
    row = _one(_paid(2, eager=1.02)[2], quantity="payback_tokens", batch_size=8)
    assert row["note"] == "no interval, because what it saves may be nil"
    assert np.isnan(row["estimate_low"])


def test_the_interval_of_a_start_pools_the_scatter_of_its_engine() -> None:
    """Six starts of each kind: of one kind alone graphs' spread, not eager mode's."""
    frame, devices, found = _paid(3)
    graphs = np.log(devices.loc[devices["participates"], "load_energy_j"].to_numpy(float))[
        frame["execution"] == "graphs"
    ]
    half = stats.t.ppf(0.975, 5) * graphs.std(ddof=1) / np.sqrt(6)
    row = _one(found, quantity="load_energy_j", engine="vLLM with CUDA graphs")
    assert row["estimate_high"] / row["estimate"] == pytest.approx(np.exp(half))
    first = frame["cycle"].eq(1) & frame["batch_size"].eq(1)
    few = engine_start(frame[first], devices, confidence=0.95).table()
    row = _one(few, quantity="load_energy_j", engine="vLLM with CUDA graphs")
    assert np.isnan(row["estimate_low"])
    assert row["note"] == "no interval, because nothing was measured twice"


@pytest.mark.parametrize(
    ("energies", "words"),
    [((1.0, 2.0), "never pay"), ((2.0, 1.9), "repeat a setting")],
)
def test_graphs_that_save_little_or_nothing(energies: tuple[float, float], words: str) -> None:
    rows = [run("engine", MODELS[0], 1, cycle, energies[0] * (0.8 if cycle == 2 else 1.1), **EAGER) for cycle in (1, 2)]
    rows += [run("engine", MODELS[0], 1, cycle, energies[1] * 0.97, **GRAPHS, compile_cache="new") for cycle in (1, 2)]
    frame = runs(rows)
    row = _one(engine_start(frame, drawn_engines.devices(frame), confidence=0.95).table(), quantity="payback_tokens")
    assert words in row["note"]
    assert np.isnan(row["estimate_low"])
