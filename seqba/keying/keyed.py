"""Keyed noise for any model: torch's random functions draw by the key for as long as a pass lasts.

Attributes of `torch.nn.functional`, `torch` and `torch.Tensor` are replaced. A torch function mode would see as much of
a forward, but nothing inside a backward, where checkpointed layers are recomputed, nor inside
`F.multi_head_attention_forward`; a dispatch mode sees both and makes every operation slower.
"""

from __future__ import annotations

import functools
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from seqba.keying import draws, dropouts, samples
from seqba.keying.owner import OUTSIDE, find_owner
from seqba.modules.wrappers import check_model
from seqba.noise.context import current_noise, is_in_the_pass

_FUNCTIONAL: dict[str, draws.KeyedForm] = {
    "dropout": dropouts.dropout,
    "dropout1d": dropouts.feature_dropout(3),
    "dropout2d": dropouts.feature_dropout(None),
    "dropout3d": dropouts.feature_dropout(5),
    "alpha_dropout": dropouts.alpha_dropout,
    "feature_alpha_dropout": dropouts.feature_alpha_dropout,
    "rrelu_": samples.rrelu(inplace=True),
    "scaled_dot_product_attention": dropouts.scaled_dot_product_attention,
}
_OF_TORCH: dict[str, draws.KeyedForm] = {
    "alpha_dropout": dropouts.alpha_dropout,
    "dropout": dropouts.dropout,
    "feature_alpha_dropout": dropouts.feature_alpha_dropout,
    "feature_dropout": dropouts.feature_dropout(None),
}
_TORCH: dict[str, draws.KeyedForm] = {
    **{name: dropouts.of_torch(form) for name, form in _OF_TORCH.items()},
    **{f"{name}_": dropouts.of_torch(form, inplace=True) for name, form in _OF_TORCH.items()},
    "native_dropout": dropouts.native_dropout,
    "bernoulli": draws.bernoulli,
    "normal": draws.normal,
    "rand": draws.created("uniform_"),
    "rand_like": draws.created_like("uniform_"),
    "randint": draws.randint,
    "randint_like": samples.randint_like,
    "randn": draws.created("normal_"),
    "randn_like": draws.created_like("normal_"),
    "randperm": samples.randperm,
    "rrelu": samples.rrelu(inplace=False),
    "rrelu_": samples.rrelu(inplace=True),
    **{name: samples.sampled(name) for name in ("_standard_gamma", "binomial", "poisson")},
    **{name: samples.sampled(name, event_dimensions=1) for name in ("_sample_dirichlet", "multinomial")},
}
_METHODS: dict[str, draws.KeyedForm] = {
    "bernoulli": draws.bernoulli,
    "bernoulli_": draws.bernoulli_in_place,
    "multinomial": samples.sampled("multinomial", event_dimensions=1),
    **{
        name: draws.in_place(name)
        for name in ("cauchy_", "exponential_", "geometric_", "log_normal_", "normal_", "random_", "uniform_")
    },
}


@contextmanager
def keyed(model: nn.Module) -> Iterator[None]:
    """Inside, passes of `merged_gradient`, `grid_gradient` and `copies` key what a model draws by torch's functions.

    So the gradient of a model that holds nothing of seqba's doesn't depend on the plan either. What is keyed:
    `F.dropout` in all its kinds, the dropout of `F.scaled_dot_product_attention` and `F.multi_head_attention_forward`,
    `F.rrelu`, `torch.rand`, `randn`, `randint`, `randperm`, `normal`, `bernoulli`, `multinomial`, `poisson`,
    `binomial`, their `_like` forms, and the methods `bernoulli_`, `normal_`, `uniform_`, `exponential_` and so on (drop
    path, LayerDrop, layers that add noise, Gumbel softmax, `torch.distributions`). The
    masks of `nn.Dropout` are those of `seqba.nn.Dropout` in the same place. Outside a pass, with a generator of the
    caller's, and in threads that don't compute the pass, torch's functions are what they are.

    A draw belongs to the module whose code makes it, and to the copies as `copies_dimension` finds them: one without
    rows, `torch.rand([])` of a LayerDrop, is shared by all copies, and a Transformer's layers are then dropped for all
    of them. A shape that doesn't tell rows from other sizes is warned of as soon as batches or passes of other sizes
    show it; `seqba.check` finds it before a run. What torch's functions don't draw (dropout inside cuDNN's LSTM or
    flash attention), what they draw for nested tensors and inside `torch.vmap`, and functions imported by their names
    (`from torch.nn.functional import dropout`) before, draw from torch's own generators: each pass seeds those by its
    key, so that `plan="looped"` is repeatable all the same.
    `seqba.check` tells of them.

    Under `torch.compile` a keyed draw ends a graph, and draws the same.

    Args:
        model: what will be computed, wrapped or not.

    Raises:
        TypeError: for what isn't a module.
        ValueError: for a model whose rows are dealt out over threads, or that is wrapped in a way that isn't known (see
            `check_model`).
        RuntimeError: at a draw of the model in a thread that doesn't compute the pass.
    """
    check_model(model)
    with keying():
        yield


