"""What is known of a model for every input, in the form of a report."""

import dataclasses

import numpy as np

from ..bert.params import Encoder
from ..results.every_input import EveryInput
from ..theory.every_input.stored import stored_for_every_input


def known_for_every_input(model: Encoder) -> EveryInput | None:
    """The stored bounds of these weights; None if there are none. Takes as long as hashing the weights."""
    layers = stored_for_every_input(model)
    if layers is None:
        return None
    names = [field.name for field in dataclasses.fields(EveryInput)]
    return EveryInput(**{name: np.array([getattr(layer, name) for layer in layers]) for name in names})
