"""First lines of a run's log: its model, its updates, its end, its files."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from seqba.nn.kernels.attention import LONGEST_KEYS, SHORT_ROWS, suits_writing_out
from seqba.nn.kernels.products import describe_products
from seqba.tasks.options import BatchOptions
from seqba.training.arms import GridShape
from seqba.training.options import TrainingOptions
from seqba.training.options.grid import CopySchedule


def announce(
    *,
    arch: str,
    parameters: int,
    device: torch.device,
    ranks: int,
    grid: GridShape,
    batches: BatchOptions,
    options: TrainingOptions,
) -> list[str]:
    """First lines of a run's log.

    Args:
        arch: name of the architecture.
        parameters: how many the model has.
        device: that this process computes on.
        ranks: how many processes there are.
        grid: micro-batches and copies of an update, in this arm.
        batches: the size of a micro-batch in this arm.
        options: the plan, the limits, and where files go.
    """
    threads = f" with {_counted(torch.get_num_threads(), 'thread')}" if device.type == "cpu" else ""
    several = f", {ranks} ranks" if ranks > 1 else ""
    sizes = {"tokens": batches.max_tokens, "rows": batches.batch_size}
    size = " and ".join(f"{count:,} {unit}" for unit, count in sizes.items() if count is not None)
    shape = f"{_micro_batches(grid.micro_batches_per_epoch)} of at most {size} × {_copies(grid.copies)}"
    is_single = grid.copies.most == 1 and max(grid.micro_batches_per_epoch) == 1
    return [
        f"{arch}: {parameters:,} parameters, on {device.type}{threads}{several}",
        f"an update: {shape} (--arm {options.grid.arm}, --plan {options.grid.plan})",
        f"{_until(options)}; {_where(options)}",
        *_without_rate(options),
        *(["layers are compiled: the first updates wait for it"] if options.run.compile else []),
        *_averaged(options),
        *_measured(options.log.measure_every, is_single=is_single),
    ]


def describe_arithmetic(
    precision: torch.dtype | None, *, attention_dropout: float | None, compiled: bool = False
) -> str:
    """How a CPU computes, which the processor's vendor and features decide: a line of the log, and of `run.json`.

    Args:
        precision: dtype of the passes under autocast; None for float32.
        attention_dropout: on the weights of the model's attention in training; None for a model without attention.
        compiled: whether its layers are compiled, which then multiply as torch's compiler has it.
    """
    dtype = precision or torch.float32
    name = str(dtype).removeprefix("torch.")
    products = (
        f"products in {name} by {describe_products(dtype)}{', of compiled layers by torch.mm' if compiled else ''}"
    )
    if attention_dropout is None:
        return products
    return f"{products}; attention is {_describe_attention(dtype, attention_dropout)}"


def _describe_attention(dtype: torch.dtype, dropout: float) -> str:
    """How training passes on a CPU compute attention, as `seqba.models.attention` decides."""
    if dropout > 0:
        return "written out, for its keyed dropout"
    if suits_writing_out(torch.empty(0, dtype=dtype), keys=1):
        return f"written out over up to {LONGEST_KEYS} keys, beyond them torch's fused one"
    if suits_writing_out(torch.empty(0, dtype=dtype), SHORT_ROWS.start):
        return f"written out over {SHORT_ROWS.start} to {SHORT_ROWS.stop - 1} keys, else torch's fused one"
    return "torch's fused one"


def _counted(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def _micro_batches(per_epoch: Sequence[int]) -> str:
    if len(per_epoch) == 1:
        return _counted(per_epoch[0], "micro-batch") if per_epoch[0] == 1 else f"{per_epoch[0]:,} micro-batches"
    return f"{', '.join(map(str, per_epoch))} (by epoch) micro-batches"


def _copies(schedule: CopySchedule) -> str:
    first, *later = ("1 copy" if copies == 1 else f"{copies:,} copies" for copies in schedule.copies)
    changes = (f", {copies} from update {start:,} on" for copies, start in zip(later, schedule.starts[1:], strict=True))
    return first + "".join(changes)


def _until(options: TrainingOptions) -> str:
    limits = {
        "update": options.run.max_update,
        "baseline's epoch": options.run.max_epoch,
        "hour": options.run.stop_time_hours,
    }
    shown = [f"{noun} {limit:,g}" for noun, limit in limits.items() if limit > 0]
    return f"until {' or '.join(shown)}" if shown else "until it is stopped"


def _without_rate(options: TrainingOptions) -> list[str]:
    """Tells of updates at a learning rate of 0, which take as long as others and move nothing."""
    schedule, last = options.schedule, options.run.max_update
    falls_to_zero = schedule.lr_scheduler == "polynomial_decay" and schedule.end_learning_rate == 0
    end = schedule.total_num_update
    if not falls_to_zero or end is None or 0 < last <= end:
        return []
    return [
        f"the learning rate is 0 from update {end:,} on (--total-num-update): --max-update {end} ends the run there"
    ]


def _averaged(options: TrainingOptions) -> list[str]:
    optimisation = options.optimisation
    if not optimisation.store_ema:
        return []
    return [
        f"the average of the weights (--ema-decay {optimisation.ema_decay:g}) is validated, kept and read by other "
        "commands"
    ]


def _measured(every: int, *, is_single: bool) -> list[str]:
    if not every:
        return []
    if is_single:
        return ["an update of this arm is a single pass, which shows no variance: --measure-every measures nothing"]
    return [f"every {_counted(every, 'update')} the variance of the gradient is measured"]


def _where(options: TrainingOptions) -> str:
    if options.checkpoints.no_save:
        return "nothing is kept (--no-save)"
    return f"checkpoints, config.toml and log.jsonl in {options.checkpoints.save_dir}"
