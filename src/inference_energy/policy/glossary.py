"""The words of the policy report, for a reader who knows no GPU terms."""

from __future__ import annotations

import pandas as pd

from inference_energy.policy.wording import Prose, table

#: In the order of the alphabet.
TERMS: dict[str, str] = {
    "Batch, batch size": "Prompts that are answered together, and how many there are. One pass through the model's"
    " weights then serves all of them.",
    "Campaign": "All measurements of one plan on one kind of machine.",
    "CO₂e": "Greenhouse gases, counted as the carbon dioxide that warms as much.",
    "Cycle": "One pass over all settings. Cycles lie apart in time, so that they show how well a number repeats.",
    "Decoding": "The rule that picks the next token: always the likeliest (greedy), or one drawn by chance (sampling).",
    "FLOP": "One addition or multiplication of a computer. FLOPs count the work; they do not measure electricity.",
    "Fold": "How many times larger the largest value is than the smallest. A fold of 3 means three times.",
    "GPU": "The processor that runs language models: thousands of small calculators and a fast memory on one card.",
    "Idle power": "What a device draws while it waits, switched on.",
    "Interval": "A range around an estimate. If the study were done again many times, ranges made like this would hold"
    " the true value in the stated share of cases (such as 95 of 100).",
    "Latency": "How long a user waits.",
    "Median": "The middle one: half of the settings cost less, half cost more.",
    "Model": "Here: a language model, numbers (weights) that turn a text into its continuation.",
    "Number format, precision": "How exactly each number of the model is stored: float32 in 32 bits, float16 and"
    " bfloat16 in 16. Fewer bits are faster to move.",
    "Output token": "A token that the model writes, as opposed to one it reads.",
    "Parallelism": "Several GPUs share the work: each with a whole model (replicas), or each with a part (tensor).",
    "Percentile": "The 5th percentile is the value that 5 % of the settings stay below.",
    "Prompt": "The text a user sends.",
    "PUE": "Power usage effectiveness: electricity of a whole data centre over that of its computers. The rest is"
    " mostly cooling.",
    "Quantisation": "Storing weights in 8 or 4 bits (int8, int4). It saves memory; whether it saves electricity"
    " depends on the software.",
    "Run": "One measurement of one setting, in a program started for it alone or in an engine that serves several"
    " runs.",
    "Setting": "One full choice of everything that was varied: model, number format, batch size and so on.",
    "Throughput": "Tokens written per second, by all users' answers together.",
    "Token": "A piece of a word. A token is about three quarters of an English word.",
    "Traffic": "When requests arrive: one after the other without a gap, with pauses, or in bursts.",
    "Warm-up": "Work done before a measurement starts, until the machine runs steadily.",
}


def glossary() -> Prose:
    """Every term with what it means."""
    return table(pd.DataFrame({"term": list(TERMS), "meaning": list(TERMS.values())}))
