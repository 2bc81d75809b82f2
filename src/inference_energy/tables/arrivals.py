"""Tables on requests that arrive at a server, and on the least energy that work can take."""

from __future__ import annotations

from inference_energy.tables.columns import Table, boolean, integer, number, text, with_interval
from inference_energy.tables.measured import KEY

_ARRIVAL = (
    text("model", "model"),
    text("precision", "precision"),
    text("arrival", "how requests arrive"),
    number("arrival_requests_per_s", "mean rate of arrival planned; missing for a burst"),
    number("arrival_cv", "spread of the gaps of gamma arrivals"),
    integer("kv_cache_tokens", "size asked for the KV cache; missing: what memory is left"),
)

ARRIVAL_RUNS = Table(
    "arrival_runs",
    "a run whose requests arrived at planned times; latencies are those of requests answered in full",
    (
        *KEY,
        text("sitting", "stretch of measuring on one machine without a break"),
        *_ARRIVAL,
        integer("n_kv_cache_tokens", "tokens that the engine's KV cache held"),
        integer("n_requests", "requests planned, over all passes"),
        integer("n_ok_requests", "requests answered with the tokens asked for"),
        integer("n_failed_requests", "all others"),
        text("failures", "how many of each outcome but ok; missing where there are none"),
        integer("n_tokens_requested", "output tokens asked for in all requests"),
        integer("n_tokens_counted", "output tokens received, by our own count"),
        integer("n_tokens_reported", "output tokens as the server reports them; missing where it does not for all"),
        integer("n_disagreeing_requests", "answered requests whose counted, asked and reported tokens are not equal"),
        number("planned_requests_per_s", "gaps over time from the first to the last planned arrival of a pass"),
        number("sent_requests_per_s", "gaps over time from the first to the last request sent of a pass"),
        number("answered_requests_per_s", "requests answered over measured seconds"),
        number("arrival_error_median_s", "sent less planned arrival: median"),
        number("arrival_error_p95_s", "95th percentile"),
        number("client_core_at_100_requests_fraction", "share of a core that the client takes for 100 requests/s"),
        integer("n_in_flight_max", "most requests sent and not yet answered at one time"),
        number("energy_j_per_request", "gross, first planned arrival to last answer, over requests answered"),
        number("energy_net_j_per_request", "the same less idle power (bare, from this run) over that time"),
        number("energy_j_per_output_token", "gross energy over output tokens"),
        number("time_to_first_token_median_s", "from planned arrival to the first token"),
        number("time_to_first_token_p95_s", "95th percentile"),
        number("inter_token_latency_median_s", "mean gap of a request's tokens after the first: median over requests"),
        number("inter_token_latency_p95_s", "95th percentile"),
        number("latency_median_s", "from planned arrival to the last byte"),
        number("latency_p95_s", "95th percentile"),
        number("n_running_mean", "sequences that ran, mean by time"),
        number("n_waiting_mean", "sequences that waited, mean by time"),
        number("kv_cache_used_fraction", "share of the KV cache in use, mean by time"),
        integer("n_preemptions", "sequences that the engine put back"),
        number("power_mean_w", "mean power of the GPUs that take part"),
        number("idle_power_w", "their idle power before loading"),
        number("measured_s", "seconds that the energy is of"),
    ),
)

ARRIVAL_CURVE = Table(
    "arrival_curve",
    "a setting of study arrival: geometric means over its runs",
    (
        *_ARRIVAL,
        text("setting", "readable name and hash of all levels"),
        *with_interval("energy_j_per_request", "gross energy of a request"),
        *with_interval("time_to_first_token_p95_s", "95th percentile of the time to the first token"),
        *with_interval("inter_token_latency_p95_s", "95th percentile of the gap between tokens"),
        *with_interval("latency_p95_s", "95th percentile of the time to the last byte"),
        *with_interval("answered_requests_per_s", "requests answered over measured seconds"),
        *with_interval("n_running_mean", "sequences that ran, mean by time"),
        *with_interval("power_mean_w", "mean power of the GPUs that take part"),
        number("time_to_first_token_median_s", "median time to the first token"),
        number("inter_token_latency_median_s", "median gap between tokens"),
        integer("n_failed_requests", "requests not answered in full, all runs together"),
        number("time_to_first_token_max_s", "limit on its 95th percentile"),
        number("inter_token_latency_max_s", "limit on its 95th percentile"),
        boolean("meets_limits", "no request failed, and both 95th percentiles are within their limits in every run"),
        boolean("best", "least energy of a request among settings that meet the limits"),
        integer("n_cycles", "cycles measured"),
        integer("n_runs", "runs behind the numbers"),
        text("note", "why there is no interval; missing where there is one"),
    ),
)

ARRIVAL_RATIO = Table(
    "arrival_ratio",
    "energies of a request compared: one setting with its baseline, or a mean over settings",
    (
        text("comparison", "what is compared"),
        text("scope", "setting, rate (all patterns at a rate), pattern, or all"),
        text("model", "model"),
        text("arrival", "how requests arrive; missing over several"),
        number("arrival_requests_per_s", "mean rate of arrival planned; missing for a burst or over several"),
        number("arrival_cv", "spread of the gaps of gamma arrivals"),
        integer("kv_cache_tokens", "size asked for the KV cache; missing: what memory is left"),
        text("level", "setting, or settings, compared"),
        text("baseline", "what with"),
        *with_interval("energy_ratio", "energy of a request over that of the baseline"),
        text("interval_by", "what the interval is made from"),
        integer("n_settings", "settings compared"),
        integer("n_pairs", "runs with a baseline"),
        integer("n_sitting_pairs", "of these, within a sitting"),
        text("note", "why there is no interval, or what else to know; missing where nothing"),
    ),
)

ENERGY_FLOOR = Table(
    "energy_floor",
    "a run of the serving studies beside the least energy that its work can take",
    (
        *KEY,
        text("engine", "software that generates"),
        text("model", "model"),
        text("precision", "precision"),
        text("gpu_name", "name the driver reports"),
        integer("n_gpus", "GPUs that take part"),
        text("arrival", "how requests reach a server; none: prompts are given in batches"),
        integer("batch_size", "prompts given together"),
        number("n_input_tokens_per_prompt", "prompt tokens of one, padding left out: mean"),
        number("n_output_tokens_per_prompt", "output tokens of one: mean"),
        integer("n_at_once_max", "sequences that could run together: each reading of the weights serves at most these"),
        number("flop_per_prompt", "products of matrices and attention"),
        number("bytes_per_prompt", "weights, shared by those that could run together, and cached keys and values"),
        number("least_s_per_prompt", "the longer of FLOP at the peak rate and bytes at the peak bandwidth"),
        number("idle_power_w", "idle power of this run's GPUs before loading"),
        number("energy_j_per_prompt", "measured, gross"),
        number("energy_floor_j_per_prompt", "least time at idle power: no GPU is faster than its peak or draws less"),
        number("energy_over_floor_ratio", "measured over that"),
        number("arithmetic_energy_j_per_prompt", "FLOP at the peak rate and at the board's power limit"),
        number("energy_over_arithmetic_ratio", "measured over that"),
        text("verdict", "possible; not plausible (below arithmetic at the limit); impossible (below the floor)"),
        text("note", "why there is no verdict; missing where there is one"),
    ),
)

TABLES: tuple[Table, ...] = (ARRIVAL_RUNS, ARRIVAL_CURVE, ARRIVAL_RATIO, ENERGY_FLOOR)
