# From records, measured or archived, to typed tables.


rule aggregate:
    input:
        lambda wildcards: CAMPAIGNS[wildcards.campaign].aggregate_inputs(),
    output:
        expand(f"{RESULTS}/{{{{campaign}}}}/tables/{{table}}.{{ending}}", table=RECORD_TABLES, ending=["parquet", "csv"]),
        f"{RESULTS}/{{campaign}}/tables/about.json",
        f"{RESULTS}/{{campaign}}/tables/data_dictionary.csv",
    log:
        f"{RESULTS}/{{campaign}}/logs/aggregate.log",
    params:
        code=provenance.digest("aggregate"),
        pages=provenance.digest("pages"),
        source=lambda wildcards: "archived" if CAMPAIGNS[wildcards.campaign].archived else "measured",
        # Asking for some cycles only means that the campaign is not complete yet.
        missing="" if STUDY.cycles is None else "--allow-missing",
    message:
        "Checking the records of {wildcards.campaign} and making its tables"
    shell:
        f"inference-energy aggregate {RESULTS}/{{wildcards.campaign}} --source {{params.source}} {{params.missing}}"
        " 2> >(tee {log} >&2)"


rule check:
    input:
        f"{RESULTS}/{{campaign}}/tables/runs.parquet",
        f"{RESULTS}/{{campaign}}/tables/windows.parquet",
        "tests/campaign/test_physical_sense.py",
    output:
        f"{RESULTS}/{{campaign}}/logs/check.log",
    message:
        "Testing the records of {wildcards.campaign} for physical sense"
    shell:
        f"pytest -q -p no:cacheprovider tests/campaign --campaign-folder {RESULTS}/{{wildcards.campaign}}"
        " > {output} || {{ cat {output} >&2; exit 1; }}"
