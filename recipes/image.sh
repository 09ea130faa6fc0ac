# shellcheck shell=bash
# What the recipes of pictures share: pictures → training, arm by arm → accuracies. Source it, set
#
#     name          of the result; its folder is runs/NAME
#     dataset       cifar10, cifar100 or imagenet
#     network       seqba-train's options for the model and what a copy sees of a picture
#     batch_size    pictures of the baseline's update
#     copies        M, or several, separated by commas
#     regimes       declare -A: epochs → seqba-train's options for learning rate and weight decay
#     regime        which of them, if --regime doesn't say
#     scheduler     of the learning rate: step if it isn't set, or cosine, one period as long as the regime
#     warmup_epochs of a linear warm-up, if there is one, in epochs of the baseline
#     lr_of_256     the learning rate for 256 pictures, where it is scaled with the batch, linearly
#     variants      declare -A: released, usual → seqba-train's options for what the two differ in, where they do
#
# and call `image_recipe "$@"`. The options are explained in the heads of cifar10_resnet44.sh and imagenet_resnet50.sh.

source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"

image_recipe() {
    local root from="" data="" arm=ba epochs="" updates="" seed=1 out="" mixup="" tta="" train_pictures="" hold_out=""
    local mixup_lambda="" tta_average="" tta_cutout="" settings="" variant=() scale="" shortened=()
    local usual_regime="$regime" test subset arms counts schedule epoch_updates count run passed=() views=() runs=()
    root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
    seqba_options from data arm copies regime epochs updates batch-size seed out mixup tta train-pictures hold-out \
        mixup-lambda tta-average tta-cutout settings scale -- "$@"
    image_check
    local mixed="${mixup:+-mixup-$mixup${mixup_lambda:+-$mixup_lambda}}"
    out="${out:-$root/runs/$name$regime_suffix$variant_suffix$mixed${scale:+-scale-$scale}}"

    seqba_environment vision

    image_data
    image_subset
    image_shorten
    updates="${updates:-$((epochs * epoch_updates))}"
    # A period's first update is at the peak again: the second one would begin after the last update of the regime.
    [[ "${scheduler:=step}" == step ]] || schedule+=(--lr-period-updates $((regime * epoch_updates)))

    [[ -z "${warmup_epochs:-}" ]] || schedule+=(--warmup-updates $((warmup_epochs * epoch_updates)))
    [[ -z "${lr_of_256:-}" ]] ||
        schedule+=(--lr "$(awk -v lr="$lr_of_256" -v rows="$batch_size" 'BEGIN { printf "%g", lr * rows / 256 }')")

    for count in "${counts[@]}"; do
        for arm in "${arms[@]}"; do
            image_arm "$arm" "$count"
        done
    done
    image_table
}

# Everything that can be said against the options before any work.
image_check() {
    seqba_choose_arms "$arm"
    IFS=, read -ra counts <<<"$copies"
    for count in "${counts[@]:-}"; do
        seqba_count --copies "$count"
    done
    seqba_count --batch-size "$batch_size"
    for count in "${counts[@]}"; do
        seqba_check_rows "$count" 1 --batch-size "$batch_size"
    done
    [[ "$regime" =~ ^[0-9]+$ && -n "${regimes[$regime]:-}" ]] ||
        seqba_fail "--regime is one of $(printf '%s\n' "${!regimes[@]}" | sort -rn | paste -sd ' '), not '$regime'"
    read -ra schedule <<<"${regimes[$regime]}"
    regime_suffix="-$regime-epochs"
    [[ "$regime" != "$usual_regime" ]] || regime_suffix=""
    epochs="${epochs:-$regime}"
    seqba_count --epochs "$epochs"
    seqba_count --updates "${updates:-1}"
    seqba_count --tta "${tta:-1}"
    seqba_count --train-pictures "${train_pictures:-1}"
    seqba_count --hold-out "${hold_out:-1}"
    seqba_check_scale "$scale"
    [[ -z "$scale" || -z "$updates$train_pictures$hold_out" ]] ||
        seqba_fail "--scale says how many pictures and updates there are: leave --updates, --train-pictures and" \
            "--hold-out out"
    [[ "${mixup:-1}" =~ ^[0-9]*\.?[0-9]+$ ]] || seqba_fail "--mixup takes a number such as 0.2, not '$mixup'"
    [[ -z "$mixup_lambda" || -n "$mixup" ]] || seqba_fail "--mixup-lambda belongs to --mixup, which isn't given"
    image_choice --mixup-lambda "${mixup_lambda:-shared}" per-copy shared
    [[ -z "$tta_average$tta_cutout" || -n "$tta" ]] ||
        seqba_fail "--tta-average and --tta-cutout belong to --tta, which isn't given"
    image_choice --tta-average "${tta_average:-logits}" probabilities logits
    seqba_count --tta-cutout "${tta_cutout:-1}"
    image_variant
    [[ -z "$train_pictures" || -z "$hold_out" ]] ||
        seqba_fail "--train-pictures and --hold-out exclude each other: both say what is left out of training"
    [[ -z "$from" || -z "$data" ]] ||
        seqba_fail "--from and --data exclude each other: --data names pictures that lie ready"
    [[ "$dataset" != imagenet || -n "$from$data" ]] ||
        seqba_fail "ImageNet is not for download without an account: --from DIR with its archives, or --data DIR"
}