@contextmanager
def keying() -> Iterator[None]:
    """`keyed` for a model that has been checked."""
    with _lock:
        _install()
    try:
        yield
    finally:
        with _lock:
            _uninstall()


def is_keying() -> bool:
    """Whether torch's functions are replaced now."""
    return _depth > 0


_lock = threading.Lock()
_depth = 0


class _Replacement:
    """An attribute that is another function while `keyed` is in force.

    Args:
        holder: a module or class.
        name: of its attribute.
        form: what a pass calls in its place.
    """

    def __init__(self, holder: Any, name: str, form: draws.KeyedForm) -> None:
        self._holder = holder
        self._name = name
        self._form = form
        self._original: Callable[..., Any] = getattr(holder, name)
        self._is_own = name in vars(holder)
        self._function = self._make()
        self._disabled: Callable[..., Any] | None = None

    def put(self) -> None:
        """Replaces the attribute by a function that is the same at every time, as compiled code has noted it."""
        self._is_own = self._name in vars(self._holder)
        self._original = getattr(self._holder, self._name)
        if self._disabled is None and "torch._dynamo" in sys.modules:  # seconds to import, and no need to
            self._disabled = torch.compiler.disable(self._function)  # type: ignore[no-untyped-call]
        setattr(self._holder, self._name, self._disabled or self._function)

    def put_back(self) -> None:
        """Makes the attribute what it was."""
        if self._is_own:
            setattr(self._holder, self._name, self._original)
        else:  # torch.Tensor inherits its methods
            delattr(self._holder, self._name)

    def _make(self) -> Callable[..., Any]:
        @functools.wraps(self._original)
        def replaced(*given: Any, **named: Any) -> Any:
            noise = current_noise()
            if noise is None or not _is_concerned(noise.names, given):
                return self._original(*given, **named)
            result = self._form(noise, *given, **named)
            return self._original(*given, **named) if result is None else result

        return replaced


def _is_concerned(names: Any, given: tuple[Any, ...]) -> bool:
    if given and isinstance(given[0], Tensor) and (given[0].device.type == "meta" or given[0].is_nested):
        return False
    if _is_in_vmap() or _is_traced():  # in vmap a row's shape tells nothing of the rows
        return False
    if given and type(given[0]).__name__ == "FakeTensor":
        _break_graph()
    if is_in_the_pass():
        return True
    if find_owner(names) is not OUTSIDE:
        raise RuntimeError(
            "a module of the model draws noise in a thread that doesn't compute the pass: keyed noise is one thread's"
        )
    return False


def _is_in_vmap() -> bool:
    """Whether `torch.vmap` is mapping the code that draws; torch has no public word for it."""
    if torch._C._functorch.peek_interpreter_stack() is None:
        return False
    return any(
        level.key() == torch._C._functorch.TransformType.Vmap
        for level in torch._C._functorch.get_interpreter_stack() or ()
    )


def _is_traced() -> bool:
    """Whether torch records the calls in a graph, without computing anything of the pass.

    Inductor does so with functions of its own, its patterns, when it first compiles: in the first pass of a run.
    """
    return torch._C._get_dispatch_mode(torch._C._TorchDispatchModeKey.PROXY) is not None


def _break_graph() -> None:
    """Has torch.compile, which traces methods of tensors whatever they are, call the method at run time instead.

    Of what it catches in a function that it tries, every torch from 2.6 on breaks the graph for this error.
    """
    raise NotImplementedError("keyed noise is drawn when the pass runs")


_replacements: list[_Replacement] = [
    _Replacement(holder, name, form)
    for holder, forms in ((nn.functional, _FUNCTIONAL), (torch, _TORCH), (Tensor, _METHODS))
    for name, form in forms.items()
]


def _install() -> None:
    global _depth
    if _depth == 0:
        for replacement in _replacements:
            replacement.put()
    _depth += 1


def _uninstall() -> None:
    global _depth
    _depth -= 1
    if _depth == 0:
        for replacement in _replacements:
            replacement.put_back()
