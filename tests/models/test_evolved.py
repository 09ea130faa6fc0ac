"""Networks of searched cells against their released definitions, written down again and read slowly."""

from __future__ import annotations

import re
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from networks import Reading, close, count, images, shake
from rank_groups import run_groups
from torch import Tensor, nn
from torch.nn import functional as F

import seqba
from seqba.distributed import Ranks
from seqba.models.cell_operations import OPERATIONS, FactorizedReduce
from seqba.models.evolved import Cell, EvolvedNetwork
from seqba.models.genotypes import GENOTYPES
from seqba.nn import DropPath, GhostBatchNorm2d
from seqba.nn.auxiliary import AuxiliaryLogits

# The cells as they are published, in another notation: operation(state)+operation(state) for states 2, 3, …
PUBLISHED = {
    "darts": (
        "sep3(0)+sep3(1) sep3(0)+sep3(1) sep3(1)+skip(0) skip(0)+dil3(2) > 2,3,4,5",
        "max(0)+max(1) skip(2)+max(1) max(0)+skip(2) skip(2)+max(1) > 2,3,4,5",
    ),
    "darts_v1": (
        "sep3(1)+sep3(0) skip(0)+sep3(1) skip(0)+sep3(1) sep3(0)+skip(2) > 2,3,4,5",
        "max(0)+max(1) skip(2)+max(0) max(0)+skip(2) skip(2)+avg(0) > 2,3,4,5",
    ),
    "amoebanet": (
        "avg(0)+max(1) sep3(0)+sep5(2) sep3(0)+avg(3) sep3(1)+skip(1) skip(0)+avg(1) > 4,5,6",
        "avg(0)+sep3(1) max(0)+sep7(2) sep7(0)+avg(1) max(0)+max(1) c7x1(0)+sep3(5) > 3,4,6",
    ),
    "nasnet_a": (
        "sep5(1)+sep3(0) sep5(0)+sep3(0) avg(1)+skip(0) avg(0)+avg(0) sep3(1)+skip(1) > 2,3,4,5,6",
        "sep5(1)+sep7(0) max(1)+sep7(0) avg(1)+sep5(0) skip(3)+avg(2) sep3(2)+max(1) > 4,5,6",
    ),
}


def edges(plan: str) -> list[tuple[str, int]]:
    return [(name, int(state)) for name, state in re.findall(r"(\w+)\((\d)\)", plan)]


def outputs(plan: str) -> list[int]:
    return [int(state) for state in plan.split("> ")[1].split(",")]


def network(name: str, classes: int = 10, **sizes: float) -> EvolvedNetwork:
    return EvolvedNetwork(classes, GENOTYPES[name], **sizes)  # type: ignore[arg-type]


