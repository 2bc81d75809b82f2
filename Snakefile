"""From a configuration to records, tables, notebooks and reports. Every rule is one command line."""


configfile: "config/default.yaml"


include: "workflow/rules/common.smk"
include: "workflow/rules/measure.smk"
include: "workflow/rules/aggregate.smk"
include: "workflow/rules/analyse.smk"
include: "workflow/rules/report.smk"


rule all:
    default_target: True
    input:
        # The records too: else a deleted one goes unnoticed while its tables are there.
        [path for campaign in CAMPAIGNS.values() for path in campaign.aggregate_inputs()],
        expand("<results>/{campaign}/logs/check.passed", campaign=CAMPAIGNS),
        expand("<results>/{campaign}/report/index.html", campaign=CAMPAIGNS),
    message:
        f"Every record, table and page is there: {', '.join(f'{RESULTS}/{name}/report/index.html' for name in CAMPAIGNS)}"
