#!/usr/bin/env bash
# Makes .venv, installs, and runs the whole test suite: bash scripts/test.sh [pytest arguments]
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source scripts/environment.sh test
HF_HUB_OFFLINE=1 .venv/bin/python -m pytest --numprocesses auto --maxprocesses 4 --dist loadfile "$@"
