"""Writes the tables of options in docs/fairseq.md from the command lines themselves.

python docs/fairseq_tables.py        # a test says when it is due
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from seqba.cli.fairseq_options import INFERENCE
from seqba.cli.fairseq_train import UNSUPPORTED
from seqba.cli.train import build_parser

PAGE = Path(__file__).resolve().with_name("fairseq.md")
BEGIN, END = "<!-- tables: begin (docs/fairseq_tables.py) -->", "<!-- tables: end -->"


def accepted() -> str:
    """The options of seqba-train by subject, each with its aliases."""
    rows = []
    for group in build_parser()._action_groups:
        options = [" ".join(f"`{flag}`" for flag in action.option_strings) for action in group._group_actions]
        if any(options):
            rows.append((group.title or "", ", ".join(filter(None, options))))
    return table(("subject", "options of seqba-train"), rows)


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
            "### Refused by `seqba-train`",
            f"{len(UNSUPPORTED)} options:",
            refused(UNSUPPORTED),
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
