"""Names of the two phases of an answer and of how they are told apart, and of batches with padding."""

from __future__ import annotations

PREFILL, DECODE, GENERATION = "prefill", "decode", "generation"

#: How a phase's part is found: by a run that stops after one token, by the difference to it, or by the time of the
#: first token within a run.
ONE_TOKEN, DIFFERENCE, TIME_STAMP = "one token", "difference", "time stamp"
#: The method that needs no time stamp of the engine, for each phase.
MAIN = {PREFILL: ONE_TOKEN, DECODE: DIFFERENCE}

#: Batches of prompts in the order drawn, or sorted by length.
DRAWN, BY_LENGTH = "drawn", "by_length"

PER_PROMPT, POWER = "energy_j_per_prompt", "power_mean_w"
PER_INPUT, PER_OUTPUT = "energy_j_per_input_token", "energy_j_per_output_token"
PROMPT_S, STEP_S = "duration_s_per_prompt", "duration_s_per_output_token"
ENERGY = {PREFILL: PER_INPUT, DECODE: PER_OUTPUT}
DURATION = {PREFILL: PROMPT_S, DECODE: STEP_S}

EFFECTIVE_INPUT, COMPUTED_INPUT = "energy_j_per_effective_input_token", "energy_j_per_computed_input_token"
COMPUTED_OUTPUT, COMPUTED = "energy_j_per_computed_output_token", "energy_j_per_computed_token"
INPUT_PADDING, OUTPUT_PADDING = "computed_over_effective_input_ratio", "computed_over_asked_output_ratio"

#: What is told of batches with padding in each phase; decoding computes no input token.
OF_PADDING = {
    PREFILL: (EFFECTIVE_INPUT, COMPUTED_INPUT, INPUT_PADDING),
    GENERATION: (EFFECTIVE_INPUT, COMPUTED_INPUT, PER_OUTPUT, COMPUTED_OUTPUT, COMPUTED, OUTPUT_PADDING),
    DECODE: (EFFECTIVE_INPUT, PER_OUTPUT, COMPUTED_OUTPUT),
}
