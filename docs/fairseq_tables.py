"""Writes the tables of options in docs/fairseq.md from the command lines themselves.

python docs/fairseq_tables.py        # a test says when it is due
"""

from __future__ import annotations

from argparse import SUPPRESS
from collections.abc import Iterable
from pathlib import Path

from seqba.cli import eval_lm, fairseq_train, translator_options
from seqba.cli.arguments import Accepted
from seqba.cli.fairseq_options import INFERENCE
from seqba.cli.fairseq_train import UNSUPPORTED, UNSUPPORTED_VALUES
from seqba.cli.train import build_parser

PAGE = Path(__file__).resolve().with_name("fairseq.md")
BEGIN, END = "<!-- tables: begin (docs/fairseq_tables.py) -->", "<!-- tables: end -->"


def accepted() -> str:
    """The options of seqba-train by subject, each with its aliases."""
    rows, parser = [], build_parser()
    for group in parser._action_groups:
        actions = (action for action in group._group_actions if action.help != SUPPRESS)
        options = [" ".join(f"`{flag}`" for flag in action.option_strings) for action in actions]
        if any(options):
            rows.append((group.title or "", ", ".join(filter(None, options))))
    return table(("subject", "options of seqba-train"), rows)


def without_effect(options: dict[str, Accepted]) -> str:
    """Options that are taken and change nothing, by the reason."""
    reasons: dict[str, list[str]] = {}
    for flag, option in options.items():
        reasons.setdefault(option.reason, []).append(f"`{flag}`" + (f" {option.choices[0]}" if option.choices else ""))
    return table(("why", "options"), ((reason, ", ".join(flags)) for reason, flags in reasons.items()))


def refused_values(values: dict[str, dict[str, str]]) -> str:
    """Values that are refused, by what the error says of them."""
    messages: dict[str, list[str]] = {}
    for flag, instead in values.items():
        for value, message in instead.items():
            messages.setdefault(message, []).append(f"`{flag} {value}`")
    return table(
        ("what the error says", "values"), ((message, ", ".join(names)) for message, names in messages.items())
    )


def refused(messages: dict[str, str]) -> str:
    """Options that are refused, by what the error says of them."""
    options: dict[str, list[str]] = {}
    for option, message in messages.items():
        options.setdefault(message, []).append(f"`{option}`")
    return table(
        ("what the error says", "options"), ((message, ", ".join(names)) for message, names in options.items())
    )


def table(head: tuple[str, str], rows: Iterable[tuple[str, str]]) -> str:
    """A Markdown table of two columns."""
    return "\n".join(
        f"| {left.replace('|', chr(92) + '|')} | {right} |" for left, right in (head, ("---", "---"), *rows)
    )


def tables() -> str:
    """Everything between the two marks of the page."""
    return "\n\n".join(
        [
            BEGIN,
            "### Accepted by `seqba-train`",
            accepted(),
            "### Accepted by `seqba-train`, without effect",
            without_effect(fairseq_train.ACCEPTED),
            "`--num-workers` is an option for pictures, and without effect for text.",
            "### Refused by `seqba-train`",
            f"{len(UNSUPPORTED)} options:",
            refused(UNSUPPORTED),
            "Values of options:",
            refused_values(UNSUPPORTED_VALUES),
            "### Accepted by the commands that read checkpoints, without effect",
            "`seqba-generate` and `seqba-interactive`:",
            without_effect(translator_options.ACCEPTED),
            "`seqba-eval-lm`:",
            without_effect(eval_lm.ACCEPTED),
            "### Refused by the commands that read checkpoints",
            f"{len(INFERENCE)} options are refused by `seqba-generate`, `seqba-interactive` and `seqba-eval-lm` alike, "
            "unless one of them has the option:",
            refused(INFERENCE),
            END,
        ]
    )


def page() -> str:
    """The whole page with its tables as they should be."""
    before, rest = PAGE.read_text(encoding="utf-8").split(BEGIN)
    return before + tables() + rest.split(END)[1]


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
