"""From a configuration to records, tables, notebooks and reports. Every rule is one command line."""

configfile: "config/default.yaml"


include: "workflow/rules/common.smk"
include: "workflow/rules/measure.smk"


rule all:
    input:
        [path for campaign in CAMPAIGNS.values() for path in campaign.aggregate_inputs()],
    default_target: True
