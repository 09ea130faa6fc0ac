"""Batch Augmentation in Hugging Face's Trainer: every batch M times per update, each time under noise of its own."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from seqba.core import copies as passes_of
from seqba.core.copy_passes import CopyPass
from seqba.extras import needed
from seqba.modules.gradients import GradientsAsTheyAre
from seqba.rows.nested import own_parts
from seqba.values import described, number_of_copies, whole_number

for package in ("transformers", "accelerate"):
    needed(package, "seqba.integrations.transformers")

from transformers import Trainer, TrainerCallback, TrainerState, TrainingArguments  # noqa: E402
from transformers.trainer_callback import ExportableState  # noqa: E402
from transformers.training_args import OptimizerNames  # noqa: E402


def batch_augmented(
    trainer_class: type[Trainer], copies: int = 4, seed: int | None = None, *, forked: bool = False
) -> type[Trainer]:
    """Makes of a Trainer class one whose every update sees each example `copies` times, each time through other noise.

        trainer = batch_augmented(Seq2SeqTrainer, copies=4)(model=model, args=args, train_dataset=dataset)

    An update's gradient is the mean over the copies: learning rate, schedule, number of updates, accumulation, label
    smoothing, `compute_loss_func` and `num_items_in_batch` stay what they are. The copies of a batch run one after
    the other, so that memory stays what it is as well, and a training step takes `copies` times as long.

    The noise of a copy is keyed by (seed, update, micro-batch, copy, place in the model) as in
    `seqba.merged_gradient`, also where a model uses torch's own dropout: a resumed run goes on with the masks that it
    would have had, and two processes draw what one process with two accumulation steps draws.

    Logs have `distinct_tokens` and `processed_tokens` beside the loss: the labels seen so far over all processes (those
    of -100 aren't counted), and `copies` times as many. Labels of one dimension are classes of whole rows: then they
    are `distinct_rows` and `processed_rows`; batches without `labels` aren't counted.

    Args:
        trainer_class: Trainer, Seq2SeqTrainer or a subclass of theirs. A `training_step` of its own goes in here, and
            calls `self.accelerator.backward`; `compute_loss` may also be defined in a class derived from the result.
        copies: M, noisy views of each example; 1 keeps the gradient and keys the noise.
        seed: of the noise; None takes that of the training arguments.
        forked: whether copies begin inside the model, where it calls `seqba.fork`: what is below is computed once.

    Returns:
        A subclass of `trainer_class`, to be made and used as that is.

    Raises:
        TypeError: for something that isn't a Trainer class, or copies that aren't a whole number.
        ValueError: for copies < 1, or a class that has copies already.

    Where training can't have copies, `train` raises ValueError: on several GPUs in one process (DataParallel), under
    tensor, context or sequence parallelism, with optimizers that step within the backward (LOMO, layerwise GaLore), and
    with a class whose steps take rows from a buffer (TRL's GRPOTrainer). DeepSpeed and Liger kernels weren't tried,
    which it says as a warning.

    Source: Hoffer et al. 2020, section 2, the modified learning rule.
    """
    if not (isinstance(trainer_class, type) and issubclass(trainer_class, Trainer)):
        raise TypeError(
            f"trainer_class must be transformers.Trainer or a subclass of it, not {described(trainer_class)}"
        )
    if issubclass(trainer_class, BatchAugmentationMixin):
        raise ValueError(f"{trainer_class.__name__} has {trainer_class.copies} copies already")
    copies = number_of_copies(copies)
    settings = {
        "copies": copies,
        "copies_forked": forked,
        "copies_seed": None if seed is None else whole_number("seed", seed),
        "__doc__": f"{trainer_class.__name__} whose every update sees each example {copies} times.",
        "__module__": __name__,
    }
    return type(f"BatchAugmented{trainer_class.__name__}", (BatchAugmentationMixin, trainer_class), settings)


class BatchAugmentationMixin(Trainer):
    """Mixin that `batch_augmented` puts before a Trainer class.

    Attributes:
        copies: M.
        copies_seed: of the noise; None for that of the training arguments.
        copies_forked: whether copies begin inside the model.
    """

    copies: int
    copies_forked: bool
    copies_seed: int | None

    def train(self, *args: Any, **kwargs: Any) -> Any:
        """Trains as the Trainer does, after a look for what copies don't go together with."""
        self._check_training()
        if self._progress is None:
            self.add_callback(BatchAugmentationCallback())
        return super().train(*args, **kwargs)

    def training_step(
        self, model: nn.Module, inputs: dict[str, Any], num_items_in_batch: Tensor | int | None = None
    ) -> Tensor:
        """Runs forward and backward of every copy; returns the mean of their losses, scaled as the Trainer's own."""
        progress = self._progress
        progress.has_copies = True
        syncs = self.accelerator.sync_gradients
        loss = torch.zeros((), device=self.args.device)
        for pass_ in self._passes(model, ends_update=syncs):
            with self._exchange_put_off(model, syncs and not pass_.is_last), pass_, self._divided_backward(model):
                # Inputs of its own for each copy: a Trainer may take things out, and a model mask them in place.
                of_copy = super().training_step(model, own_parts(dict(inputs)), num_items_in_batch)
            loss = loss + of_copy / self.copies
        progress.count(inputs.get("labels"))
        if syncs:
            progress.add_up(self.accelerator, self.copies)
        return loss

    def log(self, logs: dict[str, float], *args: Any, **kwargs: Any) -> None:
        """Logs what the Trainer does, and beside a training loss how much has been seen."""
        if self._progress is not None and ("loss" in logs or "train_loss" in logs):
            logs.update(self._progress.metrics())
        super().log(logs, *args, **kwargs)

    def _passes(self, model: nn.Module, *, ends_update: bool) -> Iterator[CopyPass]:
        micro_batch = self._progress.micro_batch
        if self.is_deepspeed_enabled:  # the core knows whose rows are whose under DDP and FSDP, not in its engine
            model = self.accelerator.unwrap_model(model)
            micro_batch = micro_batch * self.accelerator.num_processes + self.accelerator.process_index
        return passes_of(
            model,
            self.copies,
            update=self.state.global_step + 1,
            micro_batch=micro_batch,
            seed=self.args.seed if self.copies_seed is None else self.copies_seed,
            exchange=ends_update,
            end_update=ends_update,
            forked=self.copies_forked,
        )

    @contextmanager
    def _divided_backward(self, model: nn.Module) -> Iterator[None]:
        """Inside, the loss of a copy goes into the backward divided by M, whatever has computed it."""
        accelerator, backwards = self.accelerator, 0
        gradients = GradientsAsTheyAre(model)
        before, undivided = vars(accelerator).get("backward"), accelerator.backward

        def backward(loss: Tensor, *args: Any, **kwargs: Any) -> None:
            nonlocal backwards
            backwards += 1
            undivided(loss / self.copies, *args, **kwargs)

        accelerator.backward = backward
        try:
            yield
        finally:
            if before is None:
                del accelerator.backward
            else:
                accelerator.backward = before
        if backwards:
            return
        if gradients.have_changed() or self.is_deepspeed_enabled:  # whose engine keeps gradients out of sight
            raise TypeError(
                f"{type(self).__name__} computes its gradient without accelerator.backward, so that it isn't divided "
                "by the copies: let training_step call self.accelerator.backward(loss)"
            )
        if accelerator.num_processes > 1:
            raise TypeError(
                f"{type(self).__name__} left a batch out, without accelerator.backward, in which processes exchange "
                "the gradients of all copies: let every training_step call it"
            )

    @property
    def _progress(self) -> Any:
        # Looked up each time: a resumed run may have made its callbacks anew.
        found = (one for one in self.callback_handler.callbacks if isinstance(one, BatchAugmentationCallback))
        return next(found, None)

    @contextmanager
    def _exchange_put_off(self, model: nn.Module, put_off: bool) -> Iterator[None]:
        """Inside, where `put_off`, gradients stay on their process (FSDP's too), and Accelerate expects more."""
        if not put_off:
            yield
            return
        state = self.accelerator.gradient_state
        every_pass = state.plugin_kwargs.get("sync_each_batch", False)
        state._set_sync_gradients(False)
        try:
            with nullcontext() if every_pass else self.accelerator.no_sync(model):
                yield
        finally:
            state._set_sync_gradients(True)

    def _check_training(self) -> None:
        args = self.args
        if args.n_gpu > 1:
            raise ValueError(
                f"{args.n_gpu} GPUs in one process (DataParallel) share no keyed noise: start one process for each "
                f"(torchrun --nproc-per-node {args.n_gpu} …), or show it one GPU (CUDA_VISIBLE_DEVICES=0)"
            )
        parallel = {"tensor": self.get_tp_size(), "context": self.get_cp_size(), "sequence": self.get_sp_size()}
        for kind, size in parallel.items():
            if size > 1:
                raise ValueError(f"copies don't go together with {kind} parallelism (here {size}): take DDP or FSDP")
        layerwise = args.optim.value.endswith("layerwise")  # GaLore's and APOLLO's
        if layerwise or args.optim in (OptimizerNames.LOMO, OptimizerNames.ADALOMO):
            raise ValueError(
                f"optim={args.optim.value} steps within the backward, of each copy: take another optimizer"
            )
        if self.copies > 1 and hasattr(self, "_buffered_inputs"):
            raise ValueError(
                f"{type(self).__name__} takes rows from a buffer in each training_step (as TRL's GRPOTrainer does), so "
                "that every copy would see others: train it without copies"
            )
        if self.is_deepspeed_enabled:
            warnings.warn("copies under DeepSpeed weren't tried", stacklevel=3)
        if args.use_liger_kernel:
            warnings.warn("copies with Liger kernels weren't tried", stacklevel=3)


class BatchAugmentationCallback(TrainerCallback, ExportableState):
    """Which micro-batch of an update the next one is, and how much has been seen; kept in the Trainer's checkpoints.

    Attributes:
        micro_batch: number of the next micro-batch in its update, from 0.
        distinct: labels seen so far, over all processes.
        processed: the same, each copy by itself.
        has_copies: whether any have run.
    """

    def __init__(self) -> None:
        self.micro_batch = 0
        self.has_copies = False
        self._begin()

    def _begin(self, distinct: int = 0, processed: int = 0, unit: str = "") -> None:
        self.distinct: Tensor | int = distinct
        self.processed: Tensor | int = processed
        self.unit = unit
        self._of_update: list[Tensor] = []

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: Any, **kwargs: Any) -> None:
        """Begins to count, or goes on from the numbers of a checkpoint."""
        self._begin()
        name = type(self).__name__
        if state.global_step and name in state.stateful_callbacks:
            self._begin(**state.stateful_callbacks[name]["attributes"])
        state.stateful_callbacks[name] = self.state()  # a plain Trainer's checkpoint has none

    def on_step_begin(self, args: TrainingArguments, state: TrainerState, control: Any, **kwargs: Any) -> None:
        """An update begins."""
        self.micro_batch = 0

    def on_substep_end(self, args: TrainingArguments, state: TrainerState, control: Any, **kwargs: Any) -> None:
        """A micro-batch ends that isn't its update's last."""
        self.micro_batch += 1

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: Any, **kwargs: Any) -> None:
        """An update ends; warns, once, where no copies ran in it."""
        if not self.has_copies:
            self.has_copies = True
            warnings.warn(
                "no copies ran in this update: a training_step in a class derived from batch_augmented's must call "
                "super().training_step; one that computes everything itself goes into batch_augmented",
                stacklevel=2,
            )

    def count(self, labels: object) -> None:
        """Takes the labels of a micro-batch of this process: (B, T) tokens or (B,) classes; -100 counts nothing."""
        if isinstance(labels, Tensor):
            self.unit = "tokens" if labels.dim() > 1 else "rows"
            self._of_update.append(labels.ne(-100).sum())

    def add_up(self, accelerator: Any, copies: int) -> None:
        """Adds the update's labels up over the processes; a conversation of all of them."""
        if self._of_update:
            counted = accelerator.reduce(torch.stack(self._of_update).sum())
            self.distinct = self.distinct + counted
            self.processed = self.processed + copies * counted
            self._of_update = []

    def metrics(self) -> dict[str, int]:
        """Metrics for a log line; none where batches have no labels."""
        if not self.unit:
            return {}
        return {f"distinct_{self.unit}": int(self.distinct), f"processed_{self.unit}": int(self.processed)}

    def state(self) -> dict[str, Any]:
        """State for a checkpoint."""
        counted = {"distinct": int(self.distinct), "processed": int(self.processed), "unit": self.unit}
        return {"args": {}, "attributes": counted}
