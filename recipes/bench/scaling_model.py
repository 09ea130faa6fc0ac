"""How long an update takes on many ranks: a model with few terms, each of which stands in a function of its own.

    T(R, M) = ⌈S·M / R⌉ · cell + exchange(R) − hidden + straggler

S·M cells of one size are dealt over R ranks; the slowest has ⌈S·M / R⌉ of them. Then one all-reduce adds up the
gradients, a part of which may hide behind the last backward. What the model leaves out: reading, the optimizer's step,
validation, other users of the network, and that kernels of a cell may run slower beside other ranks.
"""

from __future__ import annotations

import math
from argparse import Namespace
from collections.abc import Callable
from dataclasses import dataclass, replace

from harness import Row

BACKWARD_SHARE = 2 / 3
"""Of a cell's time: a backward makes two products for each one of the forward."""

MODELLED_COPIES = (4, 10, 40)
MODELLED_RANKS = (8, 16, 32, 64, 128, 256, 512)
PAPER_RATES = {1: (1.43, 0.13), 4: (1.47, 0.13), 10: (1.46, 0.14)}
"""M → updates per second and their deviation. Hoffer et al. 2020, caption of figure 5."""
PAPER_MICRO_BATCHES = 4


@dataclass(frozen=True)
class Network:
    """How ranks are joined. Bandwidths are of one direction, in bytes per second; latencies in seconds a message.

    Attributes:
        ranks_per_node: G.
        inner_bandwidth: of a rank within its node.
        inner_latency: within a node.
        outer_bandwidth: of a node, which its ranks share.
        outer_latency: between nodes.
        tree: whether nodes exchange along a double binary tree and not around a ring.
    """

    ranks_per_node: int
    inner_bandwidth: float
    inner_latency: float
    outer_bandwidth: float
    outer_latency: float
    tree: bool = False


@dataclass(frozen=True)
class Work:
    """What an update is, and what it costs.

    Attributes:
        micro_batches: S.
        cell_s: seconds of one cell on one rank, forward and backward.
        gradient_bytes: what the all-reduce adds up.
        overlap: share of the exchange that may hide behind the last backward; 0 for none, 1 for all of it.
        straggler_s: seconds by which the slowest of several ranks is late in each update.
    """

    micro_batches: int
    cell_s: float
    gradient_bytes: float
    overlap: float = 0.0
    straggler_s: float = 0.0


def ring_s(members: int, size: float, bandwidth: float, latency: float) -> float:
    """All-reduce around a ring: 2·(n−1)/n · size / bandwidth + 2·(n−1) · latency; no time for one member.

    Source: Patarasuk and Yuan 2009, "Bandwidth optimal all-reduce algorithms for clusters of workstations".
    """
    return 2 * (members - 1) / members * size / bandwidth + 2 * (members - 1) * latency


def tree_s(members: int, size: float, bandwidth: float, latency: float) -> float:
    """All-reduce along two binary trees at once: 2 · size / bandwidth + 2·⌈log₂ n⌉ · latency; no time for one member.

    Source: Sanders, Speck and Träff 2009, "Two-tree algorithms for full bandwidth broadcast, reduction and scan".
    """
    return 0.0 if members == 1 else 2 * size / bandwidth + 2 * math.ceil(math.log2(members)) * latency


def exchange_s(ranks: int, size: float, network: Network) -> float:
    """All-reduce of `size` bytes: around a ring within each node, and one between the nodes in the middle of it.

    The ranks of a node each take 1/G of the bytes to the other nodes, all at the same time over the node's one link.
    """
    nodes = math.ceil(ranks / network.ranks_per_node)
    inner = ring_s(min(ranks, network.ranks_per_node), size, network.inner_bandwidth, network.inner_latency)
    between = tree_s if network.tree else ring_s
    return inner + between(nodes, size, network.outer_bandwidth, network.outer_latency)


def update_s(ranks: int, copies: int, work: Work, network: Network) -> float:
    """Seconds of an update of S × `copies` cells on `ranks` ranks.

    Raises:
        ValueError: if there are more ranks than cells.
    """
    cells = work.micro_batches * copies
    if ranks > cells:
        raise ValueError(f"{ranks} ranks for {work.micro_batches} micro-batches × {copies} copies = {cells} cells")
    exchange = exchange_s(ranks, work.gradient_bytes, network)
    hidden = min(work.overlap * exchange, BACKWARD_SHARE * work.cell_s)
    return math.ceil(cells / ranks) * work.cell_s + exchange - hidden + (work.straggler_s if ranks > 1 else 0.0)


