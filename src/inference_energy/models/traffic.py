"""Names of what is said of waiting, for the analysis and for pages."""

ENERGY = "energy_j_per_output_token"
OVER_NONE = "energy_over_no_waiting_ratio"
PER_SECOND = "energy_j_per_output_token_per_waited_s"
POWER = "waiting_power_w"
OVER_IDLE = "waiting_over_idle_loaded_power_ratio"
SAME_WAITING = "same_waiting_cost_ratio"
PAIRED = "energy_ratio"

#: Kinds of waiting in words: the order is that of pages.
ALL, CONSTANT, QUERY, SMALL, LARGE, BURST = (
    "all waiting",
    "constant, before each batch",
    "constant, before each query",
    "small bursts",
    "large bursts",
    "bursts",
)

# SOURCE: claims.csv, burst_small_worse: bursts of 5 to 8 against those of 10 to 20.
SMALL_BURST_MAX = 8
