"""Options of a training run: format and places of the log."""

from __future__ import annotations

from seqba.data.names import name_text
from seqba.errors import UserError, quoted
from seqba.options import option, options

TRACKERS = ("wandb", "mlflow", "trackio")
"""What a run may report to; also the names of their packages."""


@options
class LogOptions:
    """Format and places of the log."""

    log_format: str | None = option(
        None,
        "json (a line per log-interval), simple, tqdm (a bar) or none; default: a bar on a terminal, else json",
        choices=("json", "simple", "tqdm", "none"),
    )
    log_interval: int = option(100, "updates per line", minimum=1)
    log_file: str | None = option(
        None, "append the JSON lines to this file as well; log.jsonl in --save-dir has them anyway", metavar="FILE"
    )
    no_progress_bar: bool = option(False, "no bar: simple lines on a terminal")
    measure_every: int = option(
        0,
        "every so many updates, log the variance of the gradient: that of the noise (needs 2 copies), that between "
        "examples (needs 2 micro-batches), from the passes of that update, which are looped; 0 = never (not in "
        "fairseq)",
        minimum=0,
    )
    tensorboard_logdir: str | None = option(
        None, "write TensorBoard events there (needs the tensorboard package)", metavar="DIR"
    )
    report_to: str | None = option(
        None,
        "report the numbers of the log to wandb, mlflow or trackio, by their packages; several separated by commas "
        "(not in fairseq)",
        metavar="NAME[,NAME]",
    )
    report_project: str = option("seqba", "report-to: the project, or experiment, there (not in fairseq)")
    wandb_project: str | None = option(None, "report to wandb, as a run of this project", metavar="NAME")

    def __post_init__(self) -> None:
        """Refuses a tracker that there is none of, and a name that TensorBoard doesn't take."""
        for name in self.trackers:
            if name not in TRACKERS:
                hint = "; TensorBoard's is --tensorboard-logdir" if name == "tensorboard" else ""
                raise UserError(f"--report-to is {quoted(name)}; choose among: {', '.join(TRACKERS)}{hint}")
        folder = self.tensorboard_logdir
        if folder is not None and folder != name_text(folder):
            raise UserError(
                f"--tensorboard-logdir {folder}: TensorBoard takes names in UTF-8 alone; choose another one"
            )

    @property
    def trackers(self) -> tuple[str, ...]:
        """Names of what a run reports to, each once."""
        named = [] if self.report_to is None else self.report_to.split(",")
        if self.wandb_project is not None:
            named.append("wandb")
        return tuple(dict.fromkeys(named))