def efficiency(ranks: int, copies: int, work: Work, network: Network) -> float:
    """T(1) / (R · T(R)): the share of the ranks' time that one rank would need for the same update.

    Raises:
        ValueError: if there are more ranks than cells.
    """
    return update_s(1, copies, work, network) / (ranks * update_s(ranks, copies, work, network))


def read_model(options: Namespace) -> tuple[Work, Network]:
    """The options of the model, in seconds and bytes."""
    network = Network(
        ranks_per_node=options.ranks_per_node,
        inner_bandwidth=options.inner_gb_per_s * 1e9,
        inner_latency=options.inner_latency_us * 1e-6,
        outer_bandwidth=options.outer_gb_per_s * 1e9,
        outer_latency=options.outer_latency_us * 1e-6,
        tree=options.between == "tree",
    )
    work = Work(
        micro_batches=1,
        cell_s=options.cell_ms / 1e3,
        gradient_bytes=options.parameters * 4,
        overlap=options.overlap,
        straggler_s=options.straggler_ms / 1e3,
    )
    return work, network


def model_row(ranks: int, work: Work, network: Network) -> Row:
    """One number of ranks: time and efficiency at each M."""
    row: Row = {"shards": work.micro_batches, "ranks": ranks}
    for copies in MODELLED_COPIES:
        allowed = ranks <= work.micro_batches * copies
        row[f"s, M={copies}"] = update_s(ranks, copies, work, network) if allowed else "refused"
        row[f"efficiency, M={copies}"] = efficiency(ranks, copies, work, network) if allowed else ">cells"
    return row


def assumptions(options: Namespace) -> list[str]:
    """What the table stands on, a line each."""
    return [
        f"  cell: {options.cell_ms:.1f} ms; the slowest rank has the micro-batches x copies / ranks, rounded up",
        f"  all-reduce: {options.parameters * 4 / 1e6:.1f} MB once an update (float32), {options.overlap:.0%} of it "
        "hidden behind the last backward at most",
        f"  within a node of {options.ranks_per_node} ranks: a ring, {options.inner_gb_per_s:g} GB/s, "
        f"{options.inner_latency_us:g} us a message",
        f"  between nodes: a {options.between}, {options.outer_gb_per_s:g} GB/s of a node, "
        f"{options.outer_latency_us:g} us a message",
        f"  the slowest rank is late by {options.straggler_ms:g} ms; reading and the optimizer's step cost nothing",
    ]


def slowed_to_paper(work: Work, network: Network) -> Network:
    """The same network with the link that makes M = 4 take the time that the paper gives."""
    ranks = PAPER_MICRO_BATCHES * 4
    rest = 1 / PAPER_RATES[4][0] - work.cell_s - ring_s(ranks, 0, 1, network.outer_latency)
    return replace(network, outer_bandwidth=ring_s(ranks, work.gradient_bytes, 1, 0) / rest)


def check_figure_5(work: Work, network: Network) -> dict[str, str]:
    """The paper's caption against the model: updates per second, and M = 10 over M = 4, ranks growing with M."""
    work = replace(work, micro_batches=PAPER_MICRO_BATCHES, overlap=0.0, straggler_s=0.0)
    network = replace(network, ranks_per_node=1, tree=False)
    slowed = slowed_to_paper(work, network)
    notes = {"figure 5, the paper": _rates(lambda m: PAPER_RATES[m][0], lambda m: f" +- {PAPER_RATES[m][1]}")}
    for name, links in (("the model", network), ("the model, link slowed to fit M = 4", slowed)):
        rates = _rates(lambda m, links=links: 1 / update_s(PAPER_MICRO_BATCHES * m, m, work, links))  # type: ignore[misc]
        notes[f"figure 5, {name}"] = f"{rates} ({links.outer_bandwidth / 1e9:.2f} GB/s)"
    return notes


def _rates(rate: Callable[[int], float], deviation: Callable[[int], str] = lambda _: "") -> str:
    told = ", ".join(f"{rate(m):.2f}{deviation(m)} at M = {m} on {PAPER_MICRO_BATCHES * m}" for m in PAPER_RATES)
    return f"updates/s {told} nodes; time M = 10 : M = 4 {rate(4) / rate(10):.3f}"
