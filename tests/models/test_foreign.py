"""Networks of other programs: their batch norms are replaced, their noise is keyed, their names are looked up."""

from __future__ import annotations

import copy
import sys
from collections.abc import Callable

import pytest
import torch
from foreign_pictures import BatchNormAct2d, ForeignNetwork, pictures, stand_in
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

import seqba
from seqba.errors import UserError
from seqba.models.builders import fresh_model
from seqba.models.families import ARCHITECTURES, family_of
from seqba.models.foreign import ForeignClassifier, GhostBatchNormAct2d, replace_batch_norms
from seqba.models.options import ImageClassifierOptions
from seqba.nn import GhostBatchNorm2d


def loss_fn(model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
    return cross_entropy(model(batch["x"]), batch["y"])


def network(**noise: float) -> ForeignNetwork:
    torch.manual_seed(1)
    made = ForeignNetwork(**noise).double()
    for module in made.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 2)
            nn.init.uniform_(module.running_mean, -1, 1)
    return made


def test_ghost_batch_norms_take_the_place_of_all_batch_norms() -> None:
    original = network()
    replaced = replace_batch_norms(copy.deepcopy(original), 3)
    norms = {name: norm for name, norm in replaced.named_modules() if isinstance(norm, nn.BatchNorm2d)}
    assert {name: type(norm) for name, norm in norms.items()} == {
        "bn1": GhostBatchNormAct2d,
        "blocks.0.bn": GhostBatchNorm2d,
        "blocks.1.bn": GhostBatchNorm2d,
    }
    assert {norm.ghost_batch for norm in norms.values()} == {3}
    assert (norms["bn1"].eps, norms["bn1"].momentum, norms["blocks.0.bn"].eps) == (1e-3, 0.2, 1e-5)
    assert list(original.state_dict()) == list(replaced.state_dict())
    x = pictures()["x"]
    assert torch.equal(original.eval()(x), replaced.eval()(x))
    # In training, over groups of one size, each is what the original is on that group alone.
    original, replaced = original.train(), replaced.train()
    original.bn1.drop.p = replaced.bn1.drop.p = 0
    torch.testing.assert_close(torch.cat([original(x[:3]), original(x[3:])]), replaced(x))


def test_a_norm_in_two_places_stays_one() -> None:
    norm = nn.BatchNorm2d(3)
    model = replace_batch_norms(nn.Sequential(norm, nn.ReLU(), norm))
    assert isinstance(model[0], GhostBatchNorm2d)
    assert model[0] is model[2]
    assert isinstance(replace_batch_norms(norm), GhostBatchNorm2d)


