# Notebooks executed on a campaign's tables, rendered, and listed. A notebook is an input: editing it
# makes its page again. One page is also set for print.

PRINTED = "14_policy_report"


rule context:
    input:
        "config/context.yaml",
        "<results>/{campaign}/tables/about.json",
    output:
        "<results>/{campaign}/tables/context.json",
    log:
        "<results>/{campaign}/logs/context.log",
    conda:
        ENVIRONMENT
    params:
        code=provenance.digest("pages"),
        notes=NOTES,
        config=json.dumps({"analysis": STUDY.analysis.model_dump(), "report": STUDY.report.model_dump()}),
        folder=lambda wildcards: f"{RESULTS}/{wildcards.campaign}",
    message:
        "Gathering what the report on {wildcards.campaign} assumes"
    shell:
        "inference-energy context {params.folder} --config {params.config:q}" " 2> >(tee {log} >&2)"


rule page:
    input:
        lambda wildcards: expand(
            "<results>/{campaign}/tables/{table}.parquet",
            campaign=wildcards.campaign,
            table=NOTEBOOKS[wildcards.notebook],
        ),
        lambda wildcards: AUDITED if wildcards.notebook in AUDIT_PAGES else [],
        "<results>/{campaign}/tables/about.json",
        "<results>/{campaign}/tables/context.json",
        template=str(render.TEMPLATE),
        notebook="notebooks/{notebook}.ipynb",
    output:
        "<results>/{campaign}/notebooks/{notebook}.ipynb",
        "<results>/{campaign}/report/{notebook}.html",
    log:
        "<results>/{campaign}/logs/{notebook}.log",
    conda:
        ENVIRONMENT
    params:
        figures=provenance.digest("figures"),
        policy=provenance.digest("policy"),
        render=provenance.digest("render"),
        folder=lambda wildcards: f"{RESULTS}/{wildcards.campaign}",
    message:
        "Rendering {wildcards.notebook} for {wildcards.campaign}"
    shell:
        "inference-energy page {input.notebook} {params.folder} 2> >(tee {log} >&2)"


rule pdf:
    input:
        "<results>/{campaign}/tables/about.json",
        template=str(render.PRINT_TEMPLATE),
        executed=f"<results>/{{campaign}}/notebooks/{PRINTED}.ipynb",
    output:
        f"<results>/{{campaign}}/report/{PRINTED}.pdf",
    log:
        f"<results>/{{campaign}}/logs/{PRINTED}_pdf.log",
    conda:
        ENVIRONMENT
    params:
        render=provenance.digest("render"),
        folder=lambda wildcards: f"{RESULTS}/{wildcards.campaign}",
    message:
        "Setting the policy report on {wildcards.campaign} for print"
    shell:
        "inference-energy pdf {input.executed} {params.folder} 2> >(tee {log} >&2)"


rule index:
    input:
        rules.pdf.output,
        template=str(render.TEMPLATE),
        pages=expand("<results>/{{campaign}}/report/{notebook}.html", notebook=NOTEBOOKS),
    output:
        "<results>/{campaign}/report/index.html",
    log:
        "<results>/{campaign}/logs/index.log",
    conda:
        ENVIRONMENT
    params:
        folder=lambda wildcards: f"{RESULTS}/{wildcards.campaign}",
    message:
        "Listing the pages of {wildcards.campaign}"
    shell:
        "inference-energy index {params.folder} {input.pages} 2> >(tee {log} >&2)"
