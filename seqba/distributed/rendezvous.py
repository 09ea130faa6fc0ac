"""Meeting of the processes of one start of a run, so that nothing of an earlier start gets in between."""

from __future__ import annotations

import os
import time
import uuid
from collections.abc import Callable
from datetime import timedelta

from torch.distributed import PrefixStore, Store, TCPStore  # type: ignore[attr-defined]

POLL_S = 0.01


def meet(timeout_s: float) -> tuple[Store, int, int] | None:
    """A store that this start of the run has for itself, where torchrun gives one to all starts.

    Torchrun keeps its store when it starts processes again (`--max-restarts`), and what torch finds there first are the
    addresses of the dead: https://github.com/pytorch/pytorch/issues/135712. Nor does its count of restarts tell starts
    apart, since every machine has its own.

    Args:
        timeout_s: how long a process waits for the others.

    Returns:
        The store, this process's rank and the number of ranks; None where the store is a new one anyway.

    Raises:
        TimeoutError: if one of the others doesn't come.
        RuntimeError: if torchrun's store can't be reached.
    """
    if os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != str(True):
        return None
    address, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    store = TCPStore(address, port, is_master=False, timeout=timedelta(seconds=timeout_s))
    rank, size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    return PrefixStore(agree(store, rank, size, timeout_s), store), rank, size


def agree(store: Store, rank: int, size: int, timeout_s: float) -> str:
    """A name for this start, which the first rank chooses.

    Every other rank writes down a word of its own, and takes the name that it finds under that word. The first rank
    answers every word that it hasn't seen, those of the dead as well, until all the others have come by the name.

    Args:
        store: that all have, with whatever earlier starts left there.
        rank: of this process.
        size: how many there are.
        timeout_s: how long each waits for another.

    Raises:
        TimeoutError: if one doesn't come.
    """
    own = uuid.uuid4().hex
    if rank > 0:
        store.set(f"seqba/word/{rank}", own)
        _wait(lambda: store.check([f"seqba/name/{own}"]), timeout_s, "rank 0 has not come")
        name: str = store.get(f"seqba/name/{own}").decode()
        store.set(f"seqba/came/{name}/{rank}", "")
        return name
    answered: set[bytes] = set()
    for other in range(1, size):

        def has_come(other: int = other) -> bool:
            key = f"seqba/word/{other}"
            if store.check([key]) and (word := store.get(key)) not in answered:
                answered.add(word)
                store.set(f"seqba/name/{word.decode()}", own)
            return bool(store.check([f"seqba/came/{own}/{other}"]))

        _wait(has_come, timeout_s, f"rank {other} has not come")
    return own


def _wait(until: Callable[[], bool], timeout_s: float, otherwise: str) -> None:
    """Looks again and again: a call that waits inside the store would hear no signal."""
    end = time.monotonic() + timeout_s
    while not until():
        if time.monotonic() > end:
            raise TimeoutError(otherwise)
        time.sleep(POLL_S)