image_choice() { # OPTION VALUE CHOICE CHOICE
    [[ "$2" == "$3" || "$2" == "$4" ]] || seqba_fail "$1 is $3 or $4, not '$2'"
}

# Sets `variant` to what the settings mean, the released code's by default, and `variant_suffix` to the name of others.
image_variant() {
    variant_suffix=""
    if ! declare -p variants >/dev/null 2>&1; then
        [[ -z "$settings" ]] || seqba_fail "--settings: those of $name and of the released code are the same"
        return 0
    fi
    image_choice --settings "${settings:=released}" released usual
    read -ra variant <<<"${variants[$settings]}"
    [[ "$settings" == released ]] || variant_suffix="-$settings"
}

# Sets `data` to the folder of the pictures, which is made if the user has none.
image_data() {
    [[ -z "$data" ]] || return 0
    seqba_step "pictures: $out/pictures"
    data="$out/pictures"
    if [[ "$dataset" == imagenet ]]; then
        python "$root/data_prep/imagenet.py" --from "$from" --to "$data"
    else
        python "$root/data_prep/cifar.py" --dataset "$dataset" --to "$data" ${from:+--from "$from"}
    fi
}

# Which pictures are learned from, which decide, and `epoch_updates`: updates of an epoch of the baseline, which leaves
# out the last few pictures that make no whole batch.
image_subset() {
    local pictures largest
    pictures="$(image_count)" || exit
    if [[ -n "$scale" ]]; then
        # Not fewer than the largest update of fixed-samples has, where there are so many.
        largest="$(printf '%s\n' "${counts[@]}" | sort -n | tail -n 1)"
        train_pictures="$(seqba_share "$pictures" "$scale" $((batch_size * largest)))"
        ((train_pictures < pictures)) || train_pictures=""
    fi
    if [[ -n "$train_pictures" ]]; then
        ((train_pictures <= pictures)) || seqba_fail "--train-pictures $train_pictures: $data has only $pictures"
        hold_out=$((pictures - train_pictures))
    fi
    epoch_updates=$(((pictures - ${hold_out:-0}) / batch_size))
    ((epoch_updates > 0)) ||
        seqba_fail "$data has $pictures pictures, ${hold_out:-0} held out: not even one --batch-size of $batch_size"
    test=test
    [[ "$dataset" != imagenet ]] || test=val
    subset="$test"
    [[ -z "$hold_out" || -n "$train_pictures" ]] || subset=held-out
    views=(${hold_out:+--hold-out "$hold_out"} ${mixup:+--mixup "$mixup"}
        ${mixup_lambda:+--mixup-lambda "$mixup_lambda"})
}

