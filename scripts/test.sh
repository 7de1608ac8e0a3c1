#!/usr/bin/env bash
# Creates .venv, installs the package, and runs the whole test suite: bash scripts/test.sh [pytest arguments]
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source scripts/environment.sh test
if command -v npm >/dev/null && [ ! -d hub_cards/space_static/node_modules ]; then
  npm install --silent --ignore-scripts --no-package-lock --prefix hub_cards/space_static || echo "no npm registry: its test will be skipped"
fi
# glibc returns large blocks to the kernel at every step, which then clears them again; these settings keep them.
export MALLOC_ARENA_MAX=1 MALLOC_MMAP_MAX_=0 MALLOC_TRIM_THRESHOLD_=-1
# One process more than there are processors, since some tests wait for others.
processes=$(.venv/bin/python -c "import os; print(min(4, os.cpu_count() + 1))")
HF_HUB_OFFLINE=1 .venv/bin/python -m pytest --numprocesses $processes --dist loadfile --no-loadscope-reorder "$@"
