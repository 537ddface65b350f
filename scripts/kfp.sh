#!/usr/bin/env bash
# Run Python with kfp, which compiles components/ and pipelines/: in an environment of its own, made once per pipelines/requirements.txt.
set -euo pipefail
cd "$(dirname "$0")/.."

cache=${EHRMIND_TEST_TOOLS:-$HOME/.cache/ehrmind/test-tools}
home=$cache/kfp-$(sha256sum pipelines/requirements.txt | cut -c1-12)
if [ ! -e "$home/bin/python" ]; then
    mkdir -p "$cache"
    aside=$(mktemp -d "$cache/building-kfp-XXXX")
    trap 'rm -rf "$aside"' EXIT
    .venv/bin/uv venv --quiet --relocatable "$aside/env"
    .venv/bin/uv pip install --quiet --compile-bytecode --python "$aside/env/bin/python" --requirement pipelines/requirements.txt
    mv -T "$aside/env" "$home" 2> /dev/null || [ -e "$home/bin/python" ] # another process was first
fi
exec "$home/bin/python" "$@"