# Under --scale: fewer epochs, and what counts epochs of the whole regime, in `shortened` and `regime`. Drops of the rate
# are at the same shares of the run, in updates, as several may lie in one epoch.
image_shorten() {
    [[ -n "$scale" ]] || return 0
    local given=("${schedule[@]}" "${variant[@]}") whole="$regime" place
    epochs="$(seqba_share "$epochs" "$scale")"
    regime="$(seqba_share "$regime" "$scale")"
    for ((place = 0; place < ${#given[@]}; place += 2)); do
        case "${given[place]}" in
            --lr-drops)
                shortened+=(--lr-drop-unit update
                    --lr-drops "$(image_drops "${given[place + 1]}" "$whole" $((regime * epoch_updates)))")
                ;;
            --drop-path-epochs | --weight-decay-until)
                shortened+=("${given[place]}" "$(seqba_share "${given[place + 1]}" "$scale")")
                ;;
        esac
    done
}

image_drops() { # DROPS EPOCHS UPDATES: the drops of so many epochs as those of so many updates, each after the one before
    awk -v drops="$1" -v epochs="$2" -v updates="$3" 'BEGIN {
        count = split(drops, drop, ",")
        for (i = 1; i <= count; i++) {
            update = int(updates * drop[i] / epochs + 0.5)
            last = (update > last ? update : last + 1)
            printf "%s%d", (i > 1 ? "," : ""), last
        }
    }'
}

image_count() {
    python -c '
import sys
from seqba.cli.command import run
from seqba.data.images import open_images

def main(arguments):
    print(len(open_images(arguments[0], "train", decode_size=256)))
    return 0

sys.exit(run(main, sys.argv[1:]))' "$data"
}

# Trains an arm and looks at what it came to. The baseline is the same for all M, and made once.
image_arm() { # ARM M
    local folder="$1-$2" copies="$2" checkpoint
    if [[ "$1" == baseline ]]; then
        [[ " ${runs[*]-} " != *" baseline "* ]] || return 0
        folder=baseline copies=1
    fi
    runs+=("$folder")
    seqba_step "training, $folder: $updates updates, $epoch_updates of which are an epoch of the baseline"
    image_train "$1" "${passed[@]}"
    for checkpoint in best last; do
        seqba_step "$test, $folder, $checkpoint checkpoint"
        seqba-eval-image "$data" --path "$out/$folder/checkpoint_$checkpoint.pt" --gen-subset "$test" \
            >"$out/$folder/$checkpoint.log"
    done
    [[ -n "$tta" ]] || return 0
    seqba_step "$test, $folder, last checkpoint, $tta views"
    seqba-eval-image "$data" --path "$out/$folder/checkpoint_last.pt" --gen-subset "$test" --tta "$tta" \
        --seed "$seed" ${tta_average:+--tta-average "$tta_average"} ${tta_cutout:+--tta-cutout "$tta_cutout"} \
        >"$out/$folder/tta.log"
}

# All arms validate and save at the same updates, whatever their own epochs are (fixed-samples passes over the pictures
# M times as often).
image_train() { # ARM [seqba-train's options]
    seqba-train "$data" --task image_classification --save-dir "$out/$folder" \
        --arm "$1" --copies "$copies" --seed "$seed" "${network[@]}" "${views[@]}" --batch-size "$batch_size" \
        --optimizer sgd --momentum 0.9 --lr-scheduler "$scheduler" "${schedule[@]}" "${variant[@]}" "${shortened[@]}" \
        --max-update "$updates" \
        --valid-subset "$subset" --batch-size-valid 256 \
        --best-checkpoint-metric top1 --maximize-best-checkpoint-metric \
        --validate-interval-updates "$epoch_updates" --validate-interval 1000000 \
        --save-interval-updates "$epoch_updates" --keep-interval-updates 1 --save-interval 1000000 \
        --log-interval 100 --log-file "$out/$folder.jsonl" "${@:2}"
}

image_table() {
    local run
    printf '\n%-18s %8s %8s%s\n' 'top-1 %' best last "${tta:+  last, $tta views}"
    for run in "${runs[@]}"; do
        printf '%-18s %8s %8s' "$run" "$(image_accuracy "$out/$run/best.log")" "$(image_accuracy "$out/$run/last.log")"
        [[ -z "$tta" ]] || printf '  %*s' $((${#tta} + 12)) "$(image_accuracy "$out/$run/tta.log")"
        printf '\n'
    done
}

image_accuracy() { # LOG: what seqba-eval-image printed
    sed -n 's/^Top-1: *\([0-9.]*\)%.*/\1/p' "$1" | tail -n 1
}
