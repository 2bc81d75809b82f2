#!/usr/bin/env bash
# Set up an environment: install.sh PYTHON VENV EXTRAS [LOCK]. Called by `make setup`, and by `make test-vllm` with a
# lock that names all there is to install.
set -euo pipefail
python=$1 venv=$2 extras=$3 lock=${4:-}
cpu_index=https://download.pytorch.org/whl/cpu

"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || {
    echo "make setup: $python is $("$python" --version 2>&1). Expected: Python 3.11 or newer." \
        "Name another one: make PYTHON=python3.12 …" >&2
    exit 2
}

has_gpu() { command -v nvidia-smi >/dev/null && nvidia-smi -L 2>/dev/null | grep -q '^GPU '; }
reachable() {
    "$python" - "$1" <<'PY'
import sys, urllib.request
try:
    urllib.request.urlopen(urllib.request.Request(sys.argv[1], method="HEAD"), timeout=5)
except OSError:
    sys.exit(1)
PY
}

index=()
if has_gpu; then
    echo "A GPU is here: torch with CUDA."
elif reachable "$cpu_index/torch/"; then
    echo "No GPU here: torch's CPU build from $cpu_index."
    index=(--extra-index-url "$cpu_index")
else
    echo "No GPU here, and $cpu_index cannot be reached: the build of torch that pip finds."
fi

echo "Installing into $venv: a few minutes the first time."
[ -x "$venv/bin/python" ] || "$python" -m venv "$venv"
if [ -n "$lock" ]; then
    "$venv/bin/python" -m pip install -qq --disable-pip-version-check \
        --no-deps --requirement "$lock" ${index[@]+"${index[@]}"}
    "$venv/bin/python" -m pip install -qq --disable-pip-version-check --no-deps --editable .
    exit
fi
"$venv/bin/python" -m pip install -qq --disable-pip-version-check \
    --constraint requirements/lock.txt ${index[@]+"${index[@]}"} --editable ".[$extras]"
