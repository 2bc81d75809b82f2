"""What the workflow asks for: cycles, portions, priorities and GPUs of runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from inference_energy import campaigns, design
from inference_energy.campaigns import PlannedCampaign
from inference_energy.config import StudyConfig, load
from inference_energy.errors import ConfigError
from inference_energy.validation import read_yaml

CONFIG = Path(__file__).resolve().parents[2] / "config"


def _study(**changes: Any) -> StudyConfig:
    campaign = {
        "name": "c",
        "title": "t",
        "description": "d",
        "seed": 1,
        "portion_size": 3,
        "base": {"model": "llama-3.2-1b"},
        "studies": {
            "s": {"question": "q", "vary": {"batch_size": [1, 2, 4, 8]}},
            "wide": {
                "question": "q",
                "settings": [
                    {"parallelism": "replicas", "n_gpus": 2},
                    {"parallelism": "replicas", "n_gpus": 4},
                    {"neighbours": "none"},
                ],
            },
            "anchors": {"question": "q", "every_portion": True},
        },
        "measurement": {"device": "gpu"},
        **changes.pop("campaign", {}),
    }
    return load({**read_yaml(CONFIG / "default.yaml"), "campaign": campaign, **changes})


def _planned(n_gpus_lent: int | None = None, **changes: Any) -> PlannedCampaign:
    return campaigns.planned(_study(**changes), CONFIG, n_gpus_lent)["c"]


def _wildcards(run_id: str) -> dict[str, str]:
    study, rest = run_id.split("/")
    setting, cycle = rest.rsplit(".c", 1)
    return {"study": study, "setting": setting, "cycle": cycle, "campaign": "c"}


def test_everything_is_asked_for_by_default() -> None:
    campaign = _planned()
    assert len(campaign.runs) == (7 + 3) * 2
    assert not campaign.partial


def test_cycles_and_portions_are_asked_for_one_by_one() -> None:
    campaign = _planned(cycles=[2], portions=[1, 3])
    assert {(run.portion, run.traversal) for run in campaign.runs} == {(1, 2), (3, 2)}
    assert [run.cycle for run in campaign.runs if run.anchor] == [2, 6]  # of six visits, the second and the last
    assert campaign.partial
    every = {(p, c): len(_planned(cycles=[c], portions=[p]).runs) for p in (1, 2, 3) for c in (1, 2)}
    assert sum(every.values()) == len(_planned().runs)


def test_studies_are_asked_for_one_by_one() -> None:
    campaign = _planned(studies=["wide", "anchors"], cycles=[1])
    every = _planned(cycles=[1])
    assert campaign.runs == [run for run in every.runs if run.study != "s"]
    assert 0 < len(campaign.runs) < len(every.runs)
    assert _planned(studies=["wide"]).partial


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({"studies": ["wode"]}, "studies: 'wode' is no study of c. Known: anchors, s, wide. Did you mean wide?"),
        ({"portions": [4]}, "portions: 4 is no portion of c. Expected: one of [1, 2, 3]."),
        ({"cycles": [3]}, "cycles: 3 is no cycle of c. Expected: one of [1, 2]."),
    ],
)
def test_what_is_not_in_the_design_is_refused(asked: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        _planned(**asked).record_paths()
    assert str(caught.value) == words


def test_priorities_fall_along_the_order() -> None:
    campaign = _planned()
    priorities = [campaign.priority(**_wildcards(run.run_id)) for run in campaign.runs]
    assert priorities == list(range(len(campaign.runs), 0, -1))


def test_runs_that_need_more_gpus_than_are_lent_are_left_out() -> None:
    campaign = _planned(n_gpus_lent=2)
    assert max(run.levels.n_gpus for run in campaign.runs) == 2
    assert campaign.n_left_out == 2
    assert campaign.partial
    assert _planned(n_gpus_lent=4).n_left_out == 0


def test_a_run_takes_its_gpus_or_the_whole_machine() -> None:
    campaign = _planned(n_gpus_lent=4)
    for run in campaign.runs:
        expected = 4 if run.levels.neighbours == "none" else run.levels.n_gpus
        assert campaign.n_gpus(**_wildcards(run.run_id)) == expected


@pytest.mark.parametrize("device", ["cpu", "auto"])
def test_runs_that_may_share_a_cpu_are_measured_one_at_a_time(device: str) -> None:
    campaign = _planned(n_gpus_lent=3, campaign={"measurement": {"device": device}})
    assert campaign.n_left_out == 0
    assert {campaign.n_gpus(**_wildcards(run.run_id)) for run in campaign.runs} == {3}


# --- runs that share an engine ---------------------------------------------------------------------------


def _sharing(n: int = 3, **changes: Any) -> PlannedCampaign:
    vllm = {"engine": "vllm", "engine_process": "shared", "prefill": "chunked"}
    studies = {
        "one": {"question": "q", "fixed": vllm, "vary": {"batch_size": list(range(1, n + 1))}},
        "two": {"question": "q", "fixed": vllm, "settings": [{"n_input_tokens": 7}, {"execution": "graphs"}]},
        "own": {"question": "q", "fixed": {**vllm, "engine_process": "own"}, "vary": {"batch_size": [1, 2]}},
    }
    return _planned(campaign={"studies": studies, "portion_size": None}, **changes)


def test_runs_of_one_engine_wait_for_the_first_that_measures_them_all() -> None:
    campaign = _sharing()
    for cycle in (1, 2):
        alike = [run for run in campaign.runs if run.cycle == cycle and run.levels.execution == "eager_mode"]
        shared = [run.run_id for run in alike if run.levels.engine_process == "shared"]  # over studies, in order
        assert len(shared) == 4
        for run_id in shared:
            assert campaign.also(**_wildcards(run_id)) == [other for other in shared if other != run_id]
            started = [] if run_id == shared[0] else [f"{campaign.folder}/records/{shared[0]}.json"]
            assert campaign.started_by(**_wildcards(run_id)) == started
    for run in campaign.runs:
        if run.levels.engine_process == "own" or run.levels.execution == "graphs":
            assert campaign.also(**_wildcards(run.run_id)) == campaign.started_by(**_wildcards(run.run_id)) == []


def test_only_runs_that_are_asked_for_are_measured_with_others() -> None:
    campaign = _sharing(studies=["two"], cycles=[1])
    assert [campaign.also(**_wildcards(run.run_id)) for run in campaign.runs] == [[], []]


def test_one_engine_serves_so_many_runs_and_no_more() -> None:
    groups = design.served_together(_sharing(2 * design.N_SHARED_MAX).runs)
    sizes = sorted(len(group) for group in groups)
    third = (2 * design.N_SHARED_MAX + 1) // 3
    assert sizes == [1, 1, *[third] * 6]  # two cycles of one more than two full groups, and of one alone
    assert max(sizes) <= design.N_SHARED_MAX
