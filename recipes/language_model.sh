# shellcheck shell=bash
# What the recipes of AWD-LSTM share: words → data-bin → training, arm by arm → perplexities. Source it, set
#
#     corpus          the script of data_prep/ that makes the text
#     noise           seqba-train's options for the model's dropouts
#     batch_size      streams of the baseline
#     epochs          of the baseline, at --size paper
#     seed, out       defaults
#
# and call `language_model "$@"`. The options are explained in the heads of ptb.sh and wikitext2.sh.

source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"

language_model() {
    local root from="" arm=ba copies=10 size=paper updates="" scale="" model arms split data epoch_updates passed=()
    local paper_epochs="$epochs"
    root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
    epochs=""
    seqba_options from arm copies size epochs updates batch-size scale seed out -- "$@"
    case "$size" in
        paper)
            model=(--decoder-layers 3 --decoder-embed-dim 400 --decoder-hidden-size 1150)
            epochs="${epochs:-$paper_epochs}"
            ;;
        small)
            model=(--decoder-layers 3 --decoder-embed-dim 200 --decoder-hidden-size 300)
            epochs="${epochs:-10}"
            ;;
        *) seqba_fail "--size is paper or small, not '$size'" ;;
    esac
    seqba_choose_arms "$arm"
    seqba_count --copies "$copies"
    seqba_count --epochs "$epochs"
    seqba_count --updates "${updates:-1}"
    seqba_count --batch-size "$batch_size"
    seqba_check_rows "$copies" 1 --batch-size "$batch_size"
    seqba_check_scale "$scale"
    [[ -z "$scale" || -z "$updates" ]] || seqba_fail "--scale says how many updates there are: leave --updates out"

    seqba_environment

    data="$out/data-bin"
    language_model_data
    language_model_shorten
    epoch_updates="$(language_model_epoch "$data")" || exit
    updates="${updates:-$((epochs * epoch_updates))}"

    for arm in "${arms[@]}"; do
        seqba_step "training, arm $arm: $updates updates, $epoch_updates of which are an epoch of the baseline"
        language_model_train "${passed[@]}"
        for split in valid test; do
            seqba_step "$split, arm $arm"
            seqba-eval-lm "$data" --path "$out/$arm/checkpoint_best.pt" --gen-subset "$split" --batch-size 1 \
                >"$out/$arm/$split.log"
        done
    done
    language_model_table "${arms[@]}"
}

language_model_data() {
    seqba_step "text: $out/text"
    python "$root/data_prep/$corpus.py" --to "$out/text" ${from:+--from "$from"}
    [[ ! -f "$data/.complete" ]] || return 0
    seqba_step "dictionary and ids: $data"
    rm -rf "$data"
    seqba-preprocess --only-source --trainpref "$out/text/train.txt" --validpref "$out/text/valid.txt" \
        --testpref "$out/text/test.txt" --padding-factor 1 --destdir "$data"
    touch "$data/.complete"
}

# Under --scale: fewer epochs of the first lines of the training text, with the whole text's dictionary.
language_model_shorten() {
    [[ -n "$scale" ]] || return 0
    local whole="$data" lines
    epochs="$(seqba_share "$epochs" "$scale")"
    lines="$(seqba_share "$(wc -l <"$out/text/train.txt")" "$scale" $((batch_size * copies)))"
    data="$out/data-bin-$lines"
    [[ ! -f "$data/.complete" ]] || return 0
    seqba_step "the first $lines lines: $data"
    rm -rf "$data"
    head -n "$lines" "$out/text/train.txt" >"$out/text/train-$lines.txt"
    seqba-preprocess --only-source --srcdict "$whole/dict.txt" --trainpref "$out/text/train-$lines.txt" \
        --validpref "$out/text/valid.txt" --testpref "$out/text/test.txt" --padding-factor 1 --destdir "$data"
    touch "$data/.complete"
}

# Updates of an epoch of the baseline: tokens / (streams · mean window), rounded. Windows are 70 ± 5 tokens long in 19 of
# 20 cases and 35 ± 5 else, cut to whole tokens, which costs half a token: 0.95 · 69.5 + 0.05 · 34.5 = 67.75 = 271/4.
language_model_epoch() { # DATA
    local tokens count
    tokens="$(python -c 'import sys, seqba.data.indexed as i; print(i.IndexedCorpus(sys.argv[1]).sizes.sum())' \
        "$1/train")" || exit
    count=$(((8 * tokens + 271 * batch_size) / (2 * 271 * batch_size)))
    echo $((count > 0 ? count : 1))
}

# All arms validate and save at the same updates, whatever their own epochs are (fixed-samples cuts the text into M
# times as many streams, M times as short): NT-ASGD decides on every validation, so it must see the same schedule.
language_model_train() { # [seqba-train's options]
    seqba-train "$data" --task language_modeling --arch awd_lstm --save-dir "$out/$arm" \
        --arm "$arm" --copies "$copies" --weight-noise per-copy --seed "$seed" "${model[@]}" "${noise[@]}" \
        --activation-regularization 2 --temporal-activation-regularization 1 \
        --batch-size "$batch_size" --batch-size-valid 10 --bptt 70 \
        --optimizer nt_asgd --nonmono 5 --lr 30 --clip-norm 0.25 --weight-decay 1.2e-6 --max-update "$updates" \
        --validate-interval-updates "$epoch_updates" --validate-interval 1000000 \
        --save-interval-updates "$epoch_updates" --keep-interval-updates 1 --save-interval 1000000 \
        --log-interval 100 --log-file "$out/$arm.jsonl" "$@"
}

language_model_table() { # ARM...
    local arm valid test
    printf '\n%-14s %10s %10s\n' perplexity valid test
    for arm in "$@"; do
        valid="$(language_model_perplexity "$out/$arm/valid.log")" || exit
        test="$(language_model_perplexity "$out/$arm/test.log")" || exit
        printf '%-14s %10s %10s\n' "$arm" "$valid" "$test"
    done
}

language_model_perplexity() { # LOG: what seqba-eval-lm printed
    sed -n 's/.*Perplexity: *\([^ ]*\).*/\1/p' "$1" | tail -n 1 | grep . || seqba_fail "$1 has no perplexity in it"
}
