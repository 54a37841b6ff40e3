"""Can the hypothesis of the over-smoothing theorem ever hold in this layer? Bounds over every input, and the answer."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from ...activations import LIPSCHITZ
from ...errors import ConfigError, arguments_checked
from ...linalg.enclosed_norms import product_norm, squared_norm
from ...linalg.intervals import Interval, quiet
from ...types import Block
from ..theorems.parameters import heads_of
from .certificate import largest_std, product_bound
from .reachable import Reachable, reachable, rows_of_norm
from .relaxation import Form, start
from .search import halves, improve, std_shares
from .witness import largest_found

STEPS, CUT_STEPS = 110, 80
RATE, CUT_RATE = 0.08, 0.06
ENOUGH = 0.999  # of the aim: a searched bound below this leaves room for what certifying adds, a few millionths


@dataclasses.dataclass(frozen=True)
class LayerForEveryInput:
    """One layer over all texts. Certified numbers hold for every token of every text, whatever its length.

    Attributes:
      layer: from 1.
      std_attn: certified upper bound of the std at the attention LayerNorm.
      product: certified upper bound of the product of a token's two stds.
      product_found: the largest such product found among rows that a LayerNorm can put out.
      threshold: certified lower bound of what min std_attn * min std_mlp must exceed, by this layer's norms (rung L1).
      threshold_model: the same with the model's largest norm in the place of each (rung L0).
      threshold_paper: 1 + s^2, s that largest norm: as published, without gains and with slope 1.
      halved: whether the inputs were cut in two halves to bound the product.
    """

    layer: int
    std_attn: float
    product: float
    product_found: float
    threshold: float
    threshold_model: float
    threshold_paper: float
    halved: bool

    @property
    def verdict(self) -> str:
        """ "never" if the layer's hypothesis (L1) fails for every text; "open" if these bounds do not tell."""
        return "never" if self.product <= self.threshold else "open"

    @property
    def verdict_paper(self) -> str:
        """The same of the published threshold, and of L0."""
        return "never" if self.product <= min(self.threshold_model, self.threshold_paper) else "open"


@dataclasses.dataclass(frozen=True)
class _Norms:
    """Lower bounds of one block's norms."""

    up: float
    down: float
    heads: float
    gain_attn: float
    gain_mlp: float

    @property
    def largest(self) -> float:
        return max(self.up, self.down, self.heads)


@arguments_checked
def hypothesis_for_every_input(
    model: Any,
    *,
    layers: tuple[int, ...] = (),
    best: bool = False,
    steps: tuple[int, int] = (STEPS, CUT_STEPS),
    report: Callable[[int, float], None] = lambda layer, bound: None,
) -> tuple[LayerForEveryInput, ...]:
    """Whether min std_attn * min std_mlp can exceed the theorem's threshold, in each layer, for any text at all.

    For every text of any length, every attention whose rows are probabilities, and every token: std_attn std_mlp <=
    `product`, while the threshold is at least `threshold`. Host only, in float64, roundings included; about a minute
    of processor time a layer of width 384.

    Args:
      model: an encoder of plain post-LN blocks (`config.is_plain`) whose embedding ends in a LayerNorm.
      layers: which, from 1; all if empty.
      best: search for the best bound, instead of one that decides.
      steps: of the search over all inputs, and over each half of them.
      report: called with the layer and the bound of every step of the search.

    Returns:
      One `LayerForEveryInput` for each layer.

    Raises:
      ConfigError: blocks that this is not proved for.

    >>> import jaxsmooth
    >>> model, _ = jaxsmooth.load("tiny")
    >>> found, = hypothesis_for_every_input(model, layers=(1,), steps=(2, 0))
    >>> found.product_found <= found.product
    True

    References: docs/every-input.md, theorems 1 to 3; after Shi et al. (2022), arXiv 2202.08625, theorem 2.
    """
    config = model.config
    if not config.is_plain or not config.embedding_norm:
        raise ConfigError(
            "bounds over every input are proved for post-LN blocks after an embedding with a LayerNorm; got "
            f"{', '.join(config.departures) or 'an embedding without a norm'}. For pre-LN blocks v is never below 1."
        )
    blocks = [_block(model, layer) for layer in range(config.layers)]
    norms = [_norms(block) for block in blocks]
    largest = max(known.largest for known in norms)
    found = []
    for layer in layers or range(1, config.layers + 1):
        previous = model.embeddings if layer == 1 else None
        rows = (
            rows_of_norm(previous.norm, previous.projection)
            if previous is not None
            else rows_of_norm(blocks[layer - 2].norm_mlp)
        )
        thresholds = _thresholds(norms[layer - 1], largest, config.activation)
        known = reachable(blocks[layer - 1], rows, config.activation, config.eps)
        std = _largest_std(known)
        aim = 0.0 if best else thresholds[0]
        product, halved = smallest_product(known, std, aim=aim, steps=steps, report=functools.partial(report, layer))
        witness = largest_found(blocks[layer - 1], rows, config.activation, config.eps)
        found.append(LayerForEveryInput(layer, std, product, witness.product, *thresholds, halved))
    return tuple(found)


