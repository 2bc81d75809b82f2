"""Tables on what each factor does, alone and with others."""

from __future__ import annotations

from inference_energy.tables.columns import Table, boolean, integer, number, text, with_interval

EFFECTS = Table(
    "effects",
    "a level of a factor beside its baseline, all other factors equal",
    (
        text("factor", "what differs"),
        text("level", "compared level"),
        text("baseline", "compared with"),
        integer("n_settings", "deployment settings measured at this level"),
        integer("n_runs", "their runs"),
        *with_interval("level_over_baseline_ratio", "energy per output token over that at the baseline, by the model"),
        number("confidence", "level of the interval: Student's t, errors by the jackknife over settings"),
        number("p_value", "that the ratio is 1"),
        number("holm_p_value", "the same by Holm over all levels; missing beside a second baseline"),
        text("reason", "why there is no number; missing where there is one"),
    ),
)

FACTOR_RANKING = Table(
    "factor_ranking",
    "a term of the linear model of log energy per output token",
    (
        text("term", "factor, or two factors that may work together"),
        text("kind", "factor, interaction, or block (sitting)"),
        integer("order", "rank by explained variance within its kind, from 1; missing for the block"),
        integer("n_settings", "settings behind the test"),
        integer("n_runs", "runs behind the test"),
        integer("n_parameters", "coefficients that the term adds"),
        number("explained_fraction", "type-II sum of squares over the total about the mean"),
        number("partial_explained_fraction", "the same over itself and the residual"),
        number("wald_f_ratio", "Wald's F with the jackknife over settings"),
        number("p_value", "that all the term's coefficients are 0"),
        number("holm_p_value", "the same by Holm over factors and interactions"),
        *with_interval("levels_fold", "factors: highest over lowest level, of those the model can tell"),
        number("confidence", "level of that interval"),
        text("published_impact", "what the published study says of this factor"),
        integer("n_cells", "interactions: pairs of measured levels; waiting of any kind is one level"),
        integer("n_missing_cells", "those without any setting"),
        text("missing_cells", "which"),
        text("reason", "why there is no test; missing where there is one"),
    ),
)

ADJUSTED_RUNS = Table(
    "adjusted_runs",
    "a deployment run and a term: all factors but the term's brought to their baselines",
    (
        text("term", "factor, or two factors"),
        text("first_level", "level of the first factor"),
        text("second_level", "level of the second; missing for one factor"),
        text("setting", "setting"),
        text("sitting", "stretch of measuring"),
        number("over_baseline_ratio", "energy over that at the baseline, other factors and sitting taken off"),
    ),
)

_GRID_SETTING = (
    text("model", "model"),
    text("precision", "precision"),
    integer("batch_size", "batch size"),
    integer("n_gpus", "GPUs that take part; with several, duplicated replicas"),
    text("latency_level", "waiting, as the published grid names it"),
)

GRID_PREDICTION = Table(
    "grid_prediction",
    "a setting of the published grid",
    (
        *_GRID_SETTING,
        text("status", "measured, predicted, or cannot be predicted"),
        text("reason", "why it cannot be predicted, or cannot be held out; missing where it can"),
        text("setting", "setting that was measured"),
        integer("n_runs", "its runs"),
        number("energy_measured_j_per_output_token", "geometric mean over its runs"),
        *with_interval(
            "energy_predicted_j_per_output_token",
            "by the chosen model; for a measured setting by one fitted without it",
        ),
        number("batch_wait_s", "simulated waiting before a batch, mean"),
        number("waiting_fraction", "share of predicted energy that is spent waiting"),
        text("candidate", "the model that predicts"),
        number("confidence", "level of the prediction interval"),
    ),
)

GRID_MODELS = Table(
    "grid_models",
    "a candidate for predicting the grid",
    (
        text("candidate", "name"),
        text("description", "what it says of energy per output token"),
        boolean("chosen", "whether it predicts the grid: the smallest error of those left out"),
        integer("n_settings", "settings it is fitted to"),
        integer("n_parameters", "coefficients that these settings decide"),
        integer("n_left_out", "settings that all candidates could predict when left out"),
        number("residual_cv", "standard deviation of the residual logarithm: about a CV"),
        number("error_left_out_cv", "root mean square of the logarithm's error, each setting left out in turn"),
        number("error_left_out_median_fraction", "median absolute error of settings left out"),
        number("error_grid_median_fraction", "the same over settings of the grid; missing without any"),
        number("interval_coverage_fraction", "settings left out that fall into their prediction interval"),
        number("confidence", "nominal level of these intervals"),
        *with_interval("waiting_power_w", "power of one GPU while it waits, as the model finds it"),
        number("idle_loaded_power_w", "power of one GPU idle with the model loaded, as metered; median"),
        text("reason", "why it is not fitted; missing where it is"),
    ),
)

GRID_LEFT_OUT = Table(
    "grid_left_out",
    "a measured setting that informs the grid's model",
    (
        text("setting", "setting"),
        text("model", "model"),
        text("precision", "precision"),
        integer("batch_size", "batch size"),
        text("parallelism", "how several GPUs share the work"),
        text("traffic", "simulated waiting"),
        boolean("of_grid", "whether study grid measured it"),
        integer("n_runs", "its runs"),
        number("energy_measured_j_per_output_token", "geometric mean over its runs"),
        *with_interval(
            "energy_predicted_j_per_output_token", "by the chosen model without it; missing if others cannot tell"
        ),
        boolean("inside", "whether the measured value falls into the prediction interval"),
        number("confidence", "level of the prediction interval"),
        text("candidate", "the chosen model"),
    ),
)

GRID_FOLDS = Table(
    "grid_folds",
    "settings of the published grid, measured or predicted, never both",
    (
        text("source", "measured; predicted, each GPU once; or predicted, published accounting"),
        text("model", "model, or 'all'"),
        integer("n_settings", "settings behind it"),
        integer("n_grid_settings", "settings of the grid"),
        *with_interval("energy_p50_j_per_output_token", "median"),
        *with_interval("max_over_min_fold", "largest over smallest"),
        *with_interval("p95_over_p5_fold", "95th over 5th percentile"),
        number("confidence", "level of the intervals"),
        number("published_max_over_min_fold", "largest over smallest as published; missing for 'all'"),
        number("published_p95_over_p5_fold", "95th over 5th percentile as published; missing for 'all'"),
        text("reason", "why there is no number; missing where there is one"),
    ),
)

TABLES: tuple[Table, ...] = (
    EFFECTS,
    FACTOR_RANKING,
    ADJUSTED_RUNS,
    GRID_PREDICTION,
    GRID_MODELS,
    GRID_LEFT_OUT,
    GRID_FOLDS,
)
