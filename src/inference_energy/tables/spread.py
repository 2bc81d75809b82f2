"""Tables on how far settings spread, under which accounting, and where the spread comes from."""

from __future__ import annotations

from inference_energy.tables.columns import Table, boolean, integer, number, text, with_interval
from inference_energy.tables.measured import KEY

_ACCOUNTING = text("accounting", "taking_part_gross (the default), taking_part_net or machine_gross")

BOUNDARIES = Table(
    "boundaries",
    "a run and an accounting: whose energy, and whether idle power counts",
    (
        *KEY,
        text("model", "model"),
        text("sitting", "stretch of measuring"),
        boolean("deployment", "whether no level of the setting is there for the method's sake only"),
        _ACCOUNTING,
        number("energy_j_per_output_token", "energy as this accounting counts it over tokens generated"),
        number("over_default_ratio", "over that of taking_part_gross"),
        integer("n_idle_gpus", "GPUs of the machine that take no part and are counted"),
        text("basis", "metered, or estimated where idle GPUs are counted at their qualified idle power"),
        text("reason", "why there is no energy; missing where there is one"),
    ),
)

ENERGY_SUMMARY = Table(
    "energy_summary",
    "a study, model and accounting",
    (
        text("study", "study, or 'all_deployments': every setting of the campaign once, wherever it was measured"),
        text("model", "model, or 'all'"),
        _ACCOUNTING,
        integer("n_settings", "settings"),
        integer("n_runs", "runs"),
        *with_interval("energy_mean_j_per_output_token", "mean over settings of the mean over their runs"),
        *with_interval("energy_sd_j_per_output_token", "standard deviation between settings"),
        *with_interval("cv", "standard deviation over mean, between settings"),
        *with_interval("energy_p05_j_per_output_token", "5th percentile"),
        *with_interval("energy_p25_j_per_output_token", "25th percentile"),
        *with_interval("energy_p50_j_per_output_token", "median"),
        *with_interval("energy_p75_j_per_output_token", "75th percentile"),
        *with_interval("energy_p95_j_per_output_token", "95th percentile"),
        *with_interval("max_over_min_fold", "largest over smallest setting"),
        *with_interval("p95_over_p5_fold", "95th over 5th percentile"),
        *with_interval("max_over_min_reduction_fraction", "1 - smallest over largest"),
        *with_interval("p95_over_p5_reduction_fraction", "1 - 5th over 95th percentile"),
        *with_interval("skewness_ratio", "third central moment over the cubed standard deviation"),
        *with_interval("log_skewness_ratio", "the same of the logarithm: 0 where the tails are alike on a log scale"),
        *with_interval("p95_over_p50_fold", "upper tail: 95th percentile over median"),
        *with_interval("p50_over_p5_fold", "lower tail: median over 5th percentile"),
    ),
)

PUBLISHED_SPREAD = Table(
    "published_spread",
    "a published number on the spread, beside that of settings measured here",
    (
        text("study", "settings of this campaign: a study, or 'all_deployments'"),
        text("model", "model"),
        text("quantity", "column of energy_summary that is compared"),
        integer("n_settings", "settings measured here"),
        number("published_ratio", "published number over ours, both in the unit of the quantity"),
        number("value", "published, in the unit of the quantity's name"),
        number("estimate", "ours, taking_part_gross"),
        number("low", "lower end of its interval"),
        number("high", "upper end of its interval"),
        text("source", "where the published number stands"),
    ),
)

VARIANCE_SPLIT = Table(
    "variance_split",
    "a component of the variance of log energy per output token, in a group of settings",
    (
        text("settings", "all, GPU-bound (utilisation of 0.8 and more), host-bound (less), or with simulated waiting"),
        text("component", "setting, sitting, gpu, run or window"),
        integer("n_levels", "levels seen: settings, sittings, GPUs (or sets of GPUs), runs, windows"),
        integer("n_freedom", "degrees of freedom that tell the component from coarser ones"),
        *with_interval("cv", "square root of the component's variance of the logarithm: about a CV"),
        number("variance_fraction", "share of the sum of the components that are known; missing where the run is not"),
        *with_interval("intraclass_correlation", "of runs of one setting, on the logarithm; in rows of setting only"),
        number("n_windows_per_run", "windows of a run, harmonic mean"),
        text("reason", "why it cannot be estimated, or what it cannot be told apart from; missing if neither"),
    ),
)

SMALLEST_EFFECTS = Table(
    "smallest_effects",
    "a comparison that the design allows, and the smallest effect that it detects",
    (
        text("settings", "all, GPU-bound, host-bound or with waiting: the noise is theirs"),
        text("matched", "sitting: both levels measured in the same sitting; campaign: in different sittings"),
        integer("n_settings", "settings in which the two levels are compared: 1 compares two settings"),
        integer("n_cycles", "runs of each level in each setting"),
        integer("n_pairs", "settings times cycles"),
        number("pair_cv", "standard deviation of the logarithm of the ratio of two runs"),
        integer("n_freedom", "degrees of freedom of that, as estimated here"),
        number("alpha_fraction", "two-sided level of the test"),
        number("power_fraction", "chance of finding an effect of this size"),
        number("smallest_effect_fraction", "smallest ratio of the levels that is found with this power, less 1"),
        text("reason", "why it cannot be estimated; missing where it can"),
    ),
)

TABLES: tuple[Table, ...] = (
    BOUNDARIES,
    ENERGY_SUMMARY,
    PUBLISHED_SPREAD,
    VARIANCE_SPLIT,
    SMALLEST_EFFECTS,
)
