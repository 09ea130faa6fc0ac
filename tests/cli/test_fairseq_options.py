"""Every option that fairseq's commands take is known here, or refused with what to do instead."""

from __future__ import annotations

import pytest

from seqba.cli import eval_lm, fairseq_train, generate, interactive, preprocess, score, train
from seqba.cli.arguments import Parser
from seqba.cli.fairseq_options import WITHOUT_EFFECT
from seqba.options import flag_of

COMMON = """
no-progress-bar log-interval log-format log-file aim-repo aim-run-hash tensorboard-logdir wandb-project azureml-logging
seed cpu tpu bf16 memory-efficient-bf16 fp16 memory-efficient-fp16 fp16-no-flatten-grads fp16-init-scale
fp16-scale-window fp16-scale-tolerance on-cpu-convert-precision min-loss-scale threshold-loss-scale amp
amp-batch-retries amp-init-scale amp-scale-window user-dir empty-cache-freq all-gather-list-size model-parallel-size
quantization-config-path profile reset-logging suppress-crashes use-plasma-view plasma-path criterion tokenizer bpe
optimizer lr-scheduler scoring task simul-type
"""
DATASET = """
num-workers skip-invalid-size-inputs-valid-test max-tokens batch-size max-sentences required-batch-size-multiple
required-seq-len-multiple dataset-impl data-buffer-size train-subset valid-subset combine-valid-subsets
ignore-unused-valid-subsets validate-interval validate-interval-updates validate-after-updates fixed-validation-seed
disable-validation max-tokens-valid batch-size-valid max-sentences-valid max-valid-steps curriculum gen-subset
num-shards shard-id grouped-shuffling update-epoch-batch-itr update-ordered-indices-seed
"""
DISTRIBUTED = """
distributed-world-size distributed-num-procs distributed-rank distributed-backend distributed-init-method
distributed-port device-id distributed-no-spawn ddp-backend ddp-comm-hook bucket-cap-mb fix-batches-to-gpus
find-unused-parameters gradient-as-bucket-view fast-stat-sync heartbeat-timeout broadcast-buffers slowmo-momentum
slowmo-base-algorithm slowmo-algorithm localsgd-frequency nprocs-per-node pipeline-model-parallel pipeline-balance
pipeline-devices pipeline-chunks pipeline-encoder-balance pipeline-encoder-devices pipeline-decoder-balance
pipeline-decoder-devices pipeline-checkpoint zero-sharding no-reshard-after-forward fp32-reduce-scatter cpu-offload
use-sharded-state not-fsdp-flatten-parameters distributed-wrapper local_rank
"""
CHECKPOINT = """
save-dir restore-file continue-once finetune-from-model reset-dataloader reset-lr-scheduler reset-meters
reset-optimizer optimizer-overrides save-interval save-interval-updates keep-interval-updates
keep-interval-updates-pattern keep-last-epochs keep-best-checkpoints no-save no-epoch-checkpoints no-last-checkpoints
no-save-optimizer-state best-checkpoint-metric maximize-best-checkpoint-metric patience checkpoint-suffix
checkpoint-shard-count load-checkpoint-on-all-dp-ranks write-checkpoints-asynchronously store-ema ema-decay
ema-start-update ema-seed-model ema-update-freq ema-fp32
"""
OPTIMIZATION = """
max-epoch max-update stop-time-hours clip-norm clip-norm-type sentence-avg update-freq lr stop-min-lr min-lr use-bmuf
skip-remainder-batch debug-param-names block-lr block-momentum global-sync-iter warmup-iterations use-nbm average-sync
adam-betas adam-eps weight-decay use-old-adam fp16-adam-stats momentum warmup-updates warmup-init-lr force-anneal
lr-shrink max-lr t-mult lr-period-updates end-learning-rate power total-num-update lr-patience lr-threshold
label-smoothing report-accuracy ignore-prefix-size
"""
TRANSFORMER = """
arch activation-fn dropout attention-dropout activation-dropout relu-dropout encoder-embed-path encoder-embed-dim
encoder-ffn-embed-dim encoder-layers encoder-attention-heads encoder-normalize-before encoder-learned-pos
decoder-embed-path decoder-embed-dim decoder-ffn-embed-dim decoder-layers decoder-attention-heads
decoder-normalize-before decoder-learned-pos decoder-input-dim decoder-output-dim share-decoder-input-output-embed
share-all-embeddings merge-src-tgt-embed no-token-positional-embeddings adaptive-input adaptive-input-factor
adaptive-input-cutoff adaptive-softmax-cutoff adaptive-softmax-dropout adaptive-softmax-factor tie-adaptive-weights
tie-adaptive-proj layernorm-embedding no-scale-embedding checkpoint-activations offload-activations no-cross-attention
cross-self-attention encoder-layerdrop decoder-layerdrop encoder-layers-to-keep decoder-layers-to-keep quant-noise-pq
quant-noise-pq-block-size quant-noise-scalar min-params-to-wrap char-inputs base-layers base-sublayers base-shuffle
export no-decoder-final-norm character-embeddings character-filters character-embedding-dim
char-embedder-highway-layers max-source-positions max-target-positions
"""
TRANSLATION = """
source-lang target-lang load-alignments left-pad-source left-pad-target max-source-positions max-target-positions
upsample-primary truncate-source num-batch-buckets eval-bleu eval-bleu-args eval-bleu-detok eval-bleu-detok-args
eval-tokenized-bleu eval-bleu-remove-bpe eval-bleu-print-samples
"""
LANGUAGE_MODELING = """
sample-break-mode tokens-per-sample output-dictionary-size self-target future-target past-target add-bos-token
max-target-positions shorten-method shorten-data-split-list pad-to-fixed-length pad-to-fixed-bsz
"""
GENERATION = """
path post-process remove-bpe quiet model-overrides results-path beam nbest max-len-a max-len-b min-len match-source-len
unnormalized no-early-stop no-beamable-mm lenpen unkpen replace-unk sacrebleu score-reference prefix-size
no-repeat-ngram-size sampling sampling-topk sampling-topp constraints temperature diverse-beam-groups
diverse-beam-strength diversity-rate print-alignment print-step lm-path lm-weight iter-decode-eos-penalty
iter-decode-max-iter iter-decode-force-max-iter iter-decode-with-beam iter-decode-with-external-reranker
retain-iter-history retain-dropout retain-dropout-modules decoding-format no-seed-provided eos-token
"""
SUBWORDS = """
sentencepiece-model sentencepiece-enable-sampling sentencepiece-alpha bpe-codes bpe-separator gpt2-encoder-json
gpt2-vocab-bpe moses-no-dash-splits moses-no-escape sacrebleu-tokenizer sacrebleu-lowercase sacrebleu-char-level
"""
EVAL_LM = "path quiet model-overrides results-path remove-bpe output-word-probs output-word-stats context-window"
PREPROCESS = """
source-lang target-lang trainpref validpref testpref align-suffix destdir thresholdtgt thresholdsrc tgtdict srcdict
nwordstgt nwordssrc alignfile dataset-impl joined-dictionary only-source padding-factor workers dict-only
"""
INFERENCE = COMMON + DATASET + DISTRIBUTED + CHECKPOINT + SUBWORDS

