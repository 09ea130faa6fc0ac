"""Names of fairseq's options that several of its commands share, by subject.

fairseq's commands take the options of training, data and processes all alike; each command here says of those that it
doesn't have what to do instead.
"""

from __future__ import annotations

PROCESSES = (
    "distributed-world-size distributed-num-procs distributed-rank distributed-backend distributed-init-method "
    "distributed-port distributed-no-spawn local_rank local-rank ddp-backend ddp-comm-hook bucket-cap-mb "
    "fix-batches-to-gpus find-unused-parameters gradient-as-bucket-view fast-stat-sync heartbeat-timeout "
    "broadcast-buffers slowmo-momentum slowmo-algorithm slowmo-base-algorithm localsgd-frequency nprocs-per-node "
    "distributed-wrapper pipeline-model-parallel pipeline-balance pipeline-devices pipeline-chunks "
    "pipeline-encoder-balance pipeline-encoder-devices pipeline-decoder-balance pipeline-decoder-devices "
    "pipeline-checkpoint zero-sharding no-reshard-after-forward fp32-reduce-scatter use-sharded-state "
    "not-fsdp-flatten-parameters model-parallel-size all-gather-list-size"
)
HALF_PRECISION = (
    "memory-efficient-fp16 fp16-no-flatten-grads fp16-init-scale fp16-scale-window fp16-scale-tolerance "
    "on-cpu-convert-precision min-loss-scale threshold-loss-scale amp amp-batch-retries amp-init-scale "
    "amp-scale-window memory-efficient-bf16"
)
MEMORY = "empty-cache-freq cpu-offload"
LOADING = "num-workers num-workers-valid data-buffer-size"
SERVICES = "wandb-project azureml-logging aim-repo aim-run-hash"
SWITCHES = "suppress-crashes use-plasma-view plasma-path reset-logging no-seed-provided simul-type"
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
SUBWORD_TOOLS = (
    "tokenizer bpe sentencepiece-enable-sampling sentencepiece-alpha sentencepiece-vocab "
    "bpe-codes bpe-separator bpe-dropout gpt2-encoder-json gpt2-vocab-bpe bpe-cased bpe-vocab-file bpe-merges "
    "bpe-add-prefix-space moses-source-lang moses-target-lang moses-no-dash-splits moses-no-escape"
)
SCORERS = "sacrebleu-tokenizer sacrebleu-lowercase sacrebleu-char-level wer-tokenizer wer-remove-punct wer-lowercase"


def hints(text: str, names: str) -> dict[str, str]:
    """Table from `--name` to the hint, for names that spaces separate."""
    return {f"--{name}": text for name in names.split()}


UNUSED = "nothing here depends on it; leave it out"
INFERENCE = {
    **hints("torchrun's processes translate together without options", PROCESSES),
    **hints("half precision is --bf16, or --fp16 on a GPU, and needs no loss scaling; leave it out", HALF_PRECISION),
    **hints("smaller batches (--max-tokens) take less memory; leave it out", MEMORY),
    **hints(UNUSED, SWITCHES),
    **hints("a checkpoint is one file; leave it out", PARTED_FILES),
    **hints("it belongs to seqba-train; leave it out", OF_TRAINING),
    **hints("there is no log but what is printed; leave it out", f"{SERVICES} log-file"),
    **hints("rows are as long as their longest sentence; leave it out", "num-batch-buckets required-seq-len-multiple"),
    "--tpu": "it runs on CPUs and GPUs; leave it out",
    "--device-id": "choose the GPU with CUDA_VISIBLE_DEVICES",
    "--profile": "use torch.profiler in a script of your own; leave it out",
}
"""What the commands that read checkpoints say of options that fairseq's take."""
