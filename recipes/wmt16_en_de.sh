#!/usr/bin/env bash
# The paper's translation result: base Transformer, WMT16 English → German, 100,000 updates, M = 4, beam 4, no averaging.
#
#     bash recipes/wmt16_en_de.sh [--from DIR] [--arm ARM] [--noise released|fairseq] [--out DIR] [...]
#
#     --from DIR          take the corpus's parts from there (see data_prep/wmt16_en_de.py); else 1.7 GB are downloaded
#     --arm ARM           ba (default), baseline, fixed-samples, or all: one after the other; or fixed-rows
#     --copies M          noisy views of each example per update (4)
#     --micro-batches S   micro-batches of 4,096 tokens per update, whatever the number of GPUs (4)
#     --noise NOISE       dropout of 0.1: released (default), on the residuals and embeddings, the attention weights and
#                         after the ReLU, or fairseq, on the first two alone
#     --lenpen-form FORM  beam search divides by ((5 + length) / 6)^0.6: gnmt (default), or by length^0.6: fairseq
#     --updates N         updates of each arm (100000)
#     --scale S           shorten the run to S of its cost (0.01, say): S of the updates, with warm-up to the same peak, on
#                         √S of the sentences
#     --merges N          joint BPE merges (32000)
#     --seed N            weights, order and noise (1)
#     --out DIR           everything goes there (runs/wmt16_en_de)
#     -- ...              what follows goes to seqba-train as it stands: a smaller model for a trial, say, or
#                         --subword-sampling 0.1, under which each copy cuts its words into subwords anew
#
# Should reach, on newstest2014 (Hoffer et al. 2020, table 2; the columns are those arms):
#
#     arm            per update                    BLEU
#     baseline        4 micro-batches, 1 copy      26.88
#     fixed-samples  16 micro-batches, 1 copy      27.13
#     ba              4 micro-batches, 4 copies    27.49
#     fixed-rows      1 micro-batch,   4 copies    not in the paper: a quarter of the examples, at the baseline's cost
#
# The paper gives 4,096 tokens per batch and "the original hyper-parameters", and leaves open the test set, the metric,
# the length penalty, where dropout acts, and how many such batches its hardware made of one update. What it leaves open
# is taken from its authors' released code (seq2seq.pytorch, train_transformer.sh), and can be switched:
#
#     --micro-batches 8 processes of 64 sentences made about 14,000 target tokens per update, about 4 micro-batches.
#                     1 is the letter of the paper, a batch so small that a baseline gains more from further examples
#                     than in the paper's table; 6 are the 25,000 tokens of the original Transformer; 8 are fairseq's
#                     habit, --max-tokens 4096 on each of 8 GPUs
#     --noise         dropout acts in its attention and after its ReLU too, and is what copies average over; fairseq's
#                     transformer_wmt_en_de leaves those two at 0
#     --lenpen-form   its beam search has the form of Wu et al. 2016; fairseq's divides by the length alone
#
# The metric stays open: this recipe reports tokenised, compound-split and sacreBLEU. Compare arms with each other first:
# they differ by --arm alone. The recipe has been run whole at toy size only.
#
# Needs    a GPU with 24 GB or more (bfloat16), 60 GB of disk, and some hours of CPU for the corpus. ba and
#          fixed-samples process about 6 billion tokens, the others a quarter of that: divide by the tokens/s in the log.
#
# A second call with the same arguments goes on where the first one stopped, in every stage.
set -euo pipefail

root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
source "$root/recipes/environment.sh"

from="" arm=ba copies=4 micro_batches=4 shards="" noise=released lenpen_form=gnmt updates=100000 merges=32000 seed=1
out="$root/runs/wmt16_en_de" scale="" passed=()
seqba_options from arm copies micro-batches shards noise lenpen-form updates scale merges seed out -- "$@"
seqba_choose_arms "$arm"
seqba_refuse_large_batch
seqba_count --copies "$copies"
micro_batches="${shards:-$micro_batches}" # --shards is the former name
seqba_count --micro-batches "$micro_batches"
seqba_check_rows "$copies" "$micro_batches" "--micro-batches $micro_batches or --max-tokens" 4096
seqba_count --updates "$updates"
seqba_count --merges "$merges"
seqba_check_scale "$scale"
case "$noise" in
    released) dropouts=(--dropout 0.1 --attention-dropout 0.1 --activation-dropout 0.1) ;;
    fairseq) dropouts=(--dropout 0.1 --attention-dropout 0 --activation-dropout 0) ;;
    *) seqba_fail "--noise is released or fairseq, not '$noise'" ;;
esac
case "$lenpen_form" in
    gnmt | fairseq) ;;
    *) seqba_fail "--lenpen-form is gnmt or fairseq, not '$lenpen_form'" ;;
esac

seqba_environment wmt

