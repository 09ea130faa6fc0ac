"""One pass of an update: under whose noise a forward and a backward run, and with whom they exchange gradients."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import torch
from torch import nn
from torch.utils.weak import WeakIdKeyDictionary

from seqba.core.group import group_of
from seqba.core.plan import Plan, PlanLike, parse_plan
from seqba.keying.keyed import is_keying, keying
from seqba.modules.walk import local_part, modules_of, parameters_of
from seqba.modules.wrappers import Replicas, check_model, module_names
from seqba.noise.compare import Comparison
from seqba.noise.context import noise_context
from seqba.noise.fork import Trunk
from seqba.noise.noise import Noise
from seqba.values import whole_number

Key = tuple[int, int, int]


class Update:
    """What the passes of an update have in common: the model, the key, and the processes around it.

    Args:
        model: any module, wrapped or not.
        seed: of the run.
        update: number of the update.
        micro_batch: number of the update's first micro-batch here.
        keyed: whether passes key what the model draws by torch's functions.
        forked: whether copies begin at `seqba.fork` inside the model.
        compared: whether the loss compares copies by `seqba.compare_copies`.
        seeded: whether passes seed torch's own generators in any case.

    Attributes:
        keys_draws: whether torch's functions draw keyed noise in the passes.

    Raises:
        TypeError: for an argument of another type.
        ValueError: as `check_model`, and for a fork or a comparison in a model whose parameters are sharded.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        seed: int,
        update: int,
        micro_batch: int,
        keyed: bool = False,
        forked: bool = False,
        compared: bool = False,
        seeded: bool = False,
    ) -> None:
        check_model(model)
        self.model = model
        self.seed = whole_number("seed", seed)
        self.update = whole_number("update", update)
        self.micro_batch = whole_number("micro_batch", micro_batch)
        self.keyed = keyed
        self.forked = forked
        self.compared = compared
        self.replicas = Replicas() if group_of(model) is not None else Replicas.of(model)
        is_sharded = group_of(model) is not None or self.replicas.is_sharded
        if forked and is_sharded:
            raise ValueError(
                "parameters in parts on several processes (FSDP) don't go with forked=True: processes would gather "
                "what is below the fork at different times; keep them whole, or take copies from the beginning"
            )
        if compared and is_sharded:
            raise ValueError(
                "parameters in parts on several processes (FSDP) don't go with compared=True: processes would gather "
                "them for different numbers of passes; keep them whole"
            )
        self.keys_draws = keyed or is_keying()
        self._seeded = seeded or compared or self.keys_draws or self.replicas.size > 1
        self._names = module_names(model)

    def noise(
        self,
        micro_batch: int,
        copies: range,
        rows: int | None = None,
        trunk: Trunk | None = None,
        *,
        copies_differ: bool = False,
        comparison: Comparison | None = None,
    ) -> Noise:
        """The noise of a pass of the update.

        Args:
            micro_batch: place of its micro-batch in the update, from 0.
            copies: which copies of it.
            rows: that the pass begins with, where they are known.
            trunk: of the micro-batch, in an update that forks.
            copies_differ: whether the copies came with rows of their own.
            comparison: of the micro-batch, in an update whose loss compares copies.
        """
        return Noise(
            self.seed,
            self.update,
            (self.micro_batch + micro_batch) * self.replicas.size + self.replicas.rank,  # other rows, other masks
            copies,
            self._names,
            rows,
            trunk,
            copies_differ=copies_differ,
            comparison=comparison,
        )

    @contextmanager
    def running(self, noise: Noise, *, exchanges: bool) -> Iterator[None]:
        """Inside, a forward and a backward are one pass of the update.

        Args:
            noise: of the pass.
            exchanges: whether a wrapper that takes means over processes does so in this backward: once an update.
        """
        with ExitStack() as stack:
            stack.enter_context(noise_context(noise))
            stack.enter_context(noise.ordinary() if self._seeded else noise.watching_ordinary())
            if self.keyed:
                stack.enter_context(keying())
            if not exchanges and self.replicas.synchronised:
                stack.enter_context(self.replicas.without_exchange())
            yield
        if self.keys_draws and noise.drew_ordinary and len(noise.pass_copies) > 1:
            _tell_of_unkeyed_draws(self.model)
        if noise.ambiguous is not None:
            _tell_of_ambiguous_draw(self.model, *noise.ambiguous, rows=(noise.rows or 0) // len(noise.copies))

    def warn_of_equal_copies(self) -> None:
        """Says so where nothing made the copies of an update differ: M times the work for the gradient of one."""
        modules = modules_of(self.model)
        is_off = not any(module.training for module in modules)
        reason = "the model is in evaluation mode" if is_off else "no dropout, nothing from torch's generators"
        _tell_once(
            self.model,
            "equal",
            f"nothing drew noise in this update ({reason}): its copies are equal, M times the work for the gradient of "
            f"one; {'call model.train()' if is_off else 'give the model noise, or leave copies out'}",
        )

    def warn_of_a_repeated_key(self, stacklevel: int) -> None:
        """Says so where masks come again after the weights have moved: a forgotten `update=`, which none would notice.

        To be called once an update, after its passes, if they drew noise.
        """
        key = (self.seed, self.update, self.micro_batch)
        sample = _sample_weights(self.model)
        known = _remembered(self.model)
        is_repeated = key == known.key and _differ(sample, known.sample)
        known.key, known.sample = key, sample
        if is_repeated:
            warnings.warn(
                "the weights have changed, but this update draws the same masks as the one before (seed "
                f"{self.seed}, update {self.update}, micro-batch {self.micro_batch}): pass update= with the number of "
                "the update",
                stacklevel=stacklevel + 1,
            )


def plan_for(model: nn.Module, plan: PlanLike) -> Plan:
    """`auto` measures each model once, not at every call; where passes go together, ranks can't each measure."""
    chosen = _remembered(model).plan if plan == "auto" else parse_plan(plan)
    return parse_plan("looped") if chosen.is_auto and group_of(model) is not None else chosen


class _Remembered:
    """What is kept of a model from one call to the next."""

    def __init__(self) -> None:
        self.plan = parse_plan("auto")
        self.key: Key | None = None
        self.sample: torch.Tensor | None = None
        self.told: set[str] = set()


# By identity: a model may define what it is equal to.
_models: WeakIdKeyDictionary = WeakIdKeyDictionary()


def _remembered(model: nn.Module) -> _Remembered:
    known: _Remembered = _models.setdefault(model, _Remembered())  # type: ignore[no-untyped-call]
    return known


def _tell_of_unkeyed_draws(model: nn.Module) -> None:
    _tell_once(
        model,
        "unkeyed",
        "the model draws noise that can't be keyed, so the stacked plan draws other noise than the looped one: "
        'seqba.check(model, batch, loss_fn) names it; plan="looped" is repeatable',
    )


def _tell_of_ambiguous_draw(model: nn.Module, name: str, shape: tuple[int, ...], rows: int) -> None:
    _tell_once(
        model,
        "ambiguous",
        f"{name or 'the model itself, or loss_fn,'} draws a tensor of shape {shape} for all rows, which looped passes, "
        f"of {rows} rows, take for numbers of theirs: so the stacked plan draws other noise than the looped one; name "
        "one plan, or draw it in a shape whose dimension 0 is no multiple of the rows",
    )


def _tell_once(model: nn.Module, kind: str, line: str) -> None:
    """Warns of something once for each model."""
    known = _remembered(model)
    if kind not in known.told:
        known.told.add(kind)
        warnings.warn(line, stacklevel=2)


def _sample_weights(model: nn.Module) -> torch.Tensor:
    """A few hundred weights of one parameter, which tell moved weights from unmoved ones; no GPU is asked for them."""
    trained = next((one for one in reversed(parameters_of(model)) if one.grad is not None), None)
    flat = torch.zeros(1) if trained is None else local_part(trained).detach().flatten()
    return flat[:: max(1, flat.numel() // 256)].clone()


def _differ(sample: torch.Tensor, before: torch.Tensor | None) -> bool:
    """Whether weights have moved; not told of those that went to another device in between."""
    return before is not None and before.device == sample.device and not torch.equal(before, sample)
