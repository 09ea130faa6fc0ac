"""Options of fairseq-train and of the released awd-lstm that seqba-train doesn't have, and what to do instead."""

from __future__ import annotations

from seqba.cli.arguments import Accepted
from seqba.cli.fairseq_options import (
    HALF_PRECISION,
    MEMORY,
    OTHER_SUBWORD_TOOLS,
    PADDED,
    PROCESSES,
    SCORERS,
    SERVICES,
    TOKENISERS,
    UNUSED,
    WITHOUT_EFFECT,
    hints,
    taken,
)

_RANKS = (
    "start the processes with torchrun; an update is --update-freq micro-batches for the whole job, whatever the "
    "hardware"
)
_SHARDED = "weights and optimizer state in parts on the processes are --shard-params; start them with torchrun"
_HALF = "half precision is --fp16 or --bf16 here, whose weights stay float32; leave it out"
_NO_PLUGINS = "models and tasks are imported from Python; use seqba.merged_gradient in a loop of your own"
_MEMORY = "--plan auto fits an update into memory by itself; leave it out"
_TARGETS = "a language model predicts the next token of its own vocabulary; leave it out"
_SCHEDULES = "the schedules are fixed, step, inverse_sqrt, cosine, polynomial_decay and vaswani"
_LAYERDROP = "dropping whole layers would be shared by all copies of a batch and is not offered"
_PIECES = (
    "a data-bin's text is in subwords already, so leave it out: seqba-preprocess --sentencepiece makes them, and "
    "--eval-bleu-remove-bpe joins them for BLEU in validation"
)
_LOGS = "logs are JSON lines (--log-file), TensorBoard events (--tensorboard-logdir), or go to --report-to"
_ADAPTIVE_INPUT = "the vocabulary is small enough for one table; leave it out"
_ADAPTIVE_LOSS = "the loss is exact and never holds all logits; leave it out"
_CHARACTERS = "embeddings are of whole tokens; leave it out"
_EMBEDDINGS = "pretrained embeddings are not read; start from a checkpoint with --finetune-from-model"
_ADAPTERS = "there are no adapters; all weights are fine-tuned with --finetune-from-model"
_QUANTISED = "there is no quantisation; leave it out"
_WIDTH = "the decoder has one width, --decoder-embed-dim"
_NORMS = "pre-norm layers, with a norm after the last, are --encoder-normalize-before and --decoder-normalize-before"
_ORDER = "the order of an epoch is a function of --seed and the epoch alone; leave it out"
_SHORTEN = "texts are not shortened; overlong pairs are skipped in training"
_SUBSETS = "list the splits in --valid-subset"
_RESUMING = "without it a run could not be resumed; leave it out"
_ONE_FILE = "a checkpoint is one file, whatever the number of processes"
_MAPPED = "a data-bin is always memory-mapped (mmap)"
_IN_SUBWORDS = "the text of a data-bin is in tokens and subwords already"
_ONE_CONFIG = "options in a file are --config FILE, under the flags' names (docs/config.md)"

ACCEPTED: dict[str, Accepted] = {
    **{flag: option for flag, option in WITHOUT_EFFECT.items() if flag != "--num-workers"},  # pictures have that one
    **taken(_IN_SUBWORDS, TOKENISERS.replace("moses-no-dash-splits moses-no-escape", ""), str),
    **taken(_IN_SUBWORDS, "moses-no-dash-splits moses-no-escape"),
    **taken(PADDED, "pad-to-fixed-length pad-to-fixed-bsz"),
    **taken("validation draws nothing at random", "fixed-validation-seed", int),
    **taken("only --valid-subset is read", "ignore-unused-valid-subsets"),
    **taken("every process reads a checkpoint, and one writes it at once", "load-checkpoint-on-all-dp-ranks"),
    **taken(
        "every process reads a checkpoint, and one writes it at once", "save-async write-checkpoints-asynchronously"
    ),
    **taken("weights and their averages are float32", "ema-fp32"),
    **taken(UNUSED, "seed-provided debug-param-names"),
}
"""fairseq's options that seqba-train takes and that change nothing."""

OF_PICTURES = ("num_workers",)
"""Options of pictures that fairseq has for text, where they change nothing here."""

_ADAPTIVE = "it has an adaptive input and softmax, and vocabularies are in one table here"
_CONVOLUTIONS = "it is a convolutional network; take a transformer (transformer_iwslt_de_en, transformer_wmt_en_de)"
_RECURRENT = "it is a recurrent network; take a transformer, or awd_lstm for a language model"
_SEVERAL_LANGUAGES = "a run has one pair of languages; take translation, with a token for the language in the text"
_WHOLE_LOSS = "it belongs to an adaptive softmax; take cross_entropy, which is exact and never holds all logits"
_DENOISED = "text is translated, or its next token predicted; take translation or language_modeling"

