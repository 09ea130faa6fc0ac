"""Options of fairseq-train and of the released awd-lstm that seqba-train doesn't have, and what to do instead."""

from __future__ import annotations

from seqba.cli.fairseq_options import (
    HALF_PRECISION,
    LOADING,
    MEMORY,
    PROCESSES,
    SCORERS,
    SERVICES,
    SUBWORD_TOOLS,
    SWITCHES,
    UNUSED,
    hints,
)

_RANKS = (
    "start the processes with torchrun; an update is --update-freq micro-batches for the whole job, whatever the "
    "hardware"
)
_SHARDED = "weights and optimizer state in parts on the processes are --shard-params; start them with torchrun"
_HALF = "half precision is --bf16 here, which needs no loss scaling"
_NO_PLUGINS = "models and tasks are imported from Python; use seqba.merged_gradient in a loop of your own"
_LOADER = "batches are cut from a memory map in the main process, in about a millisecond each; leave it out"
_MEMORY = "--plan auto fits an update into memory by itself; leave it out"
_TARGETS = "a language model predicts the next token of its own vocabulary; leave it out"
_SCHEDULES = "the schedules are fixed, step, inverse_sqrt and vaswani"
_LAYERDROP = "dropping whole layers would be shared by all copies of a batch and is not offered"
_PIECES = (
    "a data-bin's text is in subwords already, so leave it out: seqba-preprocess --sentencepiece makes them, and "
    "--eval-bleu-remove-bpe joins them for BLEU in validation"
)
_LOGS = "logs are JSON lines (--log-file) or TensorBoard events (--tensorboard-logdir)"
_AVERAGES = "average checkpoints afterwards with seqba-average-checkpoints"
_ADAPTIVE_INPUT = "the vocabulary is small enough for one table; leave it out"
_ADAPTIVE_LOSS = "the loss is exact and never holds all logits; leave it out"
_CHARACTERS = "embeddings are of whole tokens; leave it out"
_EMBEDDINGS = "pretrained embeddings are not read; start from a checkpoint with --finetune-from-model"
_ADAPTERS = "there are no adapters; all weights are fine-tuned with --finetune-from-model"
_QUANTISED = "there is no quantisation; leave it out"
_WIDTH = "the decoder has one width, --decoder-embed-dim"
_NORMS = "pre-norm layers, with a norm after the last, are --encoder-normalize-before and --decoder-normalize-before"
_ORDER = "the order of an epoch is a function of --seed and the epoch alone; leave it out"
_UNPADDED = "rows are as long as their longest sentence, and padding takes part in no arithmetic; leave it out"
_SHORTEN = "texts are not shortened; overlong pairs are skipped in training"
_SUBSETS = "list the splits in --valid-subset"
_RESUMING = "without it a run could not be resumed; leave it out"
_WRITING = "checkpoints are written at once; leave it out"
_ONE_FILE = "a checkpoint is one file, whatever the number of processes"
_MAPPED = "a data-bin is always memory-mapped (mmap)"
_DETOKENISED = "text is detokenised by the data-bin's SentencePiece model; other text is scored as tokens"
_COMMAND_LINE = "options are given on the command line"

OF_OTHER_TASKS = {"num_workers": _LOADER}
"""fairseq's options that here belong to pictures alone, and what to do instead where text is learned."""

