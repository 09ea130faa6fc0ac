"""Updates on several ranks: what they take on this machine, and what a model says of 8 to 512 ranks.

    python recipes/bench/scaling.py [--networks transformer awd_lstm resnet] [--copies 4] [--rounds 5] [--json FILE]
    python recipes/bench/scaling.py --table model [--micro-batches 4 128] [--cell-ms 273] [--outer-gb-per-s 10] [...]

**measured** (the default table): an update of one micro-batch × --copies, by seqba's merged gradient and SGD, on one
rank and on --ranks of them (gloo), --threads each. Sides, alive together and asked in turns, each rank a process:

    alone          1 rank, M copies: the same work
    part           1 rank, M / R copies: the work of each of R ranks
    spread         R ranks, M copies: M / R on each, and one all-reduce
    overlapped     the same; gradients leave while the last backward still computes (`Ranks.overlap`)
    side by side   R ranks with M / R copies each that know nothing of one another: what the machine itself allows, as
                   processes share its memory and its clock

"strong" is T(alone) / (R · T(spread)), "weak" T(part) / T(spread), "machine" T(part) / T(side by side), "of machine"
T(side by side) / T(spread), "overlap" T(spread) / T(overlapped): medians over rounds of ratios within a round.
"all-reduce" is the time of Ranks.add_up alone, on as many bytes, over T(spread), and "GB/s" those bytes over that time.
A small batch is the hard case: the exchange takes as long whatever the batch.

**model**: scaling_model.py with the assumptions that are printed above its table: seconds of an update and efficiency
T(1) / (R · T(R)) at M = 4, 10, 40. The defaults are the paper's setting, ResNet50 on one P100 a node: a cell is 64
images, which table 5 of the paper says take 64 / 234.4 s; 25.6 million parameters in float32; the link's speed and
latency are not in the paper, but assumed.

The model's check is the paper's figure 5, of which only its caption is used, in numbers: 256 images (4 micro-batches of
64) at 1.43 ± 0.13 updates/s with M = 1, 1.47 ± 0.13 with M = 4 on 16 nodes, 1.46 ± 0.14 with M = 10 on 40. The model
with these defaults is 2.3 times as fast as the paper's program, which read from a parallel file system and paid for
more than cells and all-reduce; so it is looked at twice: as it stands, and with the link slowed down until M = 4 takes
the paper's time, as if the exchange were all that the paper paid for.
"""

from __future__ import annotations

import os
import statistics
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import awd_lstm
import images
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from harness import Row, median_ratio, parse_options, report, seconds, serve, take_turns
from scaling_model import MODELLED_RANKS, PAPER_MICRO_BATCHES, assumptions, check_figure_5, model_row, read_model
from torch import Tensor, nn
from workload import SIZES, build_ours, fused_loss, training_batches

import seqba
from seqba.cli.command import run as run_command
from seqba.core import parse_plan
from seqba.models.awd_lstm import AWDLSTM
from seqba.nn import label_smoothed_cross_entropy

TABLES = ("measured", "model")


@dataclass(frozen=True)
class Example:
    """A network, a batch and a loss; `commit` ends an update."""

    model: nn.Module
    batch: Any
    loss: Callable[[nn.Module, Any], tuple[Tensor, float]]
    commit: Callable[[], None] = lambda: None


def transformer(spec: Mapping[str, Any]) -> Example:
    """Dropout 0.1, lengths of Multi30k, vocabulary 8,000."""
    (batch,) = training_batches(1, max_tokens=spec["max_tokens"])
    return Example(build_ours(SIZES[spec["transformer_size"]]), batch, fused_loss)


def lstm(spec: Mapping[str, Any]) -> Example:
    """A window of 70 words in 20 streams, every dropout of the PTB recipe, the state carried on."""
    size = awd_lstm.SIZES[spec["lstm_size"]]
    model = awd_lstm.build_ours(size)
    generator = torch.Generator().manual_seed(2)
    text = torch.randint(0, size.vocabulary, (awd_lstm.STREAMS, awd_lstm.LENGTH + 1), generator=generator)
    carry = seqba.Carry()

    def loss(model: nn.Module, rows: Tensor) -> tuple[Tensor, float]:
        assert isinstance(model, AWDLSTM)
        window = model.window(rows[:, :-1], carry.read())
        carry.write(window.state)
        target, hidden = rows[:, 1:].flatten(), window.hidden.flatten(0, 1)
        total, _ = label_smoothed_cross_entropy(hidden, model.output_weight, target, bias=model.output_bias)
        return total, float(len(target))

    return Example(model, text, loss, carry.commit)


