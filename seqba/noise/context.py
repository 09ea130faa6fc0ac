"""The current noise of the process: that of the pass which it is computing."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

from seqba.noise.noise import Noise
from seqba.noise.sites import Calls, in_backward, watching_the_generator

_current: Noise | None = None  # A plain global: CUDA's backward threads, which may recompute a layer, must see it too.
_thread: int | None = None  # which thread made it current
_lock = threading.Lock()


def current_noise() -> Noise | None:
    """The noise of the pass that is being computed, or None outside an update."""
    return _current


def is_in_the_pass() -> bool:
    """Whether the calling thread is computing the current pass: its own thread, or one of a backward's."""
    return threading.get_ident() == _thread or in_backward()


@contextmanager
def noise_context(noise: Noise | None) -> Iterator[Noise | None]:
    """Makes `noise` current; contexts nest, and None means ordinary, unkeyed noise inside.

    Raises:
        RuntimeError: where another thread has made a noise current: there is one for the process.
    """
    global _current, _thread
    with _lock:
        if _current is not None and threading.get_ident() != _thread:
            raise RuntimeError(
                "another thread of this process is computing an update, and its noise is the whole process's: compute "
                "updates one after the other, or in processes of their own"
            )
        outer, outer_thread = _current, _thread
        _current, _thread = noise, threading.get_ident()
    try:
        with nullcontext() if noise is None or outer is not None else watching_the_generator(_current_calls):
            yield noise
    finally:
        _current, _thread = outer, outer_thread


def _current_calls() -> Calls | None:
    return None if _current is None else _current.calls