UNSUPPORTED = {
    **hints(_RANKS, PROCESSES),
    "--ddp-backend": f"{_RANKS}; for fully_sharded add --shard-params",
    **hints(_SHARDED, "zero-sharding not-fsdp-flatten-parameters no-reshard-after-forward fp32-reduce-scatter"),
    **hints(_SHARDED, "min-params-to-wrap"),
    **hints(_ONE_FILE, "use-sharded-state load-checkpoint-on-all-dp-ranks checkpoint-shard-count"),
    **hints(_RANKS, "use-bmuf block-lr block-momentum global-sync-iter warmup-iterations use-nbm average-sync"),
    "--device-id": "choose the GPU with CUDA_VISIBLE_DEVICES",
    **hints(_HALF, f"fp16 fp16-adam-stats {HALF_PRECISION}"),
    "--memory-efficient-bf16": "--bf16 keeps float32 weights; there is no bfloat16 copy to save",
    "--tpu": "it runs on CPUs and GPUs",
    **hints(_MEMORY, f"checkpoint-activations offload-activations {MEMORY}"),
    **hints(_LOADER, LOADING.replace("num-workers ", "")),
    **hints(_MAPPED, "dataset-impl use-plasma-view plasma-path raw-text lazy-load"),
    **hints(_LOGS, SERVICES),
    **hints(UNUSED, f"{SWITCHES} seed-provided debug-param-names"),
    "--use-plasma-view": _MAPPED,
    "--plasma-path": _MAPPED,
    "--user-dir": _NO_PLUGINS,
    **hints(_COMMAND_LINE, "config-dir config-name"),
    "--profile": "use torch.profiler around seqba.training in a script of your own",
    # The text.
    **hints(_PIECES, f"sentencepiece-model {SUBWORD_TOOLS}"),
    **hints(_UNPADDED, "num-batch-buckets required-seq-len-multiple pad-to-fixed-length pad-to-fixed-bsz"),
    **hints(
        "it has no effect on the result here: padding takes part in no arithmetic; leave it out",
        "left-pad-source left-pad-target",
    ),
    **hints(_TARGETS, "output-dictionary-size self-target future-target past-target"),
    **hints(_SHORTEN, "shorten-method shorten-data-split-list truncate-source"),
    "--load-alignments": "alignments are not used",
    "--upsample-primary": "repeat the text when preprocessing it",
    "--train-set-name": "its name is --train-subset",
    **hints(_ORDER, "curriculum grouped-shuffling update-epoch-batch-itr update-ordered-indices-seed"),
    "--batch-size-cap": "use --max-tokens",
    "--skip-remainder-batch": "the last update of an epoch takes what is left",
    # The model.
    **hints(_LAYERDROP, "encoder-layerdrop decoder-layerdrop encoder-layers-to-keep decoder-layers-to-keep"),
    "--no-token-positional-embeddings": "positions are always added",
    **hints(_NORMS, "no-decoder-final-norm decoder-final-norm"),
    **hints(_ADAPTIVE_INPUT, "adaptive-input adaptive-input-factor adaptive-input-cutoff tie-adaptive-weights"),
    **hints(_ADAPTIVE_INPUT, "tie-adaptive-proj no-tie-adaptive-proj"),
    **hints(_ADAPTIVE_LOSS, "adaptive-softmax-cutoff adaptive-softmax-dropout adaptive-softmax-factor"),
    **hints(_CHARACTERS, "char-inputs character-embeddings character-filters character-embedding-dim"),
    **hints(_CHARACTERS, "char-embedder-highway-layers use-factorized-embedding encoder-factorized-embed-dim"),
    **hints(_CHARACTERS, "decoder-factorized-embed-dim merge-src-tgt-embed"),
    **hints(_WIDTH, "decoder-input-dim decoder-output-dim decoder-out-embed-dim"),
    **hints(_EMBEDDINGS, "encoder-embed-path decoder-embed-path encoder-freeze-embed decoder-freeze-embed"),
    **hints(_ADAPTERS, "encoder-add-adapters decoder-add-adapters finetune-adapter"),
    **hints("the decoder always attends to the source", "no-cross-attention cross-self-attention"),
    **hints(_QUANTISED, "quant-noise-pq quant-noise-pq-block-size quant-noise-scalar quantization-config-path"),
    **hints("layers are plain ones; leave it out", "base-layers base-sublayers base-shuffle export"),
    # The criterion, the optimizer and the schedule.
    "--report-accuracy": "seqba-generate and seqba-score measure translations",
    "--ignore-prefix-size": "the whole target is learned",
    "--use-old-adam": "Adam is torch's fused one",
    "--clip-norm-type": "gradients are clipped by their l2 norm; leave it out",
    **hints(_SCHEDULES, "force-anneal lr-period-updates t-mult total-num-update end-learning-rate power max-lr"),
    **hints(_SCHEDULES, "shrink-min lr-threshold phase-ratio warmup-steps hold-steps decay-steps init-lr-scale"),
    **hints(_SCHEDULES, "final-lr-scale"),
    "--lr-patience": f"{_SCHEDULES}; to stop early use --patience",
    "--min-lr": "its name is --stop-min-lr",
    # Validation and checkpoints.
    **hints(_DETOKENISED, "eval-bleu-detok eval-bleu-detok-args"),
    **hints("validation measures sacreBLEU with --eval-bleu", f"scoring {SCORERS}"),
    **hints(_SUBSETS, "combine-valid-subsets"),
    "--ignore-unused-valid-subsets": "only --valid-subset is read; leave it out",
    "--disable-validation": "validate rarely with --validate-interval instead",
    "--validate-after-updates": "validate from the start; leave it out",
    "--fixed-validation-seed": "validation draws nothing at random; leave it out",
    "--max-valid-steps": "give --valid-subset a smaller split",
    "--continue-once": "the same command goes on from checkpoint_last.pt by itself; begin with --restore-file",
    "--optimizer-overrides": "going on takes the options of the command line; leave it out",
    "--no-last-checkpoints": "checkpoint_last.pt is what a run resumes from; --no-save writes nothing",
    **hints(_RESUMING, "no-save-optimizer-state no-save-optimizer-state-on-training-finished"),
    **hints(_WRITING, "save-async write-checkpoints-asynchronously"),
    "--checkpoint-suffix": "use another --save-dir",
    "--keep-interval-updates-pattern": "use --keep-interval-updates",
    **hints(_AVERAGES, "store-ema ema-decay ema-start-update ema-seed-model ema-update-freq ema-fp32"),
    # Of generation, which fairseq's dataset options bring along.
    **hints("seqba-generate and seqba-eval-lm read a split; leave it out", "gen-subset num-shards shard-id"),
    # Of the released awd-lstm code; its dropouts, alpha, beta, bptt and nonmono keep their names.
    "--emsize": "its name is --decoder-embed-dim",
    "--nhid": "its name is --decoder-hidden-size",
    "--nlayers": "its name is --decoder-layers",
    "--clip": "its name is --clip-norm",
    "--wdecay": "its name is --weight-decay",
    "--batch_size": "its name is --batch-size",
    "--epochs": "its name is --max-epoch",
    "--tied": "the embedding is always tied to the output",
}
