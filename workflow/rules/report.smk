# Notebooks executed on a campaign's tables, rendered, and listed. A notebook is an input: editing it
# makes its page again.


rule context:
    input:
        "config/context.yaml",
        f"{RESULTS}/{{campaign}}/tables/about.json",
    output:
        f"{RESULTS}/{{campaign}}/tables/context.json",
    log:
        f"{RESULTS}/{{campaign}}/logs/context.log",
    params:
        code=provenance.source_sha256(),  # the notes are gathered from all of it
        config=json.dumps({"analysis": STUDY.analysis.model_dump(), "report": STUDY.report.model_dump()}),
    message:
        "Gathering what the report on {wildcards.campaign} assumes"
    shell:
        f"inference-energy context {RESULTS}/{{wildcards.campaign}} --config {{params.config:q}} 2> >(tee {{log}} >&2)"


rule page:
    input:
        expand(f"{RESULTS}/{{{{campaign}}}}/tables/{{table}}.parquet", table=[*RECORD_TABLES, *QUESTIONS]),
        f"{RESULTS}/{{campaign}}/tables/about.json",
        f"{RESULTS}/{{campaign}}/tables/context.json",
        notebook="notebooks/{notebook}.ipynb",
    output:
        f"{RESULTS}/{{campaign}}/notebooks/{{notebook}}.ipynb",
        f"{RESULTS}/{{campaign}}/report/{{notebook}}.html",
    log:
        f"{RESULTS}/{{campaign}}/logs/{{notebook}}.log",
    params:
        figures=provenance.digest("figures"),
        policy=provenance.digest("policy"),
        render=provenance.digest("render"),
    message:
        "Rendering {wildcards.notebook} for {wildcards.campaign}"
    shell:
        f"inference-energy page {{input.notebook}} {RESULTS}/{{wildcards.campaign}} 2> >(tee {{log}} >&2)"


rule index:
    input:
        expand(f"{RESULTS}/{{{{campaign}}}}/report/{{notebook}}.html", notebook=NOTEBOOKS),
    output:
        f"{RESULTS}/{{campaign}}/report/index.html",
    log:
        f"{RESULTS}/{{campaign}}/logs/index.log",
    message:
        "Listing the pages of {wildcards.campaign}"
    shell:
        f"inference-energy index {RESULTS}/{{wildcards.campaign}} {{input}} 2> >(tee {{log}} >&2)"