UNSUPPORTED_VALUES = {
    "--arch": {
        **dict.fromkeys(
            ("transformer_lm_wiki103", "transformer_lm_baevski_wiki103"),
            f"{_ADAPTIVE}; take "
            "transformer_lm_big with --decoder-layers 16 --decoder-attention-heads 8 --dropout 0.3, and fewer words",
        ),
        **dict.fromkeys(("transformer_lm_gbw", "transformer_lm_baevski_gbw"), f"{_ADAPTIVE}; take transformer_lm_big"),
        **dict.fromkeys(
            ("fconv", "fconv_iwslt_de_en", "fconv_wmt_en_ro", "fconv_wmt_en_de", "fconv_wmt_en_fr"), _CONVOLUTIONS
        ),
        **dict.fromkeys(("lightconv_iwslt_de_en", "lightconv_wmt_en_de_big", "lightconv_wmt_en_fr_big"), _CONVOLUTIONS),
        **dict.fromkeys(("fconv_lm", "fconv_lm_dauphin_wikitext103", "fconv_lm_dauphin_gbw"), _CONVOLUTIONS),
        **dict.fromkeys(("lstm", "lstm_wiseman_iwslt_de_en", "lstm_luong_wmt_en_de", "lstm_lm"), _RECURRENT),
        **dict.fromkeys(("multilingual_transformer", "multilingual_transformer_iwslt_de_en"), _SEVERAL_LANGUAGES),
    },
    "--task": {
        **dict.fromkeys(("multilingual_translation", "translation_multi_simple_epoch"), _SEVERAL_LANGUAGES),
        **dict.fromkeys(("masked_lm", "denoising", "multilingual_denoising"), _DENOISED),
        "rdrop_translation": "take translation, with --criterion label_smoothed_cross_entropy_with_rdrop",
    },
    "--criterion": {
        "adaptive_loss": _WHOLE_LOSS,
        "reg_label_smoothed_cross_entropy": "its name is label_smoothed_cross_entropy_with_rdrop, and --reg-alpha is "
        "--rdrop-alpha",
    },
    "--optimizer": {
        "nag": "take adam, or sgd with --momentum, which looks no step ahead",
        "adafactor": "take adam",
        "adamax": "take adam",
        "lamb": "take adam",
    },
    "--lr-scheduler": {
        "reduce_lr_on_plateau": "take step, whose --lr-drops are known beforehand, or --patience to stop",
        "triangular": "take cosine",
        "tri_stage": "take polynomial_decay",
    },
}
"""fairseq's values of options that have others here, and what to do instead."""

UNSUPPORTED = {
    **hints(_RANKS, PROCESSES),
    **hints(_SHARDED, "zero-sharding not-fsdp-flatten-parameters no-reshard-after-forward fp32-reduce-scatter"),
    **hints(_SHARDED, "min-params-to-wrap"),
    **hints(_ONE_FILE, "use-sharded-state checkpoint-shard-count"),
    **hints(_RANKS, "use-bmuf block-lr block-momentum global-sync-iter warmup-iterations use-nbm average-sync"),
    "--device-id": "choose the GPU with CUDA_VISIBLE_DEVICES",
    **hints(_HALF, f"fp16-adam-stats {HALF_PRECISION}"),
    "--tpu": "it runs on CPUs and GPUs",
    "--offload-activations": "--checkpoint-activations keeps one input of each layer, where it is; leave it out",
    **hints(_MEMORY, MEMORY),
    **hints(_MAPPED, "raw-text lazy-load"),
    **hints(_LOGS, SERVICES.replace("wandb-project ", "")),
    "--user-dir": _NO_PLUGINS,
    **hints(_ONE_CONFIG, "config-dir config-name"),
    "--profile": "use torch.profiler around seqba.training in a script of your own",
    # The text.
    **hints(_PIECES, OTHER_SUBWORD_TOOLS),
    **hints(
        "--subword-sampling 0.1 cuts words anew in each copy, by the merges of the data-bin",
        "sentencepiece-enable-sampling sentencepiece-alpha bpe-dropout",
    ),
    **hints(_TARGETS, "output-dictionary-size self-target future-target past-target"),
    **hints(_SHORTEN, "shorten-method shorten-data-split-list truncate-source"),
    "--load-alignments": "alignments are not used",
    "--upsample-primary": "its name is --weights: N,1 for train and train1",
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
    "--max-lr": "cosine falls from --lr to --min-lr here: write --max-lr as --lr, and --lr as --min-lr",
    **hints(
        _SCHEDULES, "force-anneal shrink-min lr-threshold phase-ratio warmup-steps hold-steps decay-steps init-lr-scale"
    ),
    **hints(_SCHEDULES, "final-lr-scale"),
    "--lr-patience": f"{_SCHEDULES}; to stop early use --patience",
    # Validation and checkpoints.
    **hints("validation measures sacreBLEU with --eval-bleu", f"scoring {SCORERS}"),
    **hints(_SUBSETS, "combine-valid-subsets"),
    "--validate-after-updates": "validate from the start; leave it out",
    "--max-valid-steps": "give --valid-subset a smaller split",
    "--continue-once": "the same command goes on from checkpoint_last.pt by itself; begin with --restore-file",
    "--optimizer-overrides": "going on takes the options of the command line; leave it out",
    "--no-last-checkpoints": "checkpoint_last.pt is what a run resumes from; --no-save writes nothing",
    **hints(_RESUMING, "no-save-optimizer-state no-save-optimizer-state-on-training-finished"),
    "--checkpoint-suffix": "use another --save-dir",
    "--keep-interval-updates-pattern": "use --keep-interval-updates",
    "--ema-seed-model": "the average begins with the weights of the run, or of --finetune-from-model; leave it out",
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
