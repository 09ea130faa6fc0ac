#!/usr/bin/env bash
# The paper's largest image result: ResNet50 on ImageNet, batches of 256 pictures, M = 4, and its shortened runs.
#
#     bash recipes/imagenet_resnet50.sh --from DIR | --data DIR [--arm ARM] [...] [-- ...]
#
#     --from DIR          unpack ImageNet's three archives from there (see data_prep/imagenet.py)
#     --data DIR          pictures that lie ready, as train/CLASS/*.JPEG and val/CLASS/*.JPEG
#     --arm ARM           ba (default), baseline, fixed-samples, or all: one after the other, same updates; or
#                         large-batch, fixed-rows
#     --copies M[,M]      views of each picture per update (4); several, one after the other
#     --regime EPOCHS     the learning rate's schedule (below), and how long: 90 (default), 40 or 23
#     --epochs N          stop after N epochs of the baseline (5004 updates each)
#     --updates N         the same in updates of each arm; overrides --epochs
#     --batch-size N      pictures of the baseline and of ba (256); fixed-samples sees M times as many
#     --mixup A           mix pictures in pairs, in shares from Beta(A, A) (the paper's table 3: 0.2)
#     --mixup-lambda L    the share: per-copy (default), one for each copy of a batch, so that an update averages M; or
#                         shared, one for all copies, as in the released code
#     --tta N             evaluate over N random views as well (the paper's table 4: 10)
#     --tta-average WHAT  of the views: their probabilities (default), or logits, as the released code
#     --train-pictures N  learn from N pictures alone, the same N for all seeds
#     --hold-out N        hold N training pictures out, and let them, not those of val, choose the best checkpoint
#     --scale S           shorten the run to S of its cost (0.01, say): √S of the pictures and of the epochs, with the
#                         schedule to its end
#     --seed N            weights, order and noise (1)
#     --out DIR           everything goes there (runs/imagenet-resnet50, with another regime's or mixup's name behind)
#     -- ...              what follows goes to seqba-train as it stands (--bf16, --num-workers 16, --ghost-batch 32)
#
# Regimes: SGD, momentum 0.9, weight decay 1e-4 but for biases and norms; resized crops of 224 and flips. lr 0.1, and a
# tenth of it after each drop:
#
#     90      drops at 30, 60 and 80
#     40      drops at 30 and 35
#     23      drops at 15, 20 and 22
#
# Should reach, top-1 % on the 50,000 pictures of val (Hoffer et al. 2020; table 2, unless the line says otherwise):
#
#     arm            per update                     val
#     baseline        256 pictures, 1 copy          76.30
#     fixed-samples  1024 pictures, 1 copy          75.70
#     ba              256 pictures, 4 copies        76.86
#
#     --regime 40, ba                               76.86 (section 4.2)
#     --regime 23, ba                               75.7  (section 4.2)
#     --mixup 0.2                                   baseline 76.70, ba 77.04 (table 3)
#     --tta 10 --copies 10                          baseline 76.30 → 77.10, ba 77.85 → 77.9 (table 4)
#
# In fixed-samples each 256 pictures have batch statistics of their own; in large-batch (not in the paper's text) all
# 1,024 share theirs. fixed-rows is 64 pictures × 4 copies, at the baseline's cost (Fort et al. 2021).
#
# Not yet measured here.
#
# Pictures are decoded to a shorter side of 400 in training (-- --decode-size N), while the released code crops from the
# whole picture. Most of ImageNet's are about 500 × 375 and stay whole so: the smallest box, 8% of the area, is 110 to
# 120 pixels wide, as it is there. Of pictures of 256, which have less than half the bytes, it is 72 to 83 pixels wide,
# and a blur once it is made 224 wide. Larger pictures still lose some of it: 800 leaves a box of 8% its 224 pixels, at
# four times the memory of a batch. Boxes of nearly the whole picture are shrunk by up to 2.4 without a filter; from 256
# it is 1.5. In evaluation pictures are decoded to 256, and their middle is taken, as there.
#
# An orientation that a camera noted (EXIF) isn't applied, as it isn't there. The column "best" of the closing table was
# chosen on the pictures that it is measured on, "last" chooses nothing; with --hold-out neither is chosen on them.
#
# Needs    GPUs, 300 GB of disk (archives and pictures), and processes to decode: --num-workers under "--". An epoch of
#          ba sees 5.1 million pictures and decodes 1.3 million: divide by the images/s in the log.
#
# A second call with the same arguments goes on where the first one stopped, in every stage.
set -euo pipefail

source "$(dirname "${BASH_SOURCE[0]}")/image.sh"

name=imagenet-resnet50 dataset=imagenet batch_size=256 copies=4 regime=90
network=(--arch resnet50 --augmentation resized-crop --image-size 224 --decode-size 400)
decay="--weight-decay 1e-4 --weight-decay-on weights"
declare -A regimes=(
    [90]="--lr 0.1 --lr-drops 30,60,80 $decay"
    [40]="--lr 0.1 --lr-drops 30,35 $decay"
    [23]="--lr 0.1 --lr-drops 15,20,22 $decay"
)

image_recipe "$@"
