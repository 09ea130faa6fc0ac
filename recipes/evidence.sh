#!/usr/bin/env bash
# The studies behind docs/results.md: baseline, ba, fixed-samples and fixed-rows on real data, three seeds each.
#
#     bash recipes/evidence.sh [--from DIR] [--only STUDY] [...]
#
#     --from DIR      take the raw corpora from there (ptb.train.txt …, train.en …, cifar-10-batches-bin or its archive);
#                     else they are downloaded
#     --only NAMES    these studies alone, or runs by the beginning of their names, separated by commas, in this order:
#                     images-5000, translation-5000.ba-4
#     --seeds N,N     seeds (1,2,3)
#     --jobs N        runs side by side, one thread each (as many as there are processors)
#     --device DEVICE auto (default), cpu or cuda
#     --time-limit S  stop all runs after so many seconds; the same command goes on with them
#     --updates N     shorten runs to so many updates, with their schedules: for a trial, into folders of its own
#     --vocab N       joint subwords, for a text too small for the study's own number
#     --out DIR       data, checkpoints and logs (runs/evidence)
#     --results DIR   a record of each run, in JSON (recipes/results)
#     --list yes      show the runs and what they cost, and make none
#     --page yes      write the tables and pictures of docs/results.md from the records, and make no run
#
# Needs    a GPU for some hours, or days of a CPU; --list says what is left to make, by the times of runs on record.
# Reaches  docs/results.md. Most of its runs took some 17 minutes of one machine with 16 CPU cores and an H100 or H200:
#          translation, DARTS and a part of the language models four at a time on the GPU (--device cuda --jobs 4), the
#          small pictures and the other language models twelve at a time beside them (--device cpu --jobs 12).
#          language-tenth takes 5 minutes of a core for a baseline, 15 for four copies or four times the examples.
#
# A second call goes on where the first one stopped: a run with a record to its end isn't made again, another goes on
# from its checkpoint. Runs have the lowest priority.
set -euo pipefail

root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
source "$root/recipes/environment.sh"

from="" only="" seeds="" jobs="" device="" time_limit="" updates="" vocab="" out="" results="" list="" page=""
seqba_options from only seeds jobs device time-limit updates vocab out results list page -- "$@"
seqba_count --jobs "${jobs:-1}"
seqba_count --updates "${updates:-1}"
seqba_count --vocab "${vocab:-1}"
seqba_count --time-limit "${time_limit:-1}"
[[ -z "$seeds" || "$seeds" =~ ^[0-9]{1,9}(,[0-9]{1,9})*$ ]] ||
    seqba_fail "--seeds takes whole numbers with commas, like 1,2,3, not '$seeds'"
[[ "$device" =~ ^(auto|cpu|cuda|)$ ]] || seqba_fail "--device takes auto, cpu or cuda, not '$device'"
for answer in "$list" "$page"; do
    [[ -z "$answer" || "$answer" == yes ]] || seqba_fail "--list and --page take yes, not '$answer'"
done

seqba_environment text,plot
export PYTHONPATH="$root/recipes${PYTHONPATH:+:$PYTHONPATH}"

if [[ -n "$page" ]]; then
    exec python "$root/recipes/evidence/page.py" ${results:+--results "$results"}
fi
export OMP_NUM_THREADS=1
exec nice -n 19 python "$root/recipes/evidence/run.py" ${from:+--from "$from"} ${only:+--only "$only"} \
    ${seeds:+--seeds "$seeds"} ${jobs:+--jobs "$jobs"} ${device:+--device "$device"} \
    ${time_limit:+--time-limit "$time_limit"} ${updates:+--updates "$updates"} ${vocab:+--vocab "$vocab"} \
    ${out:+--out "$out"} ${results:+--results "$results"} ${list:+--list}
