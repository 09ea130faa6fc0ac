"""How long an update takes on many ranks: a model with few terms, each of which stands in a function of its own.

    T(R, M) = ⌈S·M / R⌉ · cell + exchange(R) − hidden + straggler

S·M cells of one size are dealt over R ranks; the slowest has ⌈S·M / R⌉ of them. Then one all-reduce adds up the
gradients, a part of which may hide behind the last backward. What the model leaves out: reading, the optimizer's step,
validation, other users of the network, and that kernels of a cell may run slower beside other ranks.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

BACKWARD_SHARE = 2 / 3
"""Of a cell's time: a backward makes two products for each one of the forward."""


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
        shards: S.
        cell_s: seconds of one cell on one rank, forward and backward.
        gradient_bytes: what the all-reduce adds up.
        overlap: share of the exchange that may hide behind the last backward; 0 for none, 1 for all of it.
        straggler_s: seconds by which the slowest of several ranks is late in each update.
    """

    shards: int
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
    cells = work.shards * copies
    if ranks > cells:
        raise ValueError(f"{ranks} ranks for {work.shards} shards × {copies} copies = {cells} cells")
    exchange = exchange_s(ranks, work.gradient_bytes, network)
    hidden = min(work.overlap * exchange, BACKWARD_SHARE * work.cell_s)
    return math.ceil(cells / ranks) * work.cell_s + exchange - hidden + (work.straggler_s if ranks > 1 else 0.0)


def efficiency(ranks: int, copies: int, work: Work, network: Network) -> float:
    """T(1) / (R · T(R)): the share of the ranks' time that one rank would need for the same update.

    Raises:
        ValueError: if there are more ranks than cells.
    """
    return update_s(1, copies, work, network) / (ranks * update_s(ranks, copies, work, network))
