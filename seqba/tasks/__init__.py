"""Tasks: batches, their summed loss and their weight.

The protocols are all that updates, the loop and validation ask of a task. Beside them, setting up a run knows that
only a `seqba.tasks.translation.Translation` can be scored by BLEU.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeVar, runtime_checkable

from seqba.tasks.options import BatchOptions

if TYPE_CHECKING:  # options are read without torch
    from torch import Tensor, nn

    from seqba.core import Carry

Batch = TypeVar("Batch")
Batch_co = TypeVar("Batch_co", covariant=True)


Unit = Literal["tokens", "images"]
"""What a task predicts, and counts."""


class MicroBatches(Protocol[Batch_co]):
    """The planned batches of an epoch or a split, each made when it is asked for."""

    def __len__(self) -> int:
        """Number of batches."""
        ...

    def __getitem__(self, number: int, /) -> Batch_co:
        """Batch `number`, counting from 0: a flat dataclass of CPU tensors."""
        ...


@runtime_checkable
class CopiedMicroBatches(Protocol[Batch_co]):
    """Planned batches whose copies differ before a model sees them: each has subwords of its own, say."""

    def copied(self, number: int, copies: int, /) -> Batch_co:
        """Batch `number` as so many copies, copy-major: a copy's rows depend neither on the plan nor on the rank."""
        ...


class Task(Protocol[Batch]):
    """Interface of a task to updates, the loop and validation."""

    @property
    def unit(self) -> Unit:
        """Unit that `count` counts: predicted tokens, or images."""
        ...

    @property
    def carried(self) -> Carry | None:
        """State that each (micro-batch, copy) carries to the next update; None where examples are independent."""
        ...

    def state(self) -> dict[str, Any]:
        """Plain values that a checkpoint must agree with before training goes on from it (dictionaries, say)."""
        ...

    def epoch(self, epoch: int, micro_batches_per_update: int) -> MicroBatches[Batch]:
        """The training batches of the 1-based `epoch`: a function of (seed, epoch) alone.

        `micro_batches_per_update` consecutive ones make an update; a task whose micro-batches go on from update to
        update must know.
        """
        ...

    def validation(self, subset: str) -> MicroBatches[Batch]:
        """The batches of a validation split, the same at every call."""
        ...

    def loss(self, model: nn.Module, batch: Batch) -> tuple[Tensor, float, Mapping[str, Tensor]]:
        """Summed loss, its weight, and further sums over the units: {"nll": negative log-likelihood, …}; all in nats.

        Of images also "top1" and "top5": how many have their class among the likeliest one or five.
        """
        ...

    def weight(self, batch: Batch) -> float:
        """Divisor of a batch's loss, known without the model."""
        ...

    def count(self, batch: Batch) -> int:
        """Predicted tokens of a batch, or its images: the divisor of further sums."""
        ...

    def learning_rate_factor(self, batch: Batch) -> float:
        """Factor of an update's learning rate; 1 but for batches of unusual length."""
        ...


class RunnableTask(Task[Any], Protocol):
    """Interface of a task to what sets up a run."""

    batches: BatchOptions

    def resized(self, batches: BatchOptions) -> RunnableTask:
        """The same examples in micro-batches of another size."""
        ...

    def fingerprint(self, subset: str) -> str:
        """Digest of the data of a split, the same wherever they lie; see `seqba.data.fingerprint`."""
        ...
