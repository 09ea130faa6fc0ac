"""What the passes of an update have in common: the model, the key of their noise, and the processes around it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from torch import nn

from seqba.group import ALONE, Group, group_of
from seqba.keying.keyed import is_keying, keying
from seqba.modules.wrappers import Replicas, check_model, has_processes, module_names
from seqba.noise.compare import Comparison
from seqba.noise.context import noise_context
from seqba.noise.fork import Trunk
from seqba.noise.noise import Noise
from seqba.noise.ordinary import ordinary_noise
from seqba.noise.telling import NoiseWarnings
from seqba.values import described, whole_number


class Update:
    """What the passes of an update have in common, whatever its grid: the model, the key, the processes around it.

    Args:
        model: any module, wrapped or not.
        seed: of the run.
        update: number of the update.
        micro_batch: number of the update's first micro-batch here.
        ranks: the processes that share the cells; None for this process alone.
        keyed: whether passes key what the model draws by torch's functions.
        forked: whether copies begin at `seqba.fork` inside the model.
        compared: whether the loss compares copies by `seqba.compare_copies`.
        replicated: whether batches hold M·B rows already, copy-major, which may differ from copy to copy.
        seeded: whether passes seed torch's own generators in any case.

    Attributes:
        group: the processes that share the cells.
        is_sharded: whether parameters are in parts on several processes, by seqba or by torch's FSDP.
        keys_draws: whether torch's functions draw keyed noise in the passes.
        warnings: of what the passes draw.

    Raises:
        TypeError: for an argument of another type.
        ValueError: as `check_model`; for a group that would add up the model's gradients wrongly; for a fork of
            replicated batches; and for a fork or a comparison in a model whose parameters are sharded.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        seed: int,
        update: int,
        micro_batch: int = 0,
        ranks: Group | None = None,
        keyed: bool = False,
        forked: bool = False,
        compared: bool = False,
        replicated: bool = False,
        seeded: bool = False,
    ) -> None:
        check_model(model)
        self.model = model
        self.seed = whole_number("seed", seed)
        self.update = whole_number("update", update)
        self.micro_batch = whole_number("micro_batch", micro_batch)
        if ranks is not None and not isinstance(ranks, Group):
            raise TypeError(f"ranks must be a seqba.Ranks (Ranks.of()), not {described(ranks)}")
        self.group = ALONE if ranks is None else ranks
        self.group.check_model(model)
        self.keyed = keyed
        self.forked = forked
        self.compared = compared
        self.replicated = replicated
        is_ours = group_of(model) is not None
        self.replicas = Replicas() if is_ours else Replicas.of(model)
        self._has_processes = has_processes()
        self.keys_draws = keyed or is_keying()
        self.warnings = NoiseWarnings(model, (self.seed, self.update, self.micro_batch), keyed=self.keys_draws)
        is_shared = self.group is not ALONE or self.replicas.size > 1
        self._seeded = seeded or compared or self.keys_draws or is_shared
        self._names = module_names(model)
        self.is_sharded = is_ours or self.replicas.is_sharded
        self._check()

    def noise(
        self,
        micro_batch: int,
        copies: range,
        rows: int | None = None,
        trunk: Trunk | None = None,
        comparison: Comparison | None = None,
    ) -> Noise:
        """The noise of a pass of the update.

        Args:
            micro_batch: place of its micro-batch in the update, from 0.
            copies: which copies of it.
            rows: that the pass begins with, where they are known.
            trunk: of the micro-batch, in an update that forks.
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
            copies_differ=self.replicated,
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
            stack.enter_context(ordinary_noise(noise, seeded=self._seeded))
            if self.keyed:
                stack.enter_context(keying())
            if self._has_processes:
                stack.enter_context(self.replicas.running(self.model, exchanges=exchanges, sharded=self.is_sharded))
            yield

    def _check(self) -> None:
        if self.forked and self.replicated:
            raise ValueError(
                "a replicated batch has copies from the beginning, and with forked=True they begin inside the model: "
                "pass the batch with each example once"
            )
        if self.group is not ALONE and self.replicas != Replicas():
            raise ValueError(
                "the model is wrapped to take means over processes (DistributedDataParallel, FSDP), which ranks= would "
                "take again: pass the model itself (model.module) with ranks=, or leave ranks= out"
            )
        if self.forked and self.is_sharded:
            raise ValueError(
                "parameters in parts on several processes (FSDP) don't go with forked=True: processes would gather "
                "what is below the fork at different times; keep them whole, or take copies from the beginning"
            )
        if self.compared and self.is_sharded:
            raise ValueError(
                "parameters in parts on several processes (FSDP) don't go with compared=True: processes would gather "
                "them for different numbers of passes; keep them whole"
            )
