#!/usr/bin/env bash
# Everything that must hold before a change is taken: formatting, lint, types and all tests, slow ones included.
#
#     bash tests/run.sh                    # from any folder, on a machine with Python >= 3.10 and nothing else
#     bash tests/run.sh -k architecture    # arguments go on to pytest
#     bash tests/run.sh -n 0               # in one process: messages as they come, a debugger
#
# A worker for each core takes one file of tests after the other, those with slow tests first, with one thread: many
# tests start processes of their own, and threads that wait for each other would cost more than they bring.
#
# With SEQBA_TORCH (recipes/environment.sh) another torch than the pinned one is tried. Types aren't checked then: each
# torch has its own.
#
# The first call makes .venv (recipes/environment.sh); later calls reuse it.
set -euo pipefail

root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
cd "$root"
other_torch="${SEQBA_TORCH:-}"
source recipes/environment.sh
seqba_environment dev

step() {
    printf '\n== %s\n' "$*"
    "$@"
}

step ruff format --check .
step ruff check .
if [[ -z "$other_torch" ]]; then
    step mypy
else
    printf '\n== mypy left out: types are checked with the pinned torch alone, and SEQBA_TORCH names %s\n' "$other_torch"
fi
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}"
step python -m pytest --numprocesses auto --dist loadfile --no-loadscope-reorder "$@"
printf '\nall checks passed\n'
