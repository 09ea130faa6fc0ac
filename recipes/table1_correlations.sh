#!/usr/bin/env bash
# The paper's table 1: how alike gradients of single pictures are, before, during and after the training of ResNet44.
#
#     bash recipes/table1_correlations.sh [--from DIR | --data DIR] [...] [-- ...]
#
#     --from, --data  pictures, as for cifar10_resnet44.sh, which trains the network
#     --copies M      views of each picture per update (40)
#     --pairs N       pairs of pictures for each correlation (100)
#     --scale S       shorten the training to S of its cost: √S of the pictures and of the epochs
#     --seed N        weights, order, noise and pairs (1)
#     --out DIR       everything goes there (runs/table1-correlations)
#     -- ...          what follows goes to seqba-train as it stands
#
# Should reach (Hoffer et al. 2020, table 1; medians of 100 samples):
#
#                             epoch 0    epoch 5   epoch 93
#     top-1 %                    9.63      63.24      95.43
#     ρ(x, T(x))                 0.99       0.56       0.13    T: crop, flip
#     ρ(x, T(x)), cutout         0.99       0.51       0.09    T: crop, flip, cutout
#     ρ(x, y)                    0.99       0.42       0.04    of one class
#     ρ(z, w)                   -0.11      -0.04       0       of different classes
#
# The accuracy of epoch 93 is that of ba with M = 40 in table 2: the states are those of that run. Each state is measured
# twice, with cutout in the views and without (docs/statistics.md says how).
#
# Measured here: epoch 0 as in the paper (docs/statistics.md). The trained states: not yet.
#
# Needs    a GPU for the training: 93 epochs of M = 40 see 190 million pictures. Each of the six measurements is some 500
#          passes over a single picture.
#
# A second call with the same arguments goes on where the first one stopped.
set -euo pipefail

root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
source "$root/recipes/environment.sh"

from="" data="" copies=40 pairs=100 scale="" seed=1 out="$root/runs/table1-correlations" passed=()
seqba_options from data copies pairs scale seed out -- "$@"
seqba_count --copies "$copies"
seqba_count --pairs "$pairs"
seqba_check_scale "$scale"

seqba_environment vision

run="$out/ba-$copies" pictures="${data:-$out/pictures}"
mkdir -p "$run/correlations"

train() { # EPOCHS
    bash "$root/recipes/cifar10_resnet44.sh" ${from:+--from "$from"} ${data:+--data "$data"} ${scale:+--scale "$scale"} \
        --copies "$copies" --epochs "$1" --seed "$seed" --out "$out" -- "${passed[@]}"
}

measure() { # EPOCHS [--fresh]: unless it has been
    local cutout file
    for cutout in 0 16; do
        file="$run/correlations/epoch-$1-cutout-$cutout.json"
        [[ ! -f "$file" ]] || continue
        seqba_step "gradients of single pictures, epoch $1, cutout $cutout"
        seqba-measure "$pictures" --path "$run/checkpoint_last.pt" --cutout "$cutout" --examples 2 --draws 2 \
            --pairs "$pairs" --seed "$seed" --quiet --json "$file" "${@:2}"
    done
}

if [[ ! -f "$run/correlations/epoch-5-cutout-16.json" ]]; then
    train 5
    measure 0 --fresh
    measure 5
fi
train 93
measure 93
