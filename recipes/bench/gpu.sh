#!/usr/bin/env bash
# What a GPU makes of it: training at base with M = 1, 2, 4, 8 copies, stacked, looped, forked, keyed, against Hugging
# Face's Marian; memory; ResNet44; AWD-LSTM at M = 10; decoding. One table each.
#
#     bash recipes/bench/gpu.sh [--budget-s 600] [--json FILE] [--sections NAME...]
#     bash recipes/bench/gpu.sh --device cpu --toy      # see that it runs
#
# Needs    Python >= 3.10, pip and a GPU of NVIDIA's; no data.
# Takes    the budget, in seconds: what it has no time for is left out, and named.
#
# With SEQBA_VENV=DIR the environment in DIR is used as it stands (it needs transformers, too).
set -euo pipefail

root="$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)"
source "$root/recipes/environment.sh"
case "${1:-}" in -h | --help) seqba_header "$0"; exit ;; esac

seqba_environment bench
exec python "$root/recipes/bench/gpu.py" "$@"
