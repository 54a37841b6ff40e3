"""The statements of the catalogue on a batch: measured in float64, with a margin instead of enclosures."""

import jax
import jax.numpy as jnp
import numpy as np

from ..theory.certify import catalogue
from ..theory.certify.catalogue import CATALOGUE
from ..theory.certify.compiled import Statements
from ..theory.theorems.exact_block import Observation
from ..theory.theorems.parameters import heads_of
from .verify_stages import Parameters, crop, stacked


class MeasuredStage:
    """Statements of the catalogue, named beforehand, for every layer, head and sentence."""

    def __init__(self, parameters: Parameters, names: tuple[str, ...]) -> None:
        self.architecture = parameters.architecture
        self.on_host = tuple(name for name in names if CATALOGUE[name].host)
        self.on_device = tuple(name for name in names if not CATALOGUE[name].host)
        self.blocks = stacked(parameters.blocks)
        self.heads = stacked([heads_of(block.attn) for block in parameters.blocks])

    def __call__(self, data: Observation, lengths: list[int]) -> Statements:
        """Sides [L B] or [L B N], of what was observed, [L B ...], and the sentences' numbers of tokens."""
        found = {}
        if self.on_device:
            mask = np.arange(data.input.shape[2]) < np.array(lengths)[:, None]
            with jax.enable_x64(True):
                blocks, heads, own = jax.tree.map(
                    lambda leaf: jnp.asarray(leaf, np.float64),
                    (self.blocks, self.heads, jax.tree.map(lambda leaf: leaf[:, : len(lengths)], data)),
                )
                found = catalogue.measure(blocks, heads, own, mask, self.architecture, self.on_device)
        for name in self.on_host:
            layers, heads = range(len(data.attn)), range(data.attn.shape[2])
            cropped = [[crop(data, layer, row, n) for row, n in enumerate(lengths)] for layer in layers]
            found[name] = stacked(
                [
                    stacked([stacked([catalogue.on_host(name, one.attn[h], one.input) for h in heads]) for one in rows])
                    for rows in cropped
                ]
            )
        return {name: catalogue.with_margin(statement) for name, statement in found.items()}
