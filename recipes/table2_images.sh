#!/usr/bin/env bash
# The other image rows of the paper's table 2, one by one. ResNet44 on CIFAR-10 and ResNet50 on ImageNet have recipes of
# their own.
#
#     bash recipes/table2_images.sh ROW [--settings released|usual] [the options of recipes/cifar10_resnet44.sh]
#     bash recipes/table2_images.sh --list
#
# Should reach, top-1 % (Hoffer et al. 2020, table 2; "fixed" is the arm fixed-samples;
# large-batch and fixed-rows are explained in the head of cifar10_resnet44.sh):
#
#     ROW                     M   baseline   fixed      ba    batch  epochs
#     vgg16-cifar10          32      93.82   94.49   95.32       64     200
#     wrn28-10-cifar10        6      96.60   96.60   97.15      128     200
#     darts-cifar10           8      97.65   97.63   97.85       96     600
#     amoebanet-cifar10       8      98.16   98.10   98.24       96     600
#     amoebanet128-cifar10    8      98.16   98.10   98.24       96     600
#     resnet44-cifar100      40      72.97   70.30   74.13       64     100
#     vgg16-cifar100         32      73.03   67.20   75.50       64     200
#     wrn28-10-cifar100      10      79.85   80.12   83.45      128     200
#     densenet100-cifar100    4      77.73   75.35   78.80       64     300
#     alexnet-imagenet        8      58.25   57.60   62.31      256      30
#     mobilenet-imagenet      4      70.60   69.50   71.40      256      90
#     resnet50-large-imagenet 4   75.86       –   76.51     8192      90
#
# The last row is of section 4.5: batches of 8,192 under the schedule for large batches.
#
# With mixup (table 3: --mixup 0.2 --copies 10): wrn28-10-cifar10 97.30 and ba 97.80, wrn28-10-cifar100 82.5 and 84.3.
# Over ten views (table 4: --tta 10 --copies 10): wrn28-10-cifar100 79.85 → 80.29, ba 83.45 → 84.88.
#
# AmoebaNet: table 2 doesn't say how wide it is, and table 4 has the same figures for a width of 128. amoebanet-cifar10
# has the 36 of the released definition, 3.1 million parameters, and amoebanet128-cifar10 has 128, 37.5 million.
# With M = 12 (section 4.1) 94.46% after 14 epochs: --copies 12 --epochs 14, where rate and drop path are those of the
# first 14 of 600 epochs.
#
# Measured here: a narrow DARTS on a fifth of the pictures (--arm baseline --train-pictures 10000 --epochs 3 --
# --init-channels 16 --layers 8 --lr-period-updates 312 --drop-path-epochs 3 --bf16; pictures that were JPEG once) has
# 39.4, 46.6 and 48.0 after each epoch; the same network after ten epochs with a cosine of that length (evidence.sh
# --only images-darts) 60.7, and with M = 4 65.3. No whole row yet.
#
# All rows: SGD, momentum 0.9; on CIFAR crop, flip and a cutout of 16, on ImageNet crops of 224 and flips. The
# rates and their drops are those of the released code, which doesn't say how long it trains: the epochs here are ours,
# from where the last drop lies and from the networks' own papers. So are the batches of VGG16, WRN-28-10 and DenseNet.
# Of DARTS and AmoebaNet it says the epochs, but not the batch.
#
#     resnet44       lr 0.1, a tenth of it after 81 epochs; decay 1e-4, biases and norms left out
#     vgg16          lr 0.1, a fifth of it after each of 60, 120, 160; decay 5e-4 on everything
#     wrn28-10       the same drops; decay 5e-4, biases and norms left out
#     densenet100    lr 0.1, a tenth after each of 150 and 225; decay 1e-4, biases and norms left out
#     darts,         lr 0.025, to 0 along half a cosine (there by steps of an epoch, here of an update); decay 3e-4,
#     amoebanet      biases and norms left out; drop path 0.2 after 600 epochs, auxiliary loss 0.4. The batch of 96 and
#                    the gradient norm of at most 5 are those of DARTS's own code: -- --clip-norm 0 leaves it out
#     alexnet        lr 0.01, 0.005 after 10 epochs, 0.001 after 15, 0.0005 after 20, 0.0001 after 25; decay 5e-4 on
#                    everything
#     mobilenet      lr 0.1, a tenth after each of 30, 60, 80; decay 1e-4, biases and norms left out
#     resnet50-large the schedule of Goyal et al. 2017 for large batches: lr 0.1 · batch / 256, which is 3.2, reached from
#                    0.1 by equal steps over the first 5 epochs; a tenth after each of 30, 60, 80; decay 1e-4, biases
#                    and norms left out; statistics of batch norm over 32 pictures (--ghost-batch 32), as in the paper.
#                    It doesn't say for how many epochs
#
# In three rows the released code (convNet.pytorch) has settings of its own. --settings released, the default, is as
# there; --settings usual is what the networks' papers or other programs have, in a folder of its own, runs/ROW-usual:
#
#     row            released                                           usual
#     densenet100    weights begin with variance 2 / (9 · inputs)       2 / (9 · outputs), as DenseNet's own code
#     alexnet        no decay after 15 epochs of the baseline;          decay throughout;
#                    windows of 224 of pictures resized to 256          resized crops
#     mobilenet      depthwise weights don't decay;                     they do;
#                    windows of 224 of pictures resized to 256          resized crops
#
# Resized crops, boxes of 8 to 100% of a picture, are taken from pictures decoded to 400 (see imagenet_resnet50.sh). One
# setting alone is had from seqba-train's options: --settings usual -- --weight-decay-until 15, say.
#
# Needs    a GPU for the whole of any row; ImageNet's pictures from its archives (--from DIR, see data_prep/imagenet.py)
#          or ready (--data DIR). CIFAR is downloaded if neither is given.
#          --scale S makes a run of S of the cost.
#          In FLOP, 6 for each multiply-add of a forward, and in hours of an NVIDIA A100 at a share of its 312 TFLOP/s
#          (bfloat16), which is assumed, not measured; fixed-samples costs what ba does:
#
#     ROW                   baseline        ba    hours:      ba  share
#     vgg16-cifar10          2.0e+16   6.4e+17      0.2     5.7  10%
#     wrn28-10-cifar10       3.1e+17   1.9e+18      1.4     8.4  20%
#     darts-cifar10          9.5e+16   7.6e+17      8.5    67.7  1%
#     amoebanet-cifar10      8.8e+16   7.0e+17      7.8    62.7  1%
#     amoebanet128-cifar10   1.0e+18   8.3e+18     23.0   183.6  4%
#     resnet44-cifar100      2.9e+15   1.2e+17      0.1     3.5  3%
#     vgg16-cifar100         2.0e+16   6.4e+17      0.2     5.7  10%
#     wrn28-10-cifar100      3.1e+17   3.1e+18      1.4    14.0  20%
#     densenet100-cifar100   2.6e+16   1.0e+17      2.3     9.2  1%
#     alexnet-imagenet       1.6e+17   1.3e+18      1.5    11.7  10%
#     mobilenet-imagenet     3.9e+17   1.6e+18     11.7    46.7  3%
#     resnet50-large-imagenet 2.8e+18  1.1e+19     25.2   100.7  10%
#
# Each row has its own folder, runs/ROW. A second call with the same arguments goes on where the first one stopped.
set -euo pipefail

