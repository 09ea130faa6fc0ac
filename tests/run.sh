#!/usr/bin/env bash
# Everything that must hold before a change is taken: formatting, lint, types and all tests, slow ones included.
#
#     bash tests/run.sh                    # from any folder, on a machine with Python >= 3.10 and nothing else
#     bash tests/run.sh -k architecture    # arguments go on to pytest
#
# The first call makes .venv (recipes/environment.sh); later calls reuse it.
set -euo pipefail

root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
cd "$root"
source recipes/environment.sh
seqba_environment dev

step() {
    printf '\n== %s\n' "$*"
    "$@"
}

step ruff format --check .
step ruff check .
step mypy
step python -m pytest "$@"
printf '\nall checks passed\n'