@pytest.mark.parametrize(
    ("norm", "complaint"),
    [
        (nn.BatchNorm1d(3), "0 is a BatchNorm1d, for which there is no ghost batch norm"),
        (nn.SyncBatchNorm(3), "0 is a SyncBatchNorm, for which"),
        (type("Own", (nn.BatchNorm2d,), {})(3), "0 is a Own, for which"),
        (nn.BatchNorm2d(3, affine=False), "0 is a batch norm without weights, running statistics or a momentum"),
        (nn.BatchNorm2d(3, track_running_stats=False), "0 is a batch norm without weights"),
        (nn.BatchNorm2d(3, momentum=None), "0 is a batch norm without weights"),
    ],
)
def test_other_norms_over_the_batch_are_refused(norm: nn.Module, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        replace_batch_norms(nn.Sequential(norm))


@pytest.mark.parametrize("ghost_batch", [None, 2])
def test_the_gradient_is_the_same_in_every_plan(ghost_batch: int | None) -> None:
    batch, found = pictures(), []
    for plan in ("stacked", "looped"):
        model = ForeignClassifier(network(drop_rate=0.3, drop_path_rate=0.4), ghost_batch=ghost_batch)
        seqba.merged_gradient(model, batch, loss_fn, copies=3, update=5, plan=plan)
        found.append(torch.cat([parameter.grad.flatten() for parameter in model.parameters()]))
        found.append(torch.cat([buffer.double().flatten() for buffer in model.buffers()]))
    torch.testing.assert_close(found[0], found[2], rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(found[1], found[3], rtol=1e-9, atol=1e-12)


def test_a_check_finds_nothing_to_mend() -> None:
    report = seqba.check(ForeignClassifier(network(drop_rate=0.3, drop_path_rate=0.4)), pictures(), loss_fn, copies=2)
    assert report.is_fine, str(report)
    bare = seqba.check(network(drop_rate=0.3, drop_path_rate=0.4), pictures(), loss_fn, copies=2)
    assert not bare.is_fine  # of its batch norms


def test_outside_an_update_torchs_own_generator_draws() -> None:
    model = ForeignClassifier(network(drop_rate=0.5))
    outputs = []
    for _ in range(2):
        torch.manual_seed(3)
        outputs.append(model(pictures()["x"]))
    assert torch.equal(*outputs)
    assert not torch.equal(outputs[0], model(pictures()["x"]))


def test_mixup_mixes_the_images() -> None:
    class Halves:
        def at(self, x: Tensor, stage: int) -> Tensor:
            assert stage == 0
            return x / 2

    model, x = ForeignClassifier(network()).eval(), pictures()["x"]
    assert torch.equal(model(x, Halves()), model(x / 2))


@pytest.fixture
def timm(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", stand_in())


def build(arch: str, **options: float) -> nn.Module:
    family = family_of(arch)
    return fresh_model(arch, family.resolve(arch, ImageClassifierOptions(**options)), {"classes": 7, "image_size": 8})


@pytest.mark.usefixtures("timm")
def test_a_network_of_timm_has_the_options() -> None:
    model = build("timm:tiny_net", ghost_batch=2, dropout=0.3, drop_path=0.4)
    assert isinstance(model, ForeignClassifier)
    assert (model.network.drop_rate, [block.drop_path for block in model.network.blocks]) == (0.3, [0.2, 0.4])
    assert {norm.ghost_batch for norm in model.modules() if isinstance(norm, GhostBatchNorm2d)} == {2}
    assert not any(isinstance(module, BatchNormAct2d) for module in model.modules())
    assert model(torch.zeros(4, 3, 8, 8)).shape == (4, 7)
    assert build("timm:tiny_vit")(torch.zeros(4, 3, 8, 8)).shape == (4, 7)


@pytest.mark.usefixtures("timm")
@pytest.mark.parametrize(
    ("make", "complaint"),
    [
        (
            lambda: build("timm:tiny_nett"),
            "--arch 'timm:tiny_nett': timm 1.0 has no such network; the closest are timm:",
        ),
        (lambda: build("timm:"), "--arch 'timm:': timm 1.0 has no such network$"),
        (lambda: build("timm:tiny_vit", drop_path=0.1), "--arch timm:tiny_vit can't be built so: .*drop_path_rate"),
        (
            lambda: build("timm:tiny_net", layers=3),
            "--layers has no place in --arch timm:tiny_net: darts, darts_v1, am",
        ),
        (lambda: build("timm:odd"), "the network is a BatchNorm1d, for which there is no ghost batch norm"),
    ],
)
def test_what_timm_has_not_is_one_line(make: Callable[[], nn.Module], complaint: str) -> None:
    with pytest.raises(UserError, match=complaint):
        make()


def test_without_timm_it_is_said_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(UserError, match=r"--arch timm:NAME needs .*timm.*pip install 'seqba\[timm\]'"):
        build("timm:resnet18")


def test_names_of_timm_are_known_without_being_listed() -> None:
    assert ARCHITECTURES["timm:resnet18"] == "image_classifier"
    assert "timm:resnet18" in ARCHITECTURES
    assert not any(arch.startswith("timm") for arch in ARCHITECTURES)
    assert ARCHITECTURES.get("resnet18") is None


@pytest.mark.slow
@pytest.mark.parametrize("name", ["resnet18", "efficientnet_b0", "vit_tiny_patch16_224"])
def test_timms_own_networks_keep_the_promise(name: str) -> None:
    pytest.importorskip("timm", exc_type=ImportError)
    torch.manual_seed(1)
    family = family_of(f"timm:{name}")
    config = family.resolve(f"timm:{name}", ImageClassifierOptions(dropout=0.2, drop_path=0.2))
    model = fresh_model(f"timm:{name}", config, {"classes": 10, "image_size": 64}).double()
    report = seqba.check(model, pictures(rows=6, side=64), loss_fn, copies=2)
    assert report.is_fine, str(report)