PARSERS = {
    "train": (
        train.build_parser(),
        COMMON
        + DATASET
        + DISTRIBUTED
        + CHECKPOINT
        + OPTIMIZATION
        + TRANSFORMER
        + TRANSLATION
        + LANGUAGE_MODELING
        + SUBWORDS,
    ),
    "generate": (generate.build_parser(), INFERENCE + GENERATION + TRANSLATION),
    "interactive": (interactive.build_parser(), INFERENCE + GENERATION + TRANSLATION + "buffer-size input"),
    "eval-lm": (eval_lm.build_parser(), INFERENCE + LANGUAGE_MODELING + EVAL_LM + " softmax-batch"),
    "preprocess": (preprocess.build_parser(), COMMON + SUBWORDS + PREPROCESS),
    "score": (score.build_parser(), "sys ref order ignore-case sacrebleu sentence-bleu"),
}


def known_to(parser: Parser) -> set[str]:
    return {flag for action in parser._actions for flag in action.option_strings}


@pytest.mark.parametrize("command", PARSERS)
def test_every_option_of_fairseqs_command_is_known_or_refused_with_a_way_on(command: str) -> None:
    parser, names = PARSERS[command]
    flags = {f"--{name}" for name in names.split()}
    assert not flags - known_to(parser) - set(parser.unsupported)
    assert all(len(text.split()) >= 2 for text in parser.unsupported.values())


@pytest.mark.parametrize("command", PARSERS)
def test_no_option_is_both_known_and_refused(command: str) -> None:
    parser, _ = PARSERS[command]
    assert not known_to(parser) & set(parser.unsupported)


@pytest.mark.parametrize("command", PARSERS)
def test_a_value_that_is_refused_with_a_way_on_is_none_of_ours(command: str) -> None:
    parser, _ = PARSERS[command]
    choices = {flag: action.choices or () for action in parser._actions for flag in action.option_strings}
    for flag, values in parser.unsupported_values.items():
        assert not set(values) & set(choices[flag])
        assert all(len(text.split()) >= 2 for text in values.values())


def test_options_of_pictures_change_nothing_where_text_is_learned() -> None:
    assert {flag_of(name) for name in fairseq_train.OF_PICTURES} <= set(WITHOUT_EFFECT)
