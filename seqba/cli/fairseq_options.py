"""Names of fairseq's options that several of its commands share, by subject.

fairseq's commands take the options of training, data and processes all alike; each command here says of those that it
doesn't have what to do instead.
"""

from __future__ import annotations

from collections.abc import Sequence

from seqba.cli.arguments import Accepted

PROCESSES = (
    "distributed-world-size distributed-num-procs distributed-rank distributed-backend distributed-init-method "
    "distributed-port local_rank local-rank ddp-comm-hook slowmo-momentum slowmo-algorithm slowmo-base-algorithm "
    "localsgd-frequency distributed-wrapper pipeline-model-parallel pipeline-balance pipeline-devices pipeline-chunks "
    "pipeline-encoder-balance pipeline-encoder-devices pipeline-decoder-balance pipeline-decoder-devices "
    "pipeline-checkpoint zero-sharding no-reshard-after-forward fp32-reduce-scatter use-sharded-state "
    "not-fsdp-flatten-parameters model-parallel-size"
)
HALF_PRECISION = (
    "memory-efficient-fp16 fp16-scale-tolerance on-cpu-convert-precision min-loss-scale threshold-loss-scale "
    "amp-batch-retries memory-efficient-bf16"
)
LOSS_SCALING = "amp fp16-init-scale fp16-scale-window amp-init-scale amp-scale-window"
MEMORY = "cpu-offload"
SERVICES = "wandb-project azureml-logging aim-repo aim-run-hash"
OF_TRAINING = (
    "arch criterion optimizer lr-scheduler train-subset valid-subset combine-valid-subsets ignore-unused-valid-subsets "
    "validate-interval validate-interval-updates validate-after-updates fixed-validation-seed disable-validation "
    "max-tokens-valid batch-size-valid max-sentences-valid max-valid-steps curriculum grouped-shuffling "
    "update-epoch-batch-itr update-ordered-indices-seed save-dir restore-file continue-once finetune-from-model "
    "reset-dataloader reset-lr-scheduler reset-meters reset-optimizer optimizer-overrides save-interval "
    "save-interval-updates keep-interval-updates keep-interval-updates-pattern keep-last-epochs keep-best-checkpoints "
    "no-save no-epoch-checkpoints no-last-checkpoints no-save-optimizer-state best-checkpoint-metric "
    "maximize-best-checkpoint-metric patience load-checkpoint-on-all-dp-ranks write-checkpoints-asynchronously "
    "store-ema ema-decay ema-start-update ema-seed-model ema-update-freq ema-fp32 tensorboard-logdir "
    "quantization-config-path label-smoothing dropout max-epoch max-update lr clip-norm update-freq sentence-avg"
)
PARTED_FILES = "checkpoint-suffix checkpoint-shard-count"
TOKENISERS = (
    "tokenizer bpe sentencepiece-model bpe-codes bpe-separator moses-source-lang moses-target-lang "
    "moses-no-dash-splits moses-no-escape"
)
OTHER_SUBWORD_TOOLS = (
    "sentencepiece-enable-sampling sentencepiece-alpha sentencepiece-vocab bpe-dropout gpt2-encoder-json "
    "gpt2-vocab-bpe bpe-cased bpe-vocab-file bpe-merges bpe-add-prefix-space"
)
SCORERS = "sacrebleu-tokenizer sacrebleu-lowercase sacrebleu-char-level wer-tokenizer wer-remove-punct wer-lowercase"


def hints(text: str, names: str) -> dict[str, str]:
    """Table from `--name` to the hint, for names that spaces separate."""
    return {f"--{name}": text for name in names.split()}


def taken(reason: str, names: str, kind: type | None = None) -> dict[str, Accepted]:
    """Table from `--name` to an option that changes nothing, for names that spaces separate; no kind for switches."""
    return {f"--{name}": Accepted(reason, kind) for name in names.split()}


_GRADIENTS = "the processes exchange whole gradients in one message, whatever it says"
_LOADER = "batches are cut from a memory map in the main process"
PADDED = "padding takes part in no result"
MAPPED = "a data-bin is always memory-mapped (mmap)"
UNUSED = "nothing here depends on it"

WITHOUT_EFFECT = {
    **taken(_GRADIENTS, "ddp-backend", str),
    **taken(_GRADIENTS, "bucket-cap-mb heartbeat-timeout nprocs-per-node all-gather-list-size", int),
    **taken(_GRADIENTS, "fix-batches-to-gpus find-unused-parameters gradient-as-bucket-view fast-stat-sync"),
    **taken(_GRADIENTS, "broadcast-buffers distributed-no-spawn"),
    **taken(_LOADER, "num-workers num-workers-valid data-buffer-size", int),
    **taken(PADDED, "left-pad-source left-pad-target", bool),
    **taken(PADDED, "num-batch-buckets required-seq-len-multiple", int),
    **taken("16-bit gradients are those of float32 weights", "fp16-no-flatten-grads"),
    **taken("memory is given back where it is short", "empty-cache-freq", int),
    **taken(UNUSED, "suppress-crashes use-plasma-view reset-logging no-seed-provided"),
    **taken(UNUSED, "plasma-path simul-type", str),
    "--dataset-impl": Accepted(MAPPED, str, ("mmap",)),
}
"""Options of several of fairseq's commands that change no result there or here."""

INFERENCE = {
    **hints("torchrun's processes translate together without options", PROCESSES),
    **hints("half precision is --bf16 or --fp16, and needs no loss scaling; leave it out", HALF_PRECISION),
    **hints("half precision is --bf16 or --fp16, and needs no loss scaling; leave it out", LOSS_SCALING),
    **hints("smaller batches (--max-tokens) take less memory; leave it out", MEMORY),
    **hints("a checkpoint is one file; leave it out", PARTED_FILES),
    **hints("it belongs to seqba-train; leave it out", OF_TRAINING),
    **hints("there is no log but what is printed; leave it out", f"{SERVICES} log-file"),
    "--tpu": "it runs on CPUs and GPUs; leave it out",
    "--device-id": "choose the GPU with CUDA_VISIBLE_DEVICES",
    "--profile": "use torch.profiler in a script of your own; leave it out",
}
"""What the commands that read checkpoints say of options that fairseq's take."""


def without_effect_line(flags: Sequence[str]) -> str:
    """Line of the log that names the options which were given and change nothing."""
    return f"accepted and without effect here: {', '.join(flags)} (docs/fairseq.md says why)"
