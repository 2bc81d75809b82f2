#!/usr/bin/env bash
# Snakemake runs this in the new environment, from the project's root.
set -euo pipefail
python -m pip install --constraint requirements/lock.txt --editable ".[dev]"
