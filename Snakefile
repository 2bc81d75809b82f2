"""From a configuration to records, tables, notebooks and reports. Every rule is one command line."""

configfile: "config/default.yaml"


include: "workflow/rules/common.smk"
include: "workflow/rules/measure.smk"
include: "workflow/rules/aggregate.smk"
include: "workflow/rules/analyse.smk"
include: "workflow/rules/report.smk"


rule all:
    input:
        # The records too: else a deleted one goes unnoticed while its tables are there.
        [path for campaign in CAMPAIGNS.values() for path in campaign.aggregate_inputs()],
        expand(f"{RESULTS}/{{campaign}}/report/index.html", campaign=CAMPAIGNS),
        expand(f"{RESULTS}/{{campaign}}/logs/check.log", campaign=CAMPAIGNS),
    default_target: True
