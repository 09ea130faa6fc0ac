#!/usr/bin/env bash
# Multi30k, English → German: the paper's three arms on real text, from raw sentences to BLEU on test_2016_flickr.
#
#     bash recipes/multi30k.sh [--from DIR] [--arm ARM] [--size tiny|small|base] [...]
#
#     --from DIR      take train, val and test_2016_flickr (.en, .de, plain or .gz) from there; else they are downloaded
#     --arm ARM       ba (default), baseline, fixed-samples (the paper's columns), or all: one after the other, same
#                     updates; or fixed-rows: a quarter of the pairs × 4 copies, at the baseline's cost
#     --copies M      noisy views of each example per update (4)
#     --size SIZE     tiny (2+2 layers, 128/512, 4 heads), small (default; 3+3, 256/1024, 4) or base (6+6, 512/2048, 8)
#     --updates N     updates of each arm (tiny 1500, small 2000, base 12000)
#     --max-tokens N  tokens of a micro-batch (4096)
#     --vocab N       SentencePiece subwords, joint (8000)
#     --seed N        weights, order and noise (1)
#     --out DIR       everything goes there (runs/multi30k)
#     -- ...          what follows goes to seqba-train as it stands: --subword-sampling 0.1, say, or --fork encoder
#
# Needs    tiny, small: two CPU cores and 4 GB. base: a GPU (bfloat16).
# Reaches  per arm: loss on val every epoch, and sacreBLEU of the best checkpoint in OUT/ARM/test.log. One seed of
#              --size tiny --vocab 4000 --max-tokens 1024 --updates 1200 --arm all
#          came to 25.1 (baseline), 27.3 (ba) and 32.9 (fixed-samples) sacreBLEU, with two epochs of distinct pairs in
#          the first two arms and nine in the third; an hour and a half of one core. Other sizes: not yet measured.
#
# A second call with the same arguments goes on where the first one stopped.
set -euo pipefail

root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
source "$root/recipes/environment.sh"

from="" arm=ba copies=4 size=small updates="" max_tokens=4096 vocab=8000 seed=1 out="$root/runs/multi30k" passed=()
seqba_options from arm copies size updates max-tokens vocab seed out -- "$@"

case "$size" in
    tiny)
        model=(--arch transformer_wmt_en_de --dropout 0.1
            --encoder-layers 2 --encoder-embed-dim 128 --encoder-ffn-embed-dim 512 --encoder-attention-heads 4
            --decoder-layers 2 --decoder-embed-dim 128 --decoder-ffn-embed-dim 512 --decoder-attention-heads 4
            --lr 2e-3 --warmup-updates 300)
        updates="${updates:-1500}"
        ;;
    small)
        model=(--arch transformer_wmt_en_de --dropout 0.2
            --encoder-layers 3 --encoder-embed-dim 256 --encoder-ffn-embed-dim 1024 --encoder-attention-heads 4
            --decoder-layers 3 --decoder-embed-dim 256 --decoder-ffn-embed-dim 1024 --decoder-attention-heads 4
            --lr 1e-3 --warmup-updates 500)
        updates="${updates:-2000}"
        ;;
    base)
        model=(--arch transformer_wmt_en_de --dropout 0.3 --lr 5e-4 --warmup-updates 2000 --bf16)
        updates="${updates:-12000}"
        ;;
    *) seqba_fail "--size is tiny, small or base, not '$size'" ;;
esac
seqba_choose_arms "$arm"
seqba_refuse_large_batch
seqba_count --copies "$copies"
seqba_count --updates "$updates"
seqba_count --max-tokens "$max_tokens"
seqba_count --vocab "$vocab"
seqba_check_rows "$copies" 1 --max-tokens "$max_tokens"

seqba_environment

seqba_step "text: $out/text"
python "$root/data_prep/multi30k.py" --to "$out/text" ${from:+--from "$from"}

data="$out/data-bin-$vocab"
if [[ ! -f "$data/.complete" ]]; then
    seqba_step "subwords and dictionary: $data"
    rm -rf "$data"
    seqba-preprocess --source-lang en --target-lang de --sentencepiece "$vocab" --joined-dictionary \
        --trainpref "$out/text/train" --validpref "$out/text/val" --testpref "$out/text/test_2016_flickr" \
        --destdir "$data"
    touch "$data/.complete"
fi

for arm in "${arms[@]}"; do
    seqba_step "training, arm $arm: $updates updates"
    seqba-train "$data" --save-dir "$out/$arm" --arm "$arm" --copies "$copies" --seed "$seed" \
        "${model[@]}" --share-all-embeddings --max-tokens "$max_tokens" --max-update "$updates" \
        --optimizer adam --adam-betas 0.9,0.98 --lr-scheduler inverse_sqrt \
        --criterion label_smoothed_cross_entropy --label-smoothing 0.1 \
        --no-epoch-checkpoints --log-interval 50 --log-file "$out/$arm.jsonl" "${passed[@]}"

    seqba_step "test_2016_flickr, arm $arm"
    seqba-generate "$data" --path "$out/$arm/checkpoint_best.pt" --gen-subset test --beam 4 --lenpen 0.6 \
        --max-len-a 1.5 --max-len-b 20 >"$out/$arm/test.log"
done

printf '\n'
for arm in "${arms[@]}"; do
    printf '%-14s %s\n' "$arm" "$(grep '^sacreBLEU' "$out/$arm/test.log")"
done