def resnet(spec: Mapping[str, Any]) -> Example:
    """Pictures of CIFAR's layout, each copy through its own crop, flip and cutout; ghost batches of 32."""
    name = spec["resnet"]
    batch = images.random_batches({"batch": spec["batch"], "network": name})(1)
    view = images.training_view(images.ViewOptions(cutout=16), images.SIDES[name])

    def loss(model: nn.Module, batch: images.ImageBatch) -> tuple[Tensor, float]:
        logits = model(view(batch.images, batch.sizes))
        return nn.functional.cross_entropy(logits, batch.labels, reduction="sum"), float(len(batch.labels))

    return Example(images.network(name), batch, loss)


NETWORKS: dict[str, Callable[[Mapping[str, Any]], Example]] = {
    "transformer": transformer,
    "awd_lstm": lstm,
    "resnet": resnet,
}


def build_work(spec: Mapping[str, Any], ranks: seqba.Ranks | None) -> tuple[Callable[[int], None], list[Tensor]]:
    """An update as seqba's trainer makes it, and tensors like the gradients."""
    torch.manual_seed(1)
    example = NETWORKS[spec["network"]](spec)
    model = example.model.train()
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.SGD(parameters, lr=1e-3)
    plan = parse_plan("looped")  # what `auto` comes to on a CPU

    def update(number: int) -> None:
        seqba.merged_gradient(
            model, example.batch, example.loss, copies=spec["copies"], plan=plan, update=number, ranks=ranks
        )
        example.commit()
        optimizer.step()
        optimizer.zero_grad()

    return update, [torch.zeros_like(parameter) for parameter in parameters]


def build_side(spec: Mapping[str, Any]) -> Callable[[int], dict[str, float]]:
    """A child's measurement, as the first of its ranks; it starts the others, which end when it does."""
    if spec["ranks"] == 1:
        update, tensors = build_work(spec, None)
        size = float(sum(tensor.nbytes for tensor in tensors))
        return lambda number: {"update": seconds(lambda: update(number)), "bytes": size}
    folder = TemporaryDirectory()
    context = mp.get_context("spawn")
    for rank in range(1, spec["ranks"]):
        context.Process(target=follow, args=(dict(spec), rank, folder.name), daemon=True).start()
    measure = join(spec, 0, folder.name)

    def lead(number: int, _folder: TemporaryDirectory[str] = folder) -> dict[str, float]:
        dist.broadcast(torch.tensor(number), src=0)
        return measure(number)

    return lead


def follow(spec: Mapping[str, Any], rank: int, folder: str) -> None:
    """The life of any other rank: it waits, asleep, until the first one measures."""
    os.dup2(2, 1)
    torch.set_num_threads(spec["threads"])
    measure = join(spec, rank, folder)
    number = torch.zeros((), dtype=torch.int64)
    while True:
        dist.broadcast(number, src=0)
        measure(int(number))


def join(spec: Mapping[str, Any], rank: int, folder: str) -> Callable[[int], dict[str, float]]:
    """Meets the other ranks; what it returns measures, on all of them at the same time."""
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    meeting = f"file://{Path(folder) / 'meeting'}"
    timeout = timedelta(hours=2)
    dist.init_process_group("gloo", init_method=meeting, rank=rank, world_size=spec["ranks"], timeout=timeout)
    ranks = replace(seqba.Ranks.of(), overlap=spec.get("overlap", False))
    update, tensors = build_work(spec, ranks if spec["together"] else None)

    def slowest(work: Callable[[], object]) -> float:
        dist.barrier()
        time = torch.tensor(seconds(work))
        dist.all_reduce(time, dist.ReduceOp.MAX)
        return float(time)

    def measure(number: int) -> dict[str, float]:
        updating = slowest(lambda: update(number))
        exchange = slowest(lambda: ranks.add_up(tensors)) if spec["together"] else 0.0
        return {"update": updating, "exchange": exchange}

    return measure


