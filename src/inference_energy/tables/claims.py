"""Tables on what the studies claim, and what was found."""

from __future__ import annotations

from inference_energy.tables.columns import Table, boolean, integer, number, text, with_interval

CLAIMS = Table(
    "claims",
    "a reading of a study's claim, beside our estimate",
    (
        text("study", "study"),
        text("claim_id", "name of the claim within the study"),
        text("statement", "what is claimed"),
        text("source", "where it stands"),
        text("reading", "what the claim is taken to mean"),
        boolean("main", "whether this reading's verdict is the claim's: the first one's is"),
        text("kind", "how it is judged: docs/claims.md"),
        text("unit", "unit of the published value and of our estimate; missing for statements: a plain number"),
        number("value", "published value, in that unit; missing for statements and tests"),
        number("value_low", "lower end of what counts as the claim"),
        number("value_high", "upper end of what counts as the claim"),
        text("quantity", "our estimate in words"),
        number("estimate", "our estimate"),
        number("low", "lower end of its interval, of the level that the question it is taken from uses"),
        number("high", "upper end of its interval"),
        *with_interval(
            "effect_over_published_ratio",
            "our effect over the published one, from the neutral value on the claim's scale: 0 is none, 1 as published;"
            " of a size ours over theirs, of a reduction the fold that it makes",
        ),
        integer("n_estimates", "estimates behind a statement on several; the least favourable is shown"),
        text("verdict", "reproduced, same direction, not reproduced, contradicted or not testable here"),
        text("note", "why it is not testable, or what limits the verdict; missing where nothing does"),
        integer("n_runs", "runs behind the estimate"),
        integer("n_settings", "their settings"),
        text("page", "notebook that shows it"),
        text("figure", "figure on that page"),
        text("records", "the runs: study/setting.cCYCLE, separated by spaces"),
    ),
)

TABLES: tuple[Table, ...] = (CLAIMS,)
