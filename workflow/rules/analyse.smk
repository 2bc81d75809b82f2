# One question, one table. Editing an analysis repeats it, through the digest of its source.


rule analyse:
    input:
        lambda wildcards: [
            f"{RESULTS}/{wildcards.campaign}/tables/{table}.parquet" for table in QUESTIONS[wildcards.question].inputs
        ],
    output:
        f"{RESULTS}/{{campaign}}/tables/{{question}}.parquet",
        f"{RESULTS}/{{campaign}}/tables/{{question}}.csv",
    log:
        f"{RESULTS}/{{campaign}}/logs/analyse_{{question}}.log",
    params:
        code=lambda wildcards: provenance.digest(QUESTIONS[wildcards.question].module),
        statistics=(
            f"--confidence {STUDY.analysis.confidence} --n-bootstrap {STUDY.analysis.n_bootstrap}"
            f" --seed {STUDY.analysis.seed} --margin-fraction {STUDY.analysis.equivalence_margin_fraction}"
        ),
    message:
        "Answering {wildcards.question} for {wildcards.campaign}"
    shell:
        f"inference-energy analyse {{wildcards.question}} {RESULTS}/{{wildcards.campaign}} {{params.statistics}}"
        " 2> >(tee {log} >&2)"
