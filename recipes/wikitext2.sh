#!/usr/bin/env bash
# AWD-LSTM on WikiText-2, 3 × 1,150, without fine-tuning: the released settings.
#
#     bash recipes/wikitext2.sh [--from DIR] [--arm ARM] [--size paper|small] [...] [-- ...]
#
#     --from DIR      take wiki.train.tokens, wiki.valid.tokens, wiki.test.tokens from there; else they are downloaded
#     --arm ARM       ba (default), baseline, fixed-samples, or all: one after the other, same updates; or large-batch,
#                     fixed-rows
#     --copies M      noisy views of each window per update (10)
#     --size SIZE     paper (default; 3 × 1150, embedding 400: 34 million weights) or small (3 × 300, 200: for a CPU)
#     --epochs N      epochs of the baseline: passes over the text in --batch-size streams (paper 750, small 10)
#     --updates N     the same in updates of each arm; overrides --epochs (an epoch is 385 updates)
#     --batch-size N  streams of the baseline and of ba (80); fixed-samples reads M times as many
#     --scale S       shorten the run to S of its cost (0.001, say): √S of the text and of the epochs
#     --seed N        weights, window lengths and noise (1882, as in the released command)
#     --out DIR       everything goes there (runs/wikitext2)
#     -- ...          what follows goes to seqba-train as it stands (--stop-time-hours 1, or a smaller model, say)
#
# Should reach: the Batch Augmentation paper has no figures for this corpus. The released command,
#     main.py --epochs 750 --data data/wikitext-2 --dropouth 0.2 --seed 1882
# with its defaults (batch_size 80, dropouti 0.65), is said to come to perplexities of 68.7 valid and 65.6 test: that is
# --arm baseline. How its words are called here stands in the head of recipes/ptb.sh.
#
# Measured here: nothing yet at these sizes.
#
# Needs    paper: a GPU; ba and fixed-samples process 16 billion tokens in 750 epochs, baseline a tenth of that: divide
#          by the tokens/s in the log. small: two CPU cores and 8 GB.
#
# A second call with the same arguments goes on where the first one stopped, in every stage.
set -euo pipefail

source "$(dirname "${BASH_SOURCE[0]}")/language_model.sh"

corpus=wikitext2 batch_size=80 epochs=750 seed=1882
out="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)/runs/wikitext2"
noise=(--dropout 0.4 --hidden-dropout 0.2 --input-dropout 0.65 --embedding-dropout 0.1 --weight-dropout 0.5)

language_model "$@"
