# From records, measured or archived, to typed tables, and a test of their physical sense.


rule aggregate:
    input:
        lambda wildcards: CAMPAIGNS[wildcards.campaign].aggregate_inputs(),
        "config/hardware.yaml",
    output:
        expand(
            "<results>/{{campaign}}/tables/{table}.{ending}",
            table=RECORD_TABLES,
            ending=["parquet", "csv"],
        ),
        "<results>/{campaign}/tables/about.json",
        "<results>/{campaign}/tables/data_dictionary.csv",
    log:
        "<results>/{campaign}/logs/aggregate.log",
    conda:
        ENVIRONMENT
    params:
        code=provenance.digest("aggregate"),
        pages=provenance.digest("pages"),
        # Title, description and questions are part of about.json.
        design=lambda wildcards: CAMPAIGNS[wildcards.campaign].resolved.sha256(),
        folder=lambda wildcards: f"{RESULTS}/{wildcards.campaign}",
        source=lambda wildcards: "archived" if CAMPAIGNS[wildcards.campaign].archived else "measured",
        # Asking for some cycles, portions or studies only means that the campaign is not complete yet.
        missing=lambda wildcards: "--allow-missing" if CAMPAIGNS[wildcards.campaign].partial else "",
    message:
        "Checking the records of {wildcards.campaign} and making its tables"
    shell:
        "inference-energy aggregate {params.folder} --source {params.source} {params.missing}" " 2> >(tee {log} >&2)"


rule check:
    input:
        "<results>/{campaign}/tables/runs.parquet",
        "<results>/{campaign}/tables/windows.parquet",
        "tests/campaign/test_physical_sense.py",
    output:
        touch("<results>/{campaign}/logs/check.passed"),
    log:
        "<results>/{campaign}/logs/check.log",
    conda:
        ENVIRONMENT
    params:
        folder=lambda wildcards: f"{RESULTS}/{wildcards.campaign}",
    message:
        "Testing the records of {wildcards.campaign} for physical sense"
    shell:
        "pytest -q -p no:cacheprovider tests/campaign --campaign-folder {params.folder}"
        " > {log} 2>&1 || {{ cat {log} >&2; exit 1; }}"
