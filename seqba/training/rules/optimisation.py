"""Rules of the optimizer and of what it averages."""

from __future__ import annotations

from seqba.errors import UserError
from seqba.options import flag_of, is_given
from seqba.training.config import RunConfig
from seqba.training.options import OptimisationOptions
from seqba.training.options.optimisation import OWN_OPTIONS


def check_optimizer(optimisation: OptimisationOptions) -> None:
    """Refuses options of another optimizer."""
    for owner, names in OWN_OPTIONS.items():
        given = [flag_of(name) for name in names if is_given(optimisation, name)]
        if given and owner != optimisation.optimizer:
            raise UserError(f"{given[0]} belongs to --optimizer {owner}, not {optimisation.optimizer}")


SWITCHED = {
    "fp16": ("fp16_init_scale", "fp16_scale_window"),
    "store_ema": ("ema_decay", "ema_start_update", "ema_update_freq"),
    "weight_decay_until": ("weight_decay_unit",),
}
"""Options of the optimisation that do nothing without another one."""


def check_optimisation(config: RunConfig) -> None:
    """Refuses options without the one that they belong to, and pairs that exclude each other."""
    optimisation = config.training.optimisation
    for owner, names in SWITCHED.items():
        for name in names:
            if is_given(optimisation, name) and not is_given(optimisation, owner):
                raise UserError(f"{flag_of(name)} belongs to {flag_of(owner)}, which isn't given")
    if optimisation.fp16 and config.training.run.shard_params:
        raise UserError("--fp16 scales losses, which --shard-params excludes: take --bf16")
    if optimisation.fp16 and config.training.log.measure_every:
        raise UserError("--fp16 scales gradients, which --measure-every would measure: take --bf16")
    if optimisation.store_ema and optimisation.optimizer == "nt_asgd":
        raise UserError("--store-ema averages the weights, and so does --optimizer nt_asgd: leave one out")
    for name in ("weight_decay_until", "weight_decay_on"):
        if is_given(optimisation, name) and not optimisation.weight_decay:
            raise UserError(f"{flag_of(name)} is of a decay that there isn't: give --weight-decay")