seqba_step "corpus: $out/corpus"
corpus="$out/corpus" data="$out/data-bin"
python "$root/data_prep/wmt16_en_de.py" --to "$corpus" --merges "$merges" ${from:+--from "$from"}

if [[ ! -f "$data/.complete" ]]; then
    seqba_step "dictionary and ids: $data"
    rm -rf "$data"
    seqba-preprocess --source-lang en --target-lang de --joined-dictionary --nwordssrc 32768 --nwordstgt 32768 \
        --trainpref "$corpus/bpe/train" --validpref "$corpus/bpe/newstest2013" \
        --testpref "$corpus/bpe/newstest2014,$corpus/bpe/newstest2015,$corpus/bpe/newstest2016" \
        --destdir "$data" --workers "$(getconf _NPROCESSORS_ONLN)"
    touch "$data/.complete"
fi
cp "$corpus/bpe.codes" "$data" # for --subword-sampling

# The paper's own schedule: 512^-0.5 · min(t^-0.5, t · 4000^-1.5), which peaks at 7.0e-4.
schedule=(--lr-scheduler vaswani --warmup-updates 4000) save_updates=5000

# Under --scale: fewer updates, and a data-bin of sentences from all parts of the corpus, with the whole dictionary.
shorten() {
    local square whole="$data" sentences pairs language
    square="$(awk -v scale="$scale" 'BEGIN { print scale * scale }')" # S of the updates, not √S
    updates="$(seqba_share "$updates" "$square")" save_updates="$(seqba_share "$save_updates" "$square")"
    # The paper's formula with a shorter warm-up would peak higher; this one is the same with the peak given.
    schedule=(--lr-scheduler inverse_sqrt --lr 6.988e-4 --warmup-updates "$(seqba_share 4000 "$square")")
    pairs="$(wc -l <"$corpus/bpe/train.en")"
    sentences="$(seqba_share "$pairs" "$scale")"
    data="$out/data-bin-$sentences"
    [[ ! -f "$data/.complete" ]] || return 0
    seqba_step "$sentences of $pairs sentences: $data"
    rm -rf "$data"
    mkdir -p "$data"
    for language in en de; do
        awk -v part="$sentences" -v all="$pairs" 'int(NR * part / all) > int((NR - 1) * part / all)' \
            "$corpus/bpe/train.$language" >"$data/train.$language"
    done
    seqba-preprocess --source-lang en --target-lang de --joined-dictionary --srcdict "$whole/dict.en.txt" \
        --trainpref "$data/train" --validpref "$corpus/bpe/newstest2013" --testpref "$corpus/bpe/newstest2014" \
        --destdir "$data" --workers "$(getconf _NPROCESSORS_ONLN)"
    touch "$data/.complete"
}
[[ -z "$scale" ]] || shorten

train() { # ARM [seqba-train's options]
    local arm="$1"
    shift
    seqba-train "$data" --save-dir "$out/$arm" --arm "$arm" --copies "$copies" --update-freq "$micro_batches" --seed "$seed" \
        --arch transformer_wmt_en_de --share-all-embeddings "${dropouts[@]}" \
        --optimizer adam --adam-betas 0.9,0.98 --adam-eps 1e-9 "${schedule[@]}" \
        --criterion label_smoothed_cross_entropy --label-smoothing 0.1 \
        --max-tokens 4096 --max-update "$updates" --bf16 \
        --save-interval-updates "$save_updates" --keep-interval-updates 1 --no-epoch-checkpoints \
        --log-file "$out/$arm.jsonl" "$@"
}

evaluate() { # ARM: the last checkpoint, one model, no averaging
    local folder="$out/$1/newstest2014"
    mkdir -p "$folder"
    seqba-generate "$data" --path "$out/$1/checkpoint_last.pt" --gen-subset test --beam 4 --lenpen 0.6 \
        --lenpen-form "$lenpen_form" --remove-bpe >"$folder/generate.log"
    grep '^H-' "$folder/generate.log" | sed 's/^H-//' | sort -n -k 1,1 | cut -f 3 >"$folder/tokens.de"
    python "$root/data_prep/moses.py" detokenize --lang de <"$folder/tokens.de" >"$folder/text.de"
    {
        # Tokenised and compound-split BLEU of tokens, then sacreBLEU of text.
        seqba-score --sys "$folder/tokens.de" --ref "$corpus/tok/newstest2014.de" | sed -n 1,2p
        seqba-score --sys "$folder/text.de" --ref "$corpus/raw/newstest2014.de" --sacrebleu
    } | tee "$folder/bleu.txt"
}

for arm in "${arms[@]}"; do
    seqba_step "training, arm $arm: $updates updates"
    train "$arm" "${passed[@]}"
done
for arm in "${arms[@]}"; do
    seqba_step "newstest2014, arm $arm"
    evaluate "$arm"
done
