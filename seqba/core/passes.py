"""One pass of an update: under whose noise a forward and a backward run, and with whom they exchange gradients."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from torch import nn

from seqba.group import group_of
from seqba.keying.keyed import is_keying, keying
from seqba.modules.wrappers import Replicas, check_model, module_names
from seqba.noise.compare import Comparison
from seqba.noise.context import noise_context
from seqba.noise.fork import Trunk
from seqba.noise.noise import Noise
from seqba.noise.repeated import gradient_to_add_to, is_repeated
from seqba.noise.telling import warn_of_draws
from seqba.values import whole_number


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
        group = group_of(model)
        self.replicas = Replicas.of(model) if group is None else Replicas()
        is_sharded = group is not None or self.replicas.is_sharded
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
        self._key = (self.seed, self.update, self.micro_batch)
        self._added_to = gradient_to_add_to(model, self._key)

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
        if self.keys_draws:
            warn_of_draws(self.model, noise)

    def warn_of_a_repeated_key(self, stacklevel: int) -> None:
        """Says so where masks come again: a forgotten `update=` or `micro_batch=`, which none would notice.

        To be called once an update, after its passes, if they drew noise.
        """
        key = f"(seed {self.seed}, update {self.update}, micro-batch {self.micro_batch})"
        if is_repeated(self.model, self._key):
            warnings.warn(
                f"the weights have changed, but this update draws the same masks as the one before {key}: pass "
                "update= with the number of the update",
                stacklevel=stacklevel + 1,
            )
        elif self._added_to is not None and self._added_to.any():
            warnings.warn(
                f"this gradient was added to that of a call before, which drew the same masks {key}: give each "
                "micro-batch of an update its number, micro_batch=0, 1, …, or clear the gradient in between",
                stacklevel=stacklevel + 1,
            )
