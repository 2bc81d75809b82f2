# One question, one table. Editing an analysis repeats it, through the digest of its source.

# The configuration's `analysis`, by the names that questions know; each question is given what it needs.
STATISTICS = STUDY.analysis.model_dump() | {"margin_fraction": STUDY.analysis.equivalence_margin_fraction}


rule analyse:
    input:
        lambda wildcards: expand(
            "<results>/{campaign}/tables/{table}.parquet",
            campaign=wildcards.campaign,
            table=QUESTIONS[wildcards.question].inputs,
        ),
        lambda wildcards: [f"resources/{name}" for name in QUESTIONS[wildcards.question].resources],
    output:
        "<results>/{campaign}/tables/{question}.parquet",
        "<results>/{campaign}/tables/{question}.csv",
    log:
        "<results>/{campaign}/logs/analyse_{question}.log",
    conda:
        ENVIRONMENT
    params:
        code=lambda wildcards: provenance.digest(QUESTIONS[wildcards.question].module),
        folder=lambda wildcards: f"{RESULTS}/{wildcards.campaign}",
        statistics=lambda wildcards: " ".join(
            f"--{name.replace('_', '-')} {STATISTICS[name]}"
            for name in QUESTIONS[wildcards.question].settings
            if name in STATISTICS
        ),
    message:
        "Answering {wildcards.question} for {wildcards.campaign}"
    shell:
        "inference-energy analyse {wildcards.question} {params.folder} {params.statistics}" " 2> >(tee {log} >&2)"
