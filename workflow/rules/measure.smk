# One fresh process a run. No edges between cycles: with one, a lost record of cycle 1 would repeat
# all of cycle 2. Their separation is checked from the records' times instead.


rule measure:
    output:
        f"{RESULTS}/{{campaign}}/records/{{study}}/{{setting}}.c{{cycle}}.json",
    log:
        f"{RESULTS}/{{campaign}}/logs/{{study}}/{{setting}}.c{{cycle}}.log",
    # All cores and the one GPU: nothing runs beside a measurement.
    threads: workflow.cores
    resources:
        gpu=1,
    priority: lambda wildcards: CAMPAIGNS[wildcards.campaign].priority(**wildcards)
    message:
        "Measuring {wildcards.study}/{wildcards.setting}, cycle {wildcards.cycle}, of {wildcards.campaign}"
    shell:
        f"inference-energy measure {RESULTS}/{{wildcards.campaign}}/campaign.yaml --results {RESULTS}"
        " --run {wildcards.study}/{wildcards.setting}.c{wildcards.cycle} 2> >(tee {log} >&2)"