# Counted from the definitions in the released code; 3.3 and 3.2 million in the papers' tables.
@pytest.mark.parametrize(
    ("name", "channels", "classes", "everything", "without_auxiliary", "middle", "mega_products"),
    [
        ("darts", 36, 10, 3_825_768, 3_349_342, 576, 528.4),
        ("darts", 36, 100, 3_946_908, 3_401_272, 576, 528.4),
        ("amoebanet", 36, 10, 3_603_072, 3_145_078, 432, 488.9),
        ("amoebanet", 32, 10, 2_961_524, 2_509_674, 384, 391.2),
        ("amoebanet", 128, 10, 38_089_364, 37_490_058, 1536, 5729.8),
        ("nasnet_a", 36, 10, 4_288_944, 3_830_950, 432, 603.5),
    ],
)
def test_parameters_and_products(
    name: str, channels: int, classes: int, everything: int, without_auxiliary: int, middle: int, mega_products: float
) -> None:
    with torch.device("meta"):
        model = network(name, classes, init_channels=channels)
    assert count(model) == everything
    assert model.auxiliary is not None
    assert count(model) - count(model.auxiliary) == without_auxiliary
    assert model.auxiliary.narrow.conv.in_channels == middle
    products: list[int] = []
    for module in model.modules():
        if isinstance(module, (nn.Conv2d, nn.Linear)):
            module.register_forward_hook(
                lambda module, _, output: products.append(module.weight.numel() * output[0, 0].numel())
            )
    assert model.eval()(torch.empty(1, 3, 32, 32, device="meta")).shape == (1, classes)
    assert round(sum(products) / 1e6, 1) == mega_products


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("name", OPERATIONS)
def test_shape_of_every_operation(name: str, stride: int) -> None:
    x = torch.zeros(2, 6, 8, 12)
    y = OPERATIONS[name](6, stride, nn.BatchNorm2d)(x)
    assert y.shape == (2, 6, 8 // stride, 12 // stride)


def test_a_factorized_reduction_of_other_channels() -> None:
    assert FactorizedReduce(5, 8, nn.BatchNorm2d)(torch.zeros(2, 5, 6, 4)).shape == (2, 8, 3, 2)


@pytest.mark.parametrize(("name", "per_cell"), [("darts", (6, 8)), ("amoebanet", (8, 10))])
def test_drop_path_follows_every_operation_but_identities(name: str, per_cell: tuple[int, int]) -> None:
    with torch.device("meta"):
        model = network(name, layers=3, drop_path=0.3)
    paths = {each for each, module in model.named_modules() if isinstance(module, DropPath)}
    assert {module.p for module in model.modules() if isinstance(module, DropPath)} == {0.3}
    # The first cell is a normal one, the others are reductions, whose skips of states 0 and 1 aren't identities.
    normal, reduction = per_cell
    inside = sum(place == "skip" and state > 1 for place, state in edges(PUBLISHED[name][1]))
    assert len(paths) == normal + 2 * (reduction - inside)


class SlowReading(Reading):
    """Cells and network, an operation at a time."""

    def operation(self, x: Tensor, kind: str, name: str, stride: int) -> Tensor:
        if kind == "skip":
            return x if stride == 1 else self.reduction(x, f"{name}.0")
        name = f"{name}.0"
        if kind == "max":
            padded = F.pad(x, (1, 1, 1, 1), value=-torch.inf)
            return padded.unfold(2, 3, stride).unfold(3, 3, stride).amax((4, 5))
        if kind == "avg":
            total, number = (
                F.pad(y, (1, 1, 1, 1)).unfold(2, 3, stride).unfold(3, 3, stride).sum((4, 5))
                for y in (x, torch.ones_like(x))
            )
            return total / number
        if kind == "c7x1":
            x = F.conv2d(x.relu(), self.state[f"{name}.wide.weight"], stride=(1, stride), padding=(0, 3))
            x = F.conv2d(x, self.state[f"{name}.high.weight"], stride=(stride, 1), padding=(3, 0))
            return self.norm(x, f"{name}.norm")
        if kind == "dil3":
            return self.half(x, name, stride, dilation=2)
        assert kind in ("sep3", "sep5", "sep7")
        assert self.state[f"{name}.0.depthwise.weight"].shape[-1] == int(kind[-1])
        return self.half(self.half(x, f"{name}.0", stride), f"{name}.1", 1)

    def half(self, x: Tensor, name: str, stride: int, dilation: int = 1) -> Tensor:
        weight = self.state[f"{name}.depthwise.weight"]
        reach = dilation * (weight.shape[-1] - 1) // 2
        rows = [
            F.conv2d(x[:, c : c + 1].relu(), weight[c : c + 1], stride=stride, padding=reach, dilation=dilation)
            for c in range(x.shape[1])
        ]
        return self.norm(self.conv(torch.cat(rows, 1), f"{name}.pointwise"), f"{name}.norm")

    def reduction(self, x: Tensor, name: str) -> Tensor:
        x = x.relu()
        halves = [
            self.conv(x[:, :, 0::2, 0::2], f"{name}.even"),
            self.conv(x[:, :, 1::2, 1::2], f"{name}.odd"),
        ]
        return self.norm(torch.cat(halves, 1), f"{name}.norm")

    def entrance(self, x: Tensor, name: str) -> Tensor:
        return self.norm(self.conv(x.relu(), f"{name}.conv"), f"{name}.norm")

    def cell(self, before: Tensor, last: Tensor, name: str, plan: str, *, reduces: bool, after: bool) -> Tensor:
        states = [
            (self.reduction if after else self.entrance)(before, f"{name}.entrances.0"),
            self.entrance(last, f"{name}.entrances.1"),
        ]
        results = []
        for number, (kind, state) in enumerate(edges(plan)):
            stride = 2 if reduces and state in (0, 1) else 1
            results.append(self.operation(states[state], kind, f"{name}.edges.{number}", stride))
            if number % 2:
                states.append(results[-2] + results[-1])
        return torch.cat([states[state] for state in outputs(plan)], 1)

    def network(self, x: Tensor, layers: int, name: str) -> tuple[Tensor, Tensor]:
        """Logits, and what the auxiliary head reads."""
        normal, reduction = PUBLISHED[name]
        at = (layers // 3, 2 * layers // 3)
        before = last = self.norm(self.conv(x, "stem.conv"), "stem.norm")
        opening = last
        for number in range(layers):
            stage = (number >= at[0]) + (number >= at[1])
            place = number - (0, *at)[stage]
            before, last = (
                last,
                self.cell(
                    before,
                    last,
                    f"stages.{stage}.cells.{place}",
                    reduction if number in at else normal,
                    reduces=number in at,
                    after=number - 1 in at,
                ),
            )
            if number == at[1]:
                opening = last
        return self.linear(last.mean((2, 3)), "head.linear"), opening


@pytest.mark.parametrize("name", GENOTYPES)
@pytest.mark.parametrize("layers", [4, 6])
def test_the_network_read_by_hand(name: str, layers: int) -> None:
    torch.manual_seed(0)
    sizes = {"layers": layers, "init_channels": 3, "image_size": 16, "auxiliary_weight": 0}
    model = shake(network(name, **sizes)).double().eval()
    x = images(side=16, dtype=torch.float64)
    logits, _ = SlowReading(model).network(x, layers, name)
    assert close(model(x), logits)


def test_the_auxiliary_head_read_by_hand() -> None:
    torch.manual_seed(0)
    model = shake(network("darts", classes=7, layers=3, init_channels=2, drop_path=0, auxiliary_weight=0.3)).double()
    x = images(dtype=torch.float64)
    model.train()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eval()
    read = SlowReading(model)
    logits, opening = read.network(x, 3, "darts")
    y = opening.relu().unfold(2, 5, 3).unfold(3, 5, 3).mean((4, 5))
    for part in ("narrow", "whole"):
        y = read.norm(read.conv(y, f"auxiliary.{part}.conv", padding=0), f"auxiliary.{part}.norm").relu()
    output = model(x)
    assert isinstance(output, AuxiliaryLogits)
    assert output.weight == 0.3
    assert close(output.logits, logits)
    assert close(output.auxiliary, read.linear(y, "auxiliary.linear"))
    assert close(model.eval()(x), logits)


def test_manifold_mixup_mixes_both_inputs_of_a_reduction() -> None:
    seen: list[tuple[int, tuple[int, ...]]] = []

    class Watch:
        def at(self, x: Tensor, stage: int) -> Tensor:
            seen.append((stage, tuple(x.shape[1:])))
            return x

    with torch.device("meta"):
        model = network("darts", init_channels=4, layers=6)
        model(torch.empty(2, 3, 32, 32), Watch())
    assert seen == [
        (0, (3, 32, 32)),
        *[(1, (16, 32, 32))] * 2,
        *[(2, (32, 16, 16))] * 2,
    ]


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ({"layers": 2}, "layers is 2"),
        ({"init_channels": 0}, "init_channels 0"),
        ({"image_size": 30, "auxiliary_weight": 0}, "image_size is 30; it must be a multiple of 4"),
        ({"image_size": 64}, "image_size is 64; the auxiliary head needs one of 32, 36, 40"),
    ],
)
def test_impossible_sizes_are_refused(sizes: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        network("darts", **sizes)


@pytest.mark.parametrize("side", [36, 40])
def test_other_sides_that_the_auxiliary_head_takes(side: int) -> None:
    with torch.device("meta"):
        output = network("darts", layers=3, image_size=side)(torch.empty(2, 3, side, side))
    assert output.auxiliary.shape == (2, 10)


def test_a_cell_leaves_its_inputs_alone() -> None:
    torch.manual_seed(0)
    for plan in (each for genotype in GENOTYPES.values() for each in (genotype.normal, genotype.reduction)):
        cell = Cell(plan, (6, 6), 4, reduces=False, follows_reduction=False, norm=nn.BatchNorm2d, drop_path=0)
        x, y = images(side=8).repeat(1, 2, 1, 1), images(rows=3, side=8).repeat(1, 2, 1, 1) * 2
        before = x.clone(), y.clone()
        assert cell(x, y).shape == (3, cell.outputs, 8, 8)
        assert torch.equal(x, before[0])
        assert torch.equal(y, before[1])


def both_losses(model: nn.Module, batch: tuple[Tensor, Tensor]) -> tuple[Tensor, int]:
    pictures, labels = batch
    output: AuxiliaryLogits = model(pictures)
    losses = [F.cross_entropy(logits, labels, reduction="sum") for logits in (output.logits, output.auxiliary)]
    return losses[0] + output.weight * losses[1], len(labels)


def train_in_pairs(ranks: Ranks) -> dict[str, Any]:
    """Two updates of five copies, with both heads, in float64, norms over two pictures."""
    torch.manual_seed(1)
    norm = partial(GhostBatchNorm2d, ghost_batch=2)
    model = EvolvedNetwork(10, GENOTYPES["darts"], init_channels=2, layers=3, drop_path=0.4, norm=norm).double()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.002, momentum=0.9)
    for update in (1, 2):
        batch = (images(4, dtype=torch.float64) + update, torch.arange(4))
        seqba.merged_gradient(model, batch, both_losses, copies=5, plan="looped", update=update, ranks=ranks)
        optimizer.step()
        optimizer.zero_grad()
    return {name: value.detach() for name, value in model.state_dict().items()}


@pytest.mark.slow
def test_both_heads_are_the_same_over_ranks(tmp_path: Path) -> None:
    """In float64: the auxiliary head's last norm has one value of each picture, so of two pictures it makes ±1, and a
    difference near ε is turned by float32's rounding. That grows some hundredfold an update, in either precision."""
    results = run_groups(train_in_pairs, [1, 3], tmp_path)
    for name, value in results[1, 0].items():
        torch.testing.assert_close(results[3, 2][name], value, rtol=1e-10, atol=1e-10, msg=name)


def test_names_of_the_weights() -> None:
    with torch.device("meta"):
        names = set(network("darts").state_dict())
    assert {
        "stem.conv.weight",
        "stages.0.cells.0.edges.0.0.0.depthwise.weight",
        "stages.1.cells.1.entrances.0.even.weight",
        "stages.2.cells.0.entrances.1.conv.weight",
        "auxiliary.whole.norm.running_var",
        "head.linear.bias",
    } <= names