def measure_network(network: str, options: Any) -> Row:
    """What one update of a network takes on each side."""
    sizes = ("transformer_size", "lstm_size", "resnet", "batch", "max_tokens", "threads")
    common = {"network": network, "keep_memory": True, **{name: getattr(options, name) for name in sizes}}
    ranks, part = options.ranks, options.copies // options.ranks
    sides = {
        "alone": {"ranks": 1, "copies": options.copies},
        "part": {"ranks": 1, "copies": part},
        "spread": {"ranks": ranks, "copies": options.copies, "together": True},
        "overlapped": {"ranks": ranks, "copies": options.copies, "together": True, "overlap": True},
        "side by side": {"ranks": ranks, "copies": part, "together": False},
    }
    answers, _ = take_turns(__file__, {name: {**common, **side} for name, side in sides.items()}, options.rounds)
    times = {name: [answer["update"] for answer in measured] for name, measured in answers.items()}
    exchange = [answer["exchange"] for answer in answers["spread"]]
    size = answers["alone"][0]["bytes"]
    return {
        "network": network,
        "copies": options.copies,
        "parameters": int(size / 4),
        "s, 1 rank": statistics.median(times["alone"]),
        f"s, {ranks} ranks": statistics.median(times["spread"]),
        "strong": median_ratio(times["alone"], times["spread"]) / ranks,
        "weak": median_ratio(times["part"], times["spread"]),
        "machine": median_ratio(times["part"], times["side by side"]),
        "of machine": median_ratio(times["side by side"], times["spread"]),
        "overlap": median_ratio(times["spread"], times["overlapped"]),
        "all-reduce": median_ratio(exchange, times["spread"]),
        "GB/s": size / statistics.median(exchange) / 1e9,
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Measures, or models."""
    options = parse_options(
        __doc__,
        ["--threads", "1", *(sys.argv[1:] if arguments is None else arguments)],  # a rank of a shared machine
        table=TABLES[0],
        networks=list(NETWORKS),
        ranks=2,
        copies=4,
        rounds=5,
        transformer_size="small",
        max_tokens=1024,
        lstm_size="small",
        resnet="resnet44",
        batch=32,
        micro_batches=[PAPER_MICRO_BATCHES, 128],
        cell_ms=64 / 234.4 * 1e3,
        parameters=25_557_032,
        ranks_per_node=1,
        inner_gb_per_s=100.0,
        inner_latency_us=5.0,
        outer_gb_per_s=10.0,
        outer_latency_us=5.0,
        between="ring",
        overlap=0.0,
        straggler_ms=0.0,
    )
    if options.side:
        serve(options.side, build_side)
        return 0
    complaint = mistake(options)
    if complaint:
        print(f"error: {complaint}", file=sys.stderr)
        return 2
    if options.table == "model":
        report_model(options)
        return 0
    if options.quick:
        options.transformer_size, options.lstm_size, options.resnet = "tiny", "tiny", "resnet8"
        options.max_tokens, options.batch, options.rounds, options.copies = 256, 4, 1, 2
    report("Updates on several ranks", [measure_network(name, options) for name in options.networks], options)
    return 0


def report_model(options: Any) -> None:
    """Prints the modelled table, with its assumptions and its check."""
    work, network = read_model(options)
    rows = [
        model_row(ranks, replace(work, micro_batches=micro_batches), network)
        for micro_batches in options.micro_batches
        for ranks in MODELLED_RANKS
    ]
    notes = {"assumptions": "\n" + "\n".join(assumptions(options)), **check_figure_5(work, network)}
    report("Modelled updates on many ranks", rows, options, **notes)


def mistake(options: Any) -> str | None:
    """What can't work, in a line."""
    if options.table not in TABLES or not set(options.networks) <= set(NETWORKS):
        return f"--table is one of {TABLES}, --networks of {tuple(NETWORKS)}"
    if options.ranks < 2 or options.copies % options.ranks:
        return f"--copies {options.copies} must be a multiple of --ranks, which are at least 2"
    if options.between not in ("ring", "tree") or not 0 <= options.overlap <= 1:
        return "--between is ring or tree, --overlap from 0 to 1"
    return None


if __name__ == "__main__":
    sys.exit(run_command(main))
