"""Perplexity of running text under a recurrent model, its hidden state carried from the first word to the last."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from seqba.data.stream import StreamBatch, Streams, TokenSource, Windows, fixed_windows
from seqba.evaluation.perplexity import Scored, ScoredRow
from seqba.models.awd_lstm import AWDLSTM
from seqba.nn.kernels.scores import target_log_probabilities


@dataclass(frozen=True)
class StreamScoring:
    """Settings of reading a text as streams.

    Attributes:
        batch_size: streams that it is cut into; 1 carries the state through the whole text, as the released code tests.
        bptt: tokens of a window; it changes the speed, not the scores.
    """

    batch_size: int = 1
    bptt: int = 70


def score_streams(model: AWDLSTM, corpus: TokenSource, options: StreamScoring) -> Scored:
    """Scores a text as streams, each token given all those before it in its stream.

    A stream's first token is read, not predicted, and so is what is left over when the text doesn't divide.

    Args:
        model: in evaluation mode.
        corpus: the text.
        options: how it is read.

    Returns:
        The windows in their order; row w·B + r is window w of stream r.

    Raises:
        UserError: for a text too short for so many streams.

    Source: as in AWD-LSTM's released code (`evaluate`).
    """
    streams = Streams(corpus, options.batch_size, name="the split", remedy="lower --batch-size")
    return _score_windows(model, Windows(streams, fixed_windows(streams.length, options.bptt)))


def _score_windows(model: AWDLSTM, windows: Windows) -> Scored:
    state: tuple[torch.Tensor, ...] | None = None
    for number in range(len(windows)):
        rows, state = _score_window(model, windows[number], state, number)
        yield rows


@torch.inference_mode()
def _score_window(
    model: AWDLSTM, batch: StreamBatch, state: tuple[torch.Tensor, ...] | None, number: int
) -> tuple[list[ScoredRow], tuple[torch.Tensor, ...]]:
    device = model.output_weight.device
    window = model.window(batch.tokens.to(device), state)
    scores = target_log_probabilities(
        window.hidden.flatten(0, 1), model.output_weight, batch.target.flatten().to(device), bias=model.output_bias
    )
    parts = scores.view(batch.target.shape).double().cpu().numpy()
    first = number * len(parts)
    rows = [ScoredRow(first + row, batch.target[row].numpy(), parts[row]) for row in range(len(parts))]
    return rows, window.state
