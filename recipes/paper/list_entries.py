"""The list of `recipes/paper.sh`, on any Python: `list_entries.py [NAME]`; with a name, the folder of its runs."""

from __future__ import annotations

import difflib
import signal
import sys
import textwrap

from entries import ENTRIES
from entry import FLOP_PER_PRODUCT, GPU, GPU_FLOPS, NETWORKS, Entry


def described(entry: Entry) -> str:
    """Name, place, figures, cost and command, on a line each."""
    digits = 1 if entry.unit == "perplexity" else 2
    figures = "; ".join(f"{what} {figure:.{digits}f}" for what, figure in entry.paper.items())
    paper = f"{figures} ({entry.unit})" if figures else "a picture without figures"
    lines = [
        f"{entry.name:<30} {entry.place}: {entry.title}",
        textwrap.fill(paper, 120, initial_indent="    paper    ", subsequent_indent=" " * 13, break_long_words=False),
        f"    cost     {entry.flop:.1e} FLOP, {_hours(entry.gpu_hours)} at {NETWORKS[entry.network].share:.0%}",
        *(f"    command  bash recipes/{command}" for command in entry.commands),
        *((f"    picture  seqba-plot {entry.plot}",) if entry.plot else ()),
    ]
    return "\n".join(lines)


def _hours(hours: float) -> str:
    return f"{hours:.1f} hours" if hours < 10 else f"{hours:,.0f} hours"


def main(names: list[str]) -> int:
    """Prints the list, or a folder."""
    for name in names:
        if name not in ENTRIES:
            close = difflib.get_close_matches(name, ENTRIES, cutoff=0.4)
            nearest = f"; is it {' or '.join(close)}?" if close else ""
            print(f"error: --row: there is no '{name}' in --list{nearest}", file=sys.stderr)
            return 2
        print(ENTRIES[name].folder or name)
    if not names:
        print(
            f"Cost of the whole, all arms: {FLOP_PER_PRODUCT} FLOP for each multiply-add of a forward (forward and "
            f"backward), and hours of {GPU}\nat a share of its {GPU_FLOPS / 1e12:.0f} TFLOP/s (bfloat16). The shares "
            "are assumed, the multiply-adds counted.\n"
        )
        print("\n\n".join(map(described, ENTRIES.values())))
    return 0


if __name__ == "__main__":
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # `--list | head` is no fault
    sys.exit(main(sys.argv[1:]))
