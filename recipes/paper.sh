#!/usr/bin/env bash
# Every row of the paper's tables 1 to 4 and its figures 1 to 4 (Hoffer et al. 2020), whole or shortened.
#
#     bash recipes/paper.sh --list
#     bash recipes/paper.sh --row NAME [--scale S] [--from DIR | --data DIR] [...] [-- ...]
#
#     --list          names everything, with its command, its cost and the paper's figures
#     --row NAME      make one: the recipes of the list, then a record of each run
#     --scale S       shorten it to S of its cost: √S of the examples and of the epochs, the schedule to its end (1)
#     --from, --data  where the recipes have their pictures or their text from
#     --seed N        weights, order and noise
#     --out DIR       checkpoints and logs (runs/paper/NAME, with the scale behind)
#     --results DIR   records, and the picture of a figure (runs/paper/results)
#     -- ...          what follows goes to the recipes as it stands (--copies 2, or another lone -- and seqba-train's)
#
# A record is a JSON file for each run, NAME.ARM.SEED.json: scores, what the paper has, command, commit, versions,
# machine, date, and the curves thinned to 200 points. seqba-plot draws records as it draws logs. A figure's picture needs
# matplotlib, which is installed with the environment.
#
# Needs    what the row's recipe needs (its --help says): most rows a GPU, ImageNet's from its archives.
# Reaches  not measured here; --list has the paper's figures. Shortened runs are the same code on less: read each as a
#          comparison of arms.
#
# Table 5 and figure 5 are measurements of time: bench/images.py --table batches, bench/scaling.py --table model.
#
# A second call goes on where the first one stopped.
set -euo pipefail

root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
source "$root/recipes/environment.sh"

entries() { # [NAME]
    "$(seqba_find_python)" "$root/recipes/paper/list_entries.py" "$@"
}

case "${1:-}" in
    --list)
        (($# == 1)) || seqba_fail "--list stands alone"
        entries
        exit
        ;;
esac

row="" scale="" from="" data="" seed="" out="" results="$root/runs/paper/results" passed=()
seqba_options row scale from data seed out results -- "$@"
[[ -n "$row" ]] || seqba_fail "which row? bash $0 --row NAME; --list has the names"
seqba_check_scale "$scale"
[[ -z "$seed" || "$seed" =~ ^[0-9]{1,18}$ ]] || seqba_fail "--seed takes a whole number from 0 on, not '$seed'"
folder="$(entries "$row")" || exit
out="${out:-$root/runs/paper/$folder${scale:+-scale-$scale}}"

seqba_environment plot
export PYTHONPATH="$root/recipes${PYTHONPATH:+:$PYTHONPATH}"

python "$root/recipes/paper/make_entry.py" --row "$row" ${scale:+--scale "$scale"} ${from:+--from "$from"} \
    ${data:+--data "$data"} ${seed:+--seed "$seed"} --out "$out" --results "$results" -- "${passed[@]}"