@quiet
def smallest_product(
    found: Reachable,
    std: float,
    *,
    aim: float = 0.0,
    steps: tuple[int, int] = (STEPS, CUT_STEPS),
    report: Callable[[float], None] = lambda bound: None,
) -> tuple[float, bool]:
    """A certified upper bound of std_attn * std_mlp over everything reachable, and whether inputs were cut in halves.

    Args:
      found: the block over all inputs.
      std: at least every std_attn.
      aim: a bound below this is good enough; 0 for the best.
      steps: of the search over all inputs, and over each half of them.
      report: called with the bound of every step.
    """
    form, enough = Form.of(found, std, np.float32), ENOUGH * aim
    _, multipliers, vector = improve(form, start(form), steps[0], RATE, until=enough, report=report)
    whole = product_bound(found, multipliers, std)
    if whole <= aim or not steps[1] or not len(vector):
        return whole, False
    parts = []
    for half in halves(form, multipliers, vector):
        _, better, _ = improve(form, half, steps[1], CUT_RATE, until=enough, report=report)
        parts.append(product_bound(found, better, std))
    return min(whole, max(parts)), True


def _largest_std(found: Reachable) -> float:
    return largest_std(found, std_shares(np.stack([gram.mid for gram in found.grams])))


def _block(model: Any, layer: int) -> Block:
    index = 0 if model.config.shared_layers else layer
    return jax.tree.map(lambda leaf: np.asarray(leaf[index]).astype(np.float64), model.blocks)


def _norms(block: Block) -> _Norms:
    heads = heads_of(block.attn)
    by_head = [product_norm(v, o) for v, o in zip(heads.value.kernel, heads.output.kernel, strict=True)]
    return _Norms(
        up=float(squared_norm(block.up.kernel).lower),
        down=float(squared_norm(block.down.kernel).lower),
        heads=max(float(norm.lower) for norm in by_head),
        gain_attn=float(np.max(np.abs(block.norm_attn.scale))),
        gain_mlp=float(np.max(np.abs(block.norm_mlp.scale))),
    )


def _thresholds(norms: _Norms, largest: float, activation: str) -> tuple[float, float, float]:
    """(1 + L |W_1| |W_2|) G_1 G_2, (1 + L s^2) G_1 G_2 and 1 + s^2, from below: sqrt(lambda) may be 0."""
    up, down, s, gain_attn, gain_mlp = (
        Interval.exact(np.float64(x)) for x in (norms.up, norms.down, largest, norms.gain_attn, norms.gain_mlp)
    )
    one, steepest = Interval.exact(np.float64(1)), Interval.around(*[np.float64(LIPSCHITZ[activation])] * 2)
    gains = gain_attn * gain_mlp
    found = ((one + steepest * up * down) * gains, (one + steepest * s * s) * gains, one + s * s)
    own, model, paper = (float(threshold.lower) for threshold in found)
    return own, model, paper