source "$(dirname "${BASH_SOURCE[0]}")/image.sh"

rows() {
    cat <<'ROWS'
ROW                  NETWORK           BATCH  M EPOCHS    LR SHRINK          DROPS       DECAY OF
vgg16-cifar10        vgg16_bn             64 32    200  0.1  0.2             60,120,160  5e-4  all
wrn28-10-cifar10     wide_resnet28_10    128  6    200  0.1  0.2             60,120,160  5e-4  weights
darts-cifar10        darts                96  8    600  0.025 -              -           3e-4  weights
amoebanet-cifar10    amoebanet            96  8    600  0.025 -              -           3e-4  weights
amoebanet128-cifar10 amoebanet            96  8    600  0.025 -              -           3e-4  weights
resnet44-cifar100    resnet44             64 40    100  0.1  0.1             81,122,164  1e-4  weights
vgg16-cifar100       vgg16_bn             64 32    200  0.1  0.2             60,120,160  5e-4  all
wrn28-10-cifar100    wide_resnet28_10    128 10    200  0.1  0.2             60,120,160  5e-4  weights
densenet100-cifar100 densenet_bc100_12    64  4    300  0.1  0.1             150,225     1e-4  weights
alexnet-imagenet     alexnet             256  8     30  0.01 0.5,0.2,0.5,0.2 10,15,20,25 5e-4  all
mobilenet-imagenet   mobilenet_v1        256  4     90  0.1  0.1             30,60,80    1e-4  weights
resnet50-large-imagenet resnet50        8192  4     90  3.2  0.1             30,60,80    1e-4  weights
ROWS
}

name="${1:-}"
case "$name" in
    -h | --help) seqba_header "$0"; exit ;;
    --list) rows | awk 'NR > 1 { print $1 }'; exit ;;
    "" | -*) seqba_fail "which row? bash $0 ROW [options]; --list has them" ;;
esac
shift

read -r _ arch batch_size copies regime lr shrink drops decay of < <(rows | awk -v row="$name" 'NR > 1 && $1 == row') ||
    seqba_fail "there is no row '$name'; bash $0 --list has those there are"
dataset="${name##*-}"
case "$dataset" in
    cifar*) network=(--arch "$arch" --cutout 16) ;;
    imagenet) network=(--arch "$arch" --image-size 224) ;;
esac
[[ "$name" != amoebanet128-* ]] || network+=(--init-channels 128)
windows="--augmentation crop --crop-padding 0 --decode-size 256"
boxes="--augmentation resized-crop --decode-size 400"
case "$name" in
    densenet100-*) declare -A variants=([released]="--conv-init fan-in" [usual]="--conv-init fan-out") ;;
    alexnet-*) declare -A variants=([released]="$windows --weight-decay-until 15" [usual]="$boxes") ;;
    mobilenet-*) declare -A variants=([released]="$windows --weight-decay-on weights-not-depthwise" [usual]="$boxes") ;;
esac
rates="--lr-drops $drops --lr-shrink $shrink"
if [[ "$name" == resnet50-large-imagenet ]]; then
    network+=(--augmentation resized-crop --decode-size 400 --ghost-batch 32)
    warmup_epochs=5 lr_of_256=0.1
    rates+=" --warmup-init-lr 0.1"
fi
if [[ "$drops" == - ]]; then
    scheduler=cosine
    rates="--drop-path-epochs $regime --clip-norm 5"
fi
declare -A regimes=(["$regime"]="--lr $lr $rates --weight-decay $decay --weight-decay-on $of")

image_recipe "$@"
