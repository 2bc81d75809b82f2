"""Tables on throughput and utilisation, and the facts they are worked out from."""

from __future__ import annotations

from inference_energy.tables.columns import Table, boolean, integer, number, text, with_interval
from inference_energy.tables.measured import ENERGY_PER_TOKEN, KEY

ARCHITECTURES = Table(
    "architectures",
    "a model of the campaign",
    (
        text("model", "model, a key of config/models.yaml"),
        integer("n_layers", "decoder layers"),
        integer("n_hidden", "width of the residual stream"),
        integer("n_intermediate", "width of the gated MLP"),
        integer("n_heads", "query heads of a layer"),
        integer("n_kv_heads", "key and value heads of a layer"),
        integer("n_head_dim", "width of a head"),
        integer("n_vocab", "tokens of the vocabulary"),
        boolean("tied_embeddings", "whether the last layer's weights are the embedding's"),
        integer("n_parameters", "parameters, shared embeddings counted once"),
    ),
)

GPU_FACTS = Table(
    "gpu_facts",
    "a GPU model of the campaign and a number format of its arithmetic; GPUs without known rates have no row",
    (
        text("gpu_name", "name the driver reports"),
        text("precision", "number format of the arithmetic"),
        number("peak_flop_per_s", "dense, from the datasheet; for int8, integer operations"),
        number("memory_bandwidth_bytes_per_s", "peak, from the datasheet"),
        number("power_limit_w", "default limit of the board, from the datasheet"),
    ),
)

UTILISATION = Table(
    "utilisation",
    "a run of a deployment: studies of the method itself are left out",
    (
        *KEY,
        text("sitting", "stretch of measuring"),
        text("gpu_name", "name the driver reports"),
        text("model", "model"),
        text("precision", "precision"),
        integer("batch_size", "batch size"),
        integer("n_input_tokens", "tokens of every prompt"),
        integer("n_output_tokens", "tokens generated for every prompt"),
        text("decoding", "how the next token is chosen"),
        text("parallelism", "how several GPUs share the work"),
        integer("n_gpus", "GPUs that take part"),
        text("traffic", "simulated waiting"),
        ENERGY_PER_TOKEN,
        number("throughput_tokens_per_s", "output tokens over measured seconds, all GPUs"),
        number("gpu_throughput_tokens_per_s", "the same of one GPU that takes part"),
        number("power_mean_w", "GPUs that take part together"),
        number("latency_s", "time for the whole answer to a batch, simulated waiting left out"),
        number("waiting_s", "simulated waiting for a batch"),
        number("flop_per_output_token", "products of matrices and attention, prompt included, from the architecture"),
        number("bytes_per_output_token", "least memory traffic: weights once a step, key-value cache"),
        number("flop_over_bytes_ratio", "arithmetic intensity, FLOP per byte"),
        number("achieved_flop_per_s", "of one GPU: FLOP per output token times throughput"),
        number("achieved_bytes_per_s", "of one GPU: bytes per output token times throughput"),
        number("peak_flop_per_s", "of one GPU in the number format that computes: int4 computes in float16"),
        number("peak_bytes_per_s", "memory bandwidth of one GPU"),
        number("mfu", "achieved over peak FLOP/s"),
        number("mbu", "achieved over peak bytes/s"),
        number("gpu_utilisation_fraction", "NVML's utilisation: share of time in which some kernel ran"),
        number("power_over_limit_fraction", "mean power over power limit, GPUs that take part"),
        text("note", "why a utilisation cannot be estimated; missing where it can"),
    ),
)

EXPLAINED = Table(
    "explained",
    "what might explain energy, within a model or over all models",
    (
        text("scope", "model, or 'all'"),
        integer("n_input_tokens", "tokens of every prompt: the commonest lengths of the campaign"),
        integer("n_output_tokens", "tokens generated for every prompt"),
        integer("n_settings", "settings"),
        integer("n_runs", "runs"),
        text("predictor", "column of utilisation"),
        integer("n_values", "different values it takes over the settings, to six digits"),
        *with_interval("variance_fraction", "share of the variance of log energy that its logarithm explains alone"),
        *with_interval("unique_fraction", "what the joint model loses without it; missing where it is not in it"),
        *with_interval("joint_fraction", "share of the variance that the joint model explains"),
        text("note", "why there is no number, or what the number means"),
    ),
)

THROUGHPUT = Table(
    "throughput",
    "a model and precision: energy against throughput along the batch sizes of one GPU",
    (
        text("model", "model"),
        text("precision", "precision"),
        integer("n_settings", "settings: as a rule one for each batch size"),
        integer("n_runs", "runs"),
        number("throughput_min_tokens_per_s", "slowest setting"),
        number("throughput_max_tokens_per_s", "fastest setting"),
        *with_interval("fixed_power_w", "P0 in E = P0 / throughput + e"),
        *with_interval("marginal_energy_j_per_output_token", "e in E = P0 / throughput + e"),
        *with_interval("inflection_throughput_tokens_per_s", "P0 / e: both parts are equal; inf: never reached"),
        text("inflection_place", "within, above or below the measured range"),
        number("power_law_energy_j_per_output_token", "of the power law, at 1 token per second"),
        *with_interval("elasticity_ratio", "power law: relative change of energy over relative change of throughput"),
        *(
            number(f"{fit}_{name}", f"{what} of the {words}")
            for fit, words in (
                ("hyperbola", "fit E = P0 / throughput + e"),
                ("power_law", "power law"),
                ("convex", "free convex fit; missing where it passes through every point"),
            )
            for name, what in (("residual_fraction", "root mean square of the log residuals"), ("aicc", "AICc"))
        ),
        number("convex_p_value", "of the hypothesis that the relation is convex; small: it is not"),
        number("concave_p_value", "of the hypothesis that it is straight or concave; small: it is not"),
        text("verdict", "convex, not convex or undecided"),
        text("note", "why something cannot be estimated; missing where all can"),
    ),
)

PARETO = Table(
    "pareto",
    "a deployment setting",
    (
        text("model", "model"),
        text("setting", "readable name and hash of all levels"),
        text("precision", "precision"),
        integer("batch_size", "batch size"),
        text("decoding", "how the next token is chosen"),
        text("parallelism", "how several GPUs share the work"),
        integer("n_gpus", "GPUs that take part"),
        text("traffic", "simulated waiting"),
        integer("n_input_tokens", "tokens of every prompt"),
        integer("n_output_tokens", "tokens generated for every prompt"),
        integer("n_runs", "runs"),
        *with_interval("energy_j_per_output_token", "mean over runs"),
        *with_interval("latency_s", "time for the whole answer to a batch, mean over runs, without simulated waiting"),
        number("waiting_s", "simulated waiting for a batch, mean over runs"),
        number("throughput_tokens_per_s", "mean over runs"),
        boolean("on_front", "no other setting of the model is both faster and more frugal"),
        number("front_fraction", "share of the resamples in which it is on the front"),
    ),
)

TABLES: tuple[Table, ...] = (ARCHITECTURES, GPU_FACTS, UTILISATION, EXPLAINED, THROUGHPUT, PARETO)
