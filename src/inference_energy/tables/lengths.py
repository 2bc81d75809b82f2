"""Tables on the length of prompts and answers, and on prompts that are given at once."""

from __future__ import annotations

from inference_energy.tables.columns import Table, integer, number, text, with_interval

_LAWS = (
    ("linear", "E = a + b n"),
    ("quadratic", "E = a + b n + c n²"),
    ("power", "E = k n^p"),
)

LENGTH_FITS = Table(
    "length_fits",
    "a curve of energy per prompt against length: a model whose prompts, or whose answers, have several lengths",
    (
        text("source", "measured here, or the published table that the same laws were fitted to"),
        text("varied", "input: length of prompts; output: length of answers"),
        text("model", "model"),
        text("precision", "precision; missing where it is not published"),
        integer("batch_size", "prompts given at once; missing where it is not published"),
        number("other_length_tokens", "length that is held: of answers where that of prompts varies, else of prompts"),
        integer("n_lengths", "different lengths: each is a point"),
        integer("n_runs", "runs behind them"),
        number("shortest_tokens", "shortest length"),
        number("longest_tokens", "longest length"),
        number("linear_fixed_energy_j_per_prompt", "a of E = a + b n"),
        *with_interval("linear_slope_energy_j_per_prompt", "b of E = a + b n: for a thousand tokens more"),
        number("quadratic_fixed_energy_j_per_prompt", "a of E = a + b n + c n²"),
        number("quadratic_slope_energy_j_per_prompt", "b of E = a + b n + c n²: for a thousand tokens"),
        *with_interval("quadratic_square_energy_j_per_prompt", "c of E = a + b n + c n²: for a thousand tokens"),
        number("quadratic_p_value", "of c = 0, two-sided"),
        *with_interval("square_part_fraction", "part of c n² in the energy at the longest length"),
        *with_interval("short_square_part_fraction", "part of c n² in the energy at 128 tokens"),
        number("power_thousand_energy_j_per_prompt", "k of E = k n^p: energy at a thousand tokens"),
        *with_interval("power_elasticity_ratio", "p of E = k n^p: relative change of energy over that of length"),
        integer("n_freedom", "degrees of freedom of the quadratic's intervals, pooled over the curves of its kind"),
        *(
            column
            for law, words in _LAWS
            for column in (
                number(f"{law}_residual_fraction", f"{words}: root mean square of the log residuals of the lengths"),
                number(f"{law}_left_out_fraction", f"{words}: root mean square relative error at a length left out"),
                number(f"{law}_aicc", f"AICc of {words} over runs; missing where they are too few"),
                number(f"{law}_weight_fraction", f"Akaike weight of {words} among the three"),
            )
        ),
        text("fits_best", "law of the largest Akaike weight"),
        text("predicts_best", "law of the least error at lengths left out"),
        text("bend", "up, down or undecided: where the interval of c lies beside 0"),
        text("note", "what cannot be estimated, and why; missing where all can"),
    ),
)

LENGTH_RATIOS = Table(
    "length_ratios",
    "a workload over another one, all else equal: of one setting, or over the models",
    (
        text(
            "comparison",
            "long_prompt, long_answer: over short ones; answer_or_prompt: long answer over long prompt; long_context,"
            " guidance and prompts_at_once: the studies of these names",
        ),
        text("level", "compared workload"),
        text("baseline", "compared with"),
        text("model", "model, or 'all'"),
        text("precision", "precision, or 'all'"),
        text("setting", "the setting, or 'all'"),
        integer("n_input_tokens", "tokens of a prompt of the compared workload, the mean where they differ"),
        integer("n_output_tokens", "tokens of its answers, the mean where they differ"),
        integer("batch_size", "prompts that it gives at once"),
        number("energy_j_per_prompt", "geometric mean over its runs; missing over models"),
        *with_interval("level_over_baseline_ratio", "energy per prompt over that of the baseline, geometric mean"),
        integer("n_settings", "settings behind the estimate"),
        integer("n_pairs", "runs that have a baseline"),
        integer("n_sitting_pairs", "those whose baseline was measured in the same sitting; the others' in another one"),
        text("interval_by", "t within or over sittings, spread pooled over the comparison's settings; or over models"),
        text("note", "why there is no estimate or no interval; missing where there are both"),
    ),
)

PROMPTS_CURVE = Table(
    "prompts_curve",
    "a model that is given several numbers of prompts at once",
    (
        text("model", "model"),
        text("precision", "precision"),
        integer("n_batch_sizes", "different numbers of prompts at once: each is a point"),
        integer("n_runs", "runs behind them"),
        integer("n_prompts_most", "largest number of prompts at once"),
        integer("n_sequences_limit", "sequences that the engine runs at a time at most"),
        *with_interval("plateau_energy_j_per_prompt", "a of E = a + b / n: what no number of prompts shares"),
        *with_interval("shared_energy_j", "b of E = a + b / n: what prompts given at once share"),
        *with_interval("n_prompts_at_equal_parts", "b / a: prompts at which half of the energy is plateau"),
        number("n_prompts_near_plateau", "10 b / a: prompts from which on all others save a tenth of a at most"),
        number("shared_cv", "standard deviation of the residuals of log energy"),
        text("note", "what cannot be estimated, and why; missing where all can"),
    ),
)

TABLES: tuple[Table, ...] = (LENGTH_FITS, LENGTH_RATIOS, PROMPTS_CURVE)
