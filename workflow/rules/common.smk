# What all rules share: the validated configuration, the campaigns it names, paths and wildcards.
import gc
import hashlib
import json
import os
import re
import sys
from pathlib import Path

from inference_energy import campaigns, config as study_config, provenance, render
from inference_energy.errors import StudyError
from inference_energy.questions import QUESTIONS, RECORD_TABLES

# Planning makes objects that live to the end: looking through them for garbage took a sixth of the time.
gc.set_threshold(100_000)

# Snakemake's resource `gpu`: how many GPUs may be measured on at once. It is an object with a value.
GPUS = getattr(workflow.global_resources.get("gpu"), "value", None)

try:
    STUDY = study_config.load(config, "configuration (config/default.yaml, --configfile, --config)")
    CAMPAIGNS = campaigns.planned(STUDY, Path("config"), GPUS)
    RECORDS = [path for campaign in CAMPAIGNS.values() for path in campaign.aggregate_inputs()]
except StudyError as error:
    sys.exit(f"error: {error}")

for planned_campaign in CAMPAIGNS.values():
    if planned_campaign.n_left_out:
        print(
            f"{planned_campaign.name}: {planned_campaign.n_left_out} runs need more GPUs than {GPUS} and are left out."
            " On a machine that has them: --resources gpu=N, with N the number of its GPUs.",
            file=sys.stderr,
        )

RESULTS = STUDY.results_dir
# Every notebook, with the tables it loads.
NOTEBOOKS = {
    path.stem: render.loaded_tables(path) or [*RECORD_TABLES, *QUESTIONS]
    for path in sorted(Path("notebooks").glob("*.ipynb"))
}
# The assumptions that pages list; no other edit of a source changes them.
NOTES = hashlib.sha256(json.dumps(provenance.notes(Path())).encode()).hexdigest()
# Tables of published records that were audited (kept in git), and the pages that show them.
AUDITED = sorted(path.as_posix() for path in Path(RESULTS).glob("audit-*/tables/*.parquet"))
AUDIT_PAGES = {path.stem for path in Path("notebooks").glob("*.ipynb") if "policy.load_audit(" in path.read_text()}
# For `--software-deployment-method conda`; without it, jobs run in the environment that Snakemake runs in.
ENVIRONMENT = "../envs/inference-energy.yml"
# The parent that runs are forked from ends with this process.
os.environ.setdefault("INFERENCE_ENERGY_OWNER_PID", str(os.getpid()))


pathvars:
    results=RESULTS,


wildcard_constraints:
    campaign="|".join(CAMPAIGNS),
    study="[a-z][a-z0-9_]*",
    setting="[a-zA-Z0-9._-]+",
    cycle=r"\d+",
    question="|".join(QUESTIONS),
    notebook="|".join(NOTEBOOKS),


# Not while planning: a dry run writes nothing.
onstart:
    for planned_campaign in CAMPAIGNS.values():
        campaigns.keep_resolved(planned_campaign)


# Snakemake names what failed where it failed: say it once more at the end.
onerror:
    said = "".join(Path(path).read_text() for path in log)
    failed = re.findall(r"^Error in rule .*?^    log: (\S+)", said, re.MULTILINE | re.DOTALL)
    if failed:
        print(
            "Failed, with the reason in the log; the next call tries again:", *failed, sep="\n  ", file=sys.stderr
        )
