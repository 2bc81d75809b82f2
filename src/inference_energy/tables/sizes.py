"""Tables on the size of the model, of its numbers, and of the machine that serves it."""

from __future__ import annotations

from inference_energy.tables.columns import Table, integer, text, with_interval

#: What an estimate rests on, and why there is none.
_GROUNDS = (
    text("compared", "within sittings, the sittings' own levels taken out; or over sittings, hosts included"),
    integer("n_runs", "runs of the settings that are compared"),
    text("note", "why there is no estimate or no interval; missing where there are both"),
)

MODEL_SIZE = Table(
    "model_size",
    "an estimate: a quantity of a law of energy against the model's size, for a choice of GPUs and one pair of lengths",
    (
        text("quantity", "what is estimated: its unit is in its name"),
        text("gpus", "one_gpu: each model on one GPU; fewest_joules: each on the GPUs on which a token takes least"),
        integer("n_input_tokens", "tokens of a prompt"),
        integer("n_output_tokens", "tokens generated for a prompt"),
        text("law", "linear, power or exponential"),
        *with_interval("estimate", "the estimate"),
        integer("n_models", "models behind the estimate: each is a point"),
        integer("n_runs", "their runs"),
        text("note", "why there is no estimate or no interval; missing where there are both"),
    ),
)

RIGHT_SIZE = Table(
    "right_size",
    "an estimate: a quantity under an accounting, of one model on some GPUs over a model on some GPUs, all else equal",
    (
        text("quantity", "what is estimated: its unit is in its name"),
        text("accounting", "taking_part: GPUs that take part; machine_of_four: idle GPUs of a machine of four as well"),
        text("choice", "fewer_gpus: the same model on fewer GPUs; smaller_model: another model on the same GPUs"),
        text("model", "the model"),
        integer("n_gpus", "its GPUs"),
        text("over_model", "what it is compared with"),
        integer("n_gpus_over", "its GPUs"),
        integer("n_input_tokens", "tokens of a prompt"),
        integer("n_output_tokens", "tokens generated for a prompt"),
        *with_interval("estimate", "the estimate"),
        *_GROUNDS,
    ),
)

QUANTISATION = Table(
    "quantisation",
    "an estimate: a quantity of a change of number format, of GPUs, or of both, at one batch size or over all",
    (
        text("quantity", "what is estimated: its unit is in its name"),
        text("part", "precision: same GPUs; gpus: same number format; both"),
        text("precision_from", "number format before"),
        integer("n_gpus_from", "GPUs before"),
        text("precision_to", "number format after"),
        integer("n_gpus_to", "GPUs after"),
        text("model", "model"),
        integer("batch_size", "batch size; missing over all of them"),
        *with_interval("estimate", "the estimate"),
        *_GROUNDS,
    ),
)

TABLES: tuple[Table, ...] = (MODEL_SIZE, RIGHT_SIZE, QUANTISATION)
