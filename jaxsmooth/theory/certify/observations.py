"""What the certified theorems are given: a block's parameters, their norms, and what it computed for one sentence."""

from typing import Any, NamedTuple

import numpy as np

from ...linalg.enclosed_norms import product_norm
from ...linalg.intervals import Interval


class HeadWeights(NamedTuple):
    """One head's kernels and biases: query, key, value [D H], [1 H]; output [H D]. Stacked: a leading axis N."""

    query: Any
    query_bias: Any
    key: Any
    key_bias: Any
    value: Any
    value_bias: Any
    output: Any


class BlockParameters(NamedTuple):
    """One post-LN block: heads on a leading axis N, the other kernels as `x @ kernel`, LayerNorm gains and shifts."""

    heads: HeadWeights
    output_bias: Any
    scale_attn: Any
    bias_attn: Any
    up: Any
    up_bias: Any
    down: Any
    down_bias: Any
    scale_mlp: Any
    bias_mlp: Any
    eps: float
    activation: str


class KnownNorms(NamedTuple):
    """Enclosures of the norms of one block's parameters, found once per model; `heads`, `scores` are [N].

    `heads` ||W_V^h W_O^h||, `scores` ||W_Q^h W_K^hT||; the others as in `BlockNorms`: `skew` is
    ||Gamma_1 (I + W_1 W_2 / 2) C||, `left` ||Gamma_1 W_1||, `right` ||W_2 C||; `largest` the largest of ||W_h||,
    ||W_1||, ||W_2|| over all blocks of the model.
    """

    heads: Any
    scores: Any
    value: Any
    output: Any
    stacked: Any
    up: Any
    down: Any
    skew: Any
    left: Any
    right: Any
    largest: Any


class SentenceData(NamedTuple):
    """What one block computed for one sentence; rows of padding are zero.

    Attributes:
      input: X, [T D].
      attn: A_h, [N T S].
      mixed: the attention sub-layer's output, [T D].
      pre_attn: U, [T D].
      normed: Y, [T D].
      pre_activation: Y W_1 + b_1, [T F].
      activated: phi of it, [T F].
      mlp: the MLP's output before the residual is added, [T D].
      pre_mlp: Z, [T D].
      mixing: encloses sqrt(lambda_h), [N].
      largest_mixing: encloses its largest value over heads and blocks.
    """

    input: Any
    attn: Any
    mixed: Any
    pre_attn: Any
    normed: Any
    pre_activation: Any
    activated: Any
    mlp: Any
    pre_mlp: Any
    mixing: Any
    largest_mixing: Any


def known_norms(block: BlockParameters, norm: Any, calculus: Any) -> KnownNorms:
    """The norms of one block's parameters, `largest` still of this block alone.

    Args:
      block: numpy arrays.
      norm: encloses the spectral norm of a Ball.
      calculus: a `HostCalculus` of anything, for its arithmetic.
    """
    c, heads = calculus, block.heads
    columns, width = heads.value.shape[0] * heads.value.shape[2], block.up.shape[0]
    joint = c.matrix(heads.value.transpose(1, 0, 2).reshape(width, columns))
    output = c.matrix(heads.output.reshape(columns, width))
    up, down, gains = c.matrix(block.up), c.matrix(block.down), c.matrix(block.scale_attn[:, None]).interval()
    gains = Interval(gains.down[:, 0], gains.up[:, 0])
    by_head = [product_norm(v, o) for v, o in zip(heads.value, heads.output, strict=True)]
    scores = [product_norm(q, np.ascontiguousarray(k.T)) for q, k in zip(heads.query, heads.key, strict=True)]
    product = c.scale(c.matmul(up, down), c.number(0.5))
    linear = c.scale_rows(c.add(c.identity(width), product), gains)
    side_by_side = c.concatenate([c.matrix(v) @ c.matrix(o) for v, o in zip(heads.value, heads.output, strict=True)])
    down_norm, up_norm = norm(down), norm(up)
    return KnownNorms(
        heads=_stack(by_head),
        scores=_stack(scores),
        value=norm(joint),
        output=norm(output),
        stacked=norm(side_by_side),
        up=up_norm,
        down=down_norm,
        skew=norm(c.centre_features(linear)),
        left=norm(c.scale_rows(up, gains)),
        right=norm(c.centre_features(down)),
        largest=c.largest(_stack([*by_head, up_norm, down_norm])),
    )


def _stack(found: list[Interval]) -> Interval:
    return Interval(np.array([x.down for x in found]), np.array([x.up for x in found]))
