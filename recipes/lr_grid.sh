#!/usr/bin/env bash
# The paper's learning-rate grid (section 4.1): is it the learning rate that fixed-samples lacks against ba? All its rates
# are multiplied by α, of powers of M: the square root and the linear rule, and a step beyond them on either side.
#
#     bash recipes/lr_grid.sh RECIPE [ROW] [--factors M^0.25,M^0.5,…] [the recipe's options] [-- ...]
#
#     RECIPE              cifar10_resnet44, imagenet_resnet50, or table2_images and one of its rows
#     --factors α[,α]     of fixed-samples: numbers or powers of M (1,M^0.25,M^0.5,M,M^2)
#     --out DIR           everything goes there (runs/lr-grid-RECIPE[-ROW]), each run into a folder of its own
#     -- ...              what follows goes to seqba-train as it stands, in all runs
#
# All other options are the recipe's own (--data DIR, --copies M, --epochs N, --seed N, …) but --arm: ba is trained once,
# at its own rate, and fixed-samples once for each α. The table at the end has top-1 % of each on the test pictures.
#
# Should reach: nothing above α = 1 ("these experiments did not improve the baseline results", Hoffer et al. 2020, on all
# models with fixed-samples). Not yet measured here beyond a toy.
#
# Needs    six runs of the recipe, five of which see M times the pictures.
#
# A second call with the same arguments goes on where the first one stopped.
set -euo pipefail

root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
source "$root/recipes/environment.sh"

case "${1:-}" in
    -h | --help) seqba_header "$0"; exit ;;
    cifar10_resnet44 | imagenet_resnet50) recipe=("$1") ;;
    table2_images) recipe=("$1" "${2:-}") ;;
    *) seqba_fail "which recipe? bash $0 cifar10_resnet44, imagenet_resnet50 or table2_images ROW, not '${1:-}'" ;;
esac
[[ "${recipe[1]-row}" != "" && "${recipe[1]-row}" != -* ]] ||
    seqba_fail "which row? bash $0 table2_images ROW; bash recipes/table2_images.sh --list has them"
shift "${#recipe[@]}"

factors=1,M^0.25,M^0.5,M,M^2 out="$root/runs/lr-grid-$(IFS=-; echo "${recipe[*]}")" own=() passed=() pictures=()
while (($#)); do
    case "$1" in
        -h | --help) seqba_header "$0"; exit ;;
        --) passed=("${@:2}"); break ;;
        --arm) seqba_fail "--arm: the arms here are fixed-samples, and ba to compare it with" ;;
    esac
    (($# >= 2)) || seqba_fail "$1 needs a value; see bash $0 --help"
    case "$1" in
        --factors) factors="$2" ;;
        --out) out="$2" ;;
        --from | --data) pictures=("$1" "$2") ;;
        *) own+=("$1" "$2") ;;
    esac
    shift 2
done
IFS=, read -ra grid <<<"$factors"
for factor in "${grid[@]}"; do
    [[ "$factor" =~ ^([0-9]*\.?[0-9]+|M(\^-?[0-9]*\.?[0-9]+)?)$ ]] ||
        seqba_fail "--factors takes numbers and powers of M such as M^0.5, not '$factor'"
done

run() { # NAME ARM [seqba-train's options]
    seqba_step "$1: --arm $2 ${*:3}"
    bash "$root/recipes/${recipe[0]}.sh" "${recipe[@]:1}" "${pictures[@]}" "${own[@]}" --arm "$2" --out "$out/$1" \
        -- "${@:3}" "${passed[@]}"
    # Pictures that the first run has fetched or unpacked are those of all.
    [[ ! -d "$out/$1/pictures" ]] || pictures=(--data "$out/$1/pictures")
}

run ba ba
for factor in "${grid[@]}"; do
    run "fixed-samples-${factor/^/}" fixed-samples --lr-factor "$factor"
done

accuracy() { # LOG: what seqba-eval-image printed
    sed -n 's/^Top-1: *\([0-9.]*\)%.*/\1/p' "$1" | tail -n 1
}

printf '\n%-16s %-10s %8s %8s\n' 'top-1 %' 'lr ×' best last
for name in ba "${grid[@]}"; do
    [[ "$name" == ba ]] && folder="$out/ba" factor=1 || folder="$out/fixed-samples-${name/^/}" factor="$name"
    for trained in "$folder"/*/last.log; do
        trained="${trained%/last.log}"
        printf '%-16s %-10s %8s %8s\n' "${trained##*/}" "$factor" "$(accuracy "$trained/best.log")" \
            "$(accuracy "$trained/last.log")"
    done
done
