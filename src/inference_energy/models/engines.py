"""Engines by name, and where their energy goes: for the analyses and for pages."""

from __future__ import annotations

import numpy as np
import pandas as pd

TRANSFORMERS, EAGER, GRAPHS = "transformers", "vLLM in eager mode", "vLLM with CUDA graphs"
ENGINES = (TRANSFORMERS, EAGER, GRAPHS)
_EXECUTION = {"eager_mode": " in eager mode", "graphs": " with CUDA graphs"}
_SOFTWARE = {"vllm": "vLLM", "vllm_server": "vLLM's server", "endpoint": "endpoint"}

#: Batch sizes of study `engine`: prompts one by one, and many at once.
ONE, MANY = 1, 64

ENERGY, THROUGHPUT, POWER = "energy_j_per_output_token", "throughput_tokens_per_s", "power_mean_w"
NET, IDLE = "net_energy_j_per_output_token", "idle_energy_j_per_output_token"
IDLE_GPUS = "idle_gpus_energy_j_per_output_token"
CPU, RAM = "cpu_energy_j_per_output_token", "ram_energy_j_per_output_token"
BASE, TOTAL = "base_energy_j_per_output_token", "total_energy_j_per_output_token"

#: What energy consists of, in words; the last two are CodeCarbon's estimates, not measurements.
COMPONENTS: dict[str, str] = {
    NET: "GPU, above idle",
    IDLE: "GPU, idle part",
    IDLE_GPUS: "idle GPUs",
    CPU: "CPU (estimate)",
    RAM: "RAM (estimate)",
}
QUANTITIES = (ENERGY, THROUGHPUT, POWER, *COMPONENTS, BASE, TOTAL)
#: Of these engines are divided by each other; what the others cost goes with time.
RATIOS = (ENERGY, THROUGHPUT, POWER, NET, BASE, TOTAL)

#: Factors in which engines differ; with other numbers of prompts at once, two more.
OF_ENGINE = ("engine", "execution", "engine_process", "prefill")
OF_BATCH = ("batch_size", "n_prompts")

#: Costs of an engine's start, and what pays them back.
START_ENERGY, START_S, FIRST_ITERATION_S = "load_energy_j", "load_s", "started_to_first_iteration_s"
PAYBACK_TOKENS, PAYBACK_S = "payback_tokens", "payback_s"

#: Comparisons of table `sharing`.
SHARED_OVER_OWN, LAST_OVER_FIRST = "shared over own", "last over first place"


def engine_words(runs: pd.DataFrame) -> pd.Series:
    """The engine of each run as a reader knows it."""
    software = runs["engine"].astype(object).map(lambda name: _SOFTWARE.get(name, name))
    execution = runs["execution"].astype(object).map(_EXECUTION)
    return software.where(runs["engine"].eq(TRANSFORMERS), software + execution)


def with_components(runs: pd.DataFrame) -> pd.DataFrame:
    """`runs` with their engine in words and what a token's energy consists of, in J per output token.

    The idle part is bare idle power times measured seconds. A run in an engine that was there before has no idle
    interval of its own: its GPUs' mean in the same sitting stands for it, else the campaign's mean for as many GPUs.

    ASSUME: of CodeCarbon's estimates for the whole machine's CPUs and RAM, a run bears the share that its GPUs have
    among the machine's visible ones.

    Returns
    -------
    DataFrame
        With ``words`` and :data:`COMPONENTS`; ``base_energy_j_per_output_token`` is what would be drawn without any
        work (idle part, CPU and RAM), ``total_energy_j_per_output_token`` energy of the GPUs that take part with CPU
        and RAM. A component that is not above 0 is missing: no ratio can be made of it.
    """
    idle_w = runs["idle_power_w"].astype(float)
    for keys in (["sitting", "gpu_uuid_hash"], ["gpu_name", "n_gpus"]):
        idle_w = idle_w.fillna(idle_w.groupby([runs[key] for key in keys]).transform("mean"))
    speed = runs[THROUGHPUT].astype(float)
    visible = runs["n_visible_gpus"].astype("Float64").to_numpy(float, na_value=np.nan)
    share = runs["n_gpus"].to_numpy(float) / np.where(visible > 0, visible, np.nan)
    parts = pd.DataFrame(
        {
            NET: runs[ENERGY].astype(float) - idle_w / speed,
            IDLE: idle_w / speed,
            IDLE_GPUS: runs["idle_devices_power_w"].astype(float) / speed,
            CPU: share * runs["codecarbon_cpu_power_w"].astype(float) / speed,
            RAM: share * runs["codecarbon_ram_power_w"].astype(float) / speed,
        }
    )
    parts[BASE] = parts[IDLE] + parts[CPU] + parts[RAM]
    parts[TOTAL] = runs[ENERGY].astype(float) + parts[CPU] + parts[RAM]
    return runs.assign(words=engine_words(runs), **parts.where(parts > 0))
