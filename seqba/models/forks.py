"""Names of the places in a model at which copies may begin."""

from __future__ import annotations

from typing import Protocol

ENCODER = "encoder"
DECODER_LAYER = "decoder-layer"
LAYER = "layer"
HEAD = "head"


class Forking(Protocol):
    """Interface of a model in which copies may begin; `Family.fork_places` has the names of its places."""

    def fork_at(self, place: str | None) -> None:
        """Has copies begin at a place, in updates that fork (`seqba.fork`); at None they begin with the input."""
        ...


def layer_places(layers: int, prefix: str = LAYER) -> tuple[str, ...]:
    """Places before each of so many layers: `layer-1`, `layer-2` and so on."""
    return tuple(f"{prefix}-{number}" for number in range(1, layers + 1))


def layer_of(place: str, layers: int, prefix: str = LAYER) -> int:
    """The number, from 1, of the layer before which a place is.

    Raises:
        ValueError: for a place that isn't before one of so many layers.
    """
    places = layer_places(layers, prefix)
    if place not in places:
        raise ValueError(f"copies can't begin at {place!r}: a model of {layers} layers has {', '.join(places)}")
    return places.index(place) + 1
