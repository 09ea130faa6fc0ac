"""Does the loss fall as the released code's does: the plain reading of it, trained on the windows that seqba trains on.

    python recipes/bench/awd_lstm_curve.py --data DATA-BIN [--log RUN.jsonl] [--updates 686] [--interval 50]

Trains `plain_awd_lstm.py` at the paper's size on the corpus that recipes/ptb.sh made: the same windows in the same
order, SGD at 30 × length / 70, clipping at 0.25, weight decay 1.2e-6, every noise of the released command drawn by
torch. Every `--interval` updates it prints the perplexity of training in them (all noise on), and beside it, where
`--log` names the log of a run of `recipes/ptb.sh --arm baseline -- --log-interval 50`, that of the same updates there.

Expectation: the two columns go down together, apart by the noise of a different seed; 25 to 60 minutes of one core.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from awd_lstm import SIZES, Size
from harness import Row, parse_options, report
from plain_awd_lstm import PlainAWDLSTM, State, plain_loss
from torch import nn
from tqdm import tqdm

from seqba.cli.command import run as run_command
from seqba.data.stream import StreamBatch
from seqba.runtime.memory import keep_freed_memory
from seqba.tasks.options import BatchOptions, CriterionOptions
from seqba.tasks.text_options import StreamOptions
from seqba.tasks.token_streams import StreamLanguageModeling

SEED, STREAMS, BPTT = 141, 20, 70


def windows(task: StreamLanguageModeling, updates: int) -> Iterator[StreamBatch]:
    """The windows of so many updates, epoch after epoch."""
    epoch = made = 0
    while made < updates:
        epoch += 1
        for batch in task.epoch(epoch, 1):
            yield batch
            made += 1
            if made == updates:
                return


def train(task: StreamLanguageModeling, size: Size, updates: int, interval: int) -> list[float]:
    """Perplexities of training, each over `interval` updates."""
    torch.manual_seed(SEED)
    model = PlainAWDLSTM(size.vocabulary, size.layers, size.embed_dim, size.hidden_size)
    optimizer = torch.optim.SGD(model.parameters(), lr=30.0, weight_decay=1.2e-6)
    state: State | None = None
    nats, words, perplexities = 0.0, 0, []
    bar = tqdm(windows(task, updates), total=updates, unit="update", disable=None)
    for number, batch in enumerate(bar, start=1):
        loss, nll, state = plain_loss(model, batch.tokens, batch.target, None if batch.is_first else state)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 0.25)
        optimizer.param_groups[0]["lr"] = 30.0 * task.learning_rate_factor(batch)
        optimizer.step()
        nats, words = nats + float(nll) * batch.target.numel(), words + batch.target.numel()
        if number % interval == 0:
            perplexities.append(math.exp(nats / words))
            tqdm.write(f"update {number}: perplexity {perplexities[-1]:.1f}", file=sys.stderr)
            nats, words = 0.0, 0
    return perplexities


def logged(path: Path) -> dict[int, float]:
    """Update → perplexity of training, from a JSON log of seqba-train; a line that comes again counts as first seen."""
    found: dict[int, float] = {}
    for line in path.read_text().splitlines():
        entry = json.loads(line)
        if entry["event"] == "train":
            found.setdefault(entry["update"], entry["ppl"])
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    """Trains, and prints the curve."""
    options = parse_options(__doc__, arguments, data="", log="", size="paper", updates=686, interval=50)
    torch.set_num_threads(options.threads)
    keep_freed_memory()
    if not options.data:
        print("error: --data is needed: the data-bin that recipes/ptb.sh made (runs/ptb/data-bin)", file=sys.stderr)
        return 2
    task = StreamLanguageModeling(
        options.data, StreamOptions(bptt=BPTT), BatchOptions(batch_size=STREAMS), CriterionOptions(), seed=SEED
    )
    if options.quick:
        options.size, options.updates, options.interval = "tiny", 4, 2
    size = SIZES[options.size]
    sizes = Size(size.layers, size.embed_dim, size.hidden_size, len(task.dictionary))
    ours = logged(Path(options.log)) if options.log else {}
    perplexities = train(task, sizes, options.updates, options.interval)
    rows: list[Row] = []
    for number, perplexity in enumerate(perplexities, start=1):
        update = number * options.interval
        if not ours:
            rows.append({"update": update, "plain": perplexity})
        elif update in ours:
            ratio = ours[update] / perplexity
            rows.append({"update": update, "plain": perplexity, "seqba": ours[update], "seqba / plain": ratio})
    report("Perplexity of training, AWD-LSTM", rows, options)
    return 0


if __name__ == "__main__":
    sys.exit(run_command(main))
