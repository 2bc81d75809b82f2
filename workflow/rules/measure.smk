# One fresh process a run. No edges between cycles: with one, a lost record of cycle 1 would repeat
# all of cycle 2. Their separation is checked from the records' times instead.


rule measure:
    input:
        # Runs that share an engine: the first of them measures all, and the others find their records. `ancient`, and
        # a command that leaves a record as it is: nothing is measured twice.
        lambda wildcards: ancient(CAMPAIGNS[wildcards.campaign].started_by(**wildcards)),
    output:
        # `update` keeps Snakemake from deleting a record before a job, for whatever reason it starts one: the
        # command finds the record and leaves it as it is. To measure a run again, delete its record.
        update("<results>/{campaign}/records/{study}/{setting}.c{cycle}.json"),
    log:
        "<results>/{campaign}/logs/{study}/{setting}.c{cycle}.log",
    conda:
        ENVIRONMENT
    # With the profile's one GPU, all cores: nothing runs beside a measurement. With --resources gpu=4, a run takes its
    # GPUs and their share of the cores, and others run beside it, unless its setting wants the machine to itself.
    threads: lambda wildcards: max(1, workflow.cores * CAMPAIGNS[wildcards.campaign].n_gpus(**wildcards) // (GPUS or 1))
    resources:
        gpu=lambda wildcards: CAMPAIGNS[wildcards.campaign].n_gpus(**wildcards),
    priority: lambda wildcards: CAMPAIGNS[wildcards.campaign].priority(**wildcards)
    params:
        results=lambda wildcards: RESULTS,
        also=lambda wildcards: CAMPAIGNS[wildcards.campaign].also(**wildcards),
    message:
        "Measuring {wildcards.study}/{wildcards.setting}, cycle {wildcards.cycle}, of {wildcards.campaign}"
    shell:
        "inference-energy measure {params.results}/{wildcards.campaign}/campaign.yaml --results {params.results}"
        " --run {wildcards.study}/{wildcards.setting}.c{wildcards.cycle} --also {params.also} 2> >(tee {log} >&2)"
