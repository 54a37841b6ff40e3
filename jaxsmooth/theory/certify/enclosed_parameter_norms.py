"""Enclosures of the norms of a model's parameters: on the host, once per model."""

import dataclasses

import jax
import numpy as np

from ...linalg.enclosed_norms import product_norm, squared_norm
from ...linalg.intervals import Ball, Interval, fuzzy
from ...types import Block
from ..theorems.parameters import EnclosedNorms, heads_of
from .float_calculus import HostCalculus


def enclosed_parameter_norms(blocks: list[Block]) -> list[EnclosedNorms[Interval]]:
    """Encloses the norms of every block's parameters.

    Args:
      blocks: every layer's, numpy arrays in float64.

    Returns:
      One `EnclosedNorms` per block.
    """
    norms = [_norms_of(block) for block in blocks]
    largest = HostCalculus(np.ones(1, bool), np.float64).largest(_stacked([known.largest for known in norms]))
    return [dataclasses.replace(known, largest=largest) for known in norms]


def _norms_of(block: Block) -> EnclosedNorms[Interval]:
    """`largest` is still of this block alone."""
    c, heads = HostCalculus(np.ones(1, bool), np.float64), heads_of(block.attn)
    query, key, value, output = (side.kernel for side in (heads.query, heads.key, heads.value, heads.output))
    columns, width = value.shape[0] * value.shape[2], block.up.kernel.shape[0]
    up, down = c.matrix(block.up.kernel), c.matrix(block.down.kernel)
    gains = c.matrix(block.norm_attn.scale).interval()
    by_head = [product_norm(v, o) for v, o in zip(value, output, strict=True)]
    scores = [product_norm(q, np.ascontiguousarray(k.T)) for q, k in zip(query, key, strict=True)]
    linear = c.scale_rows(c.add(c.identity(width), c.scale(c.matmul(up, down), c.number(0.5))), gains)
    side_by_side = c.concatenate([c.matrix(v) @ c.matrix(o) for v, o in zip(value, output, strict=True)])
    up_norm, down_norm = _norm(up), _norm(down)
    return EnclosedNorms(
        heads=_stacked(by_head),
        scores=_stacked(scores),
        value=_norm(c.matrix(value.transpose(1, 0, 2).reshape(width, columns))),
        output=_norm(c.matrix(output.reshape(columns, width))),
        stacked=_norm(side_by_side),
        up=up_norm,
        down=down_norm,
        skew=_norm(c.centre_features(linear)),
        left=_norm(c.scale_rows(up, gains)),
        right=_norm(c.centre_features(down)),
        largest=c.largest(_stacked([*by_head, up_norm, down_norm])),
    )


def _norm(matrix: Ball) -> Interval:
    # By products: a decomposition of every kernel takes longer than all that is checked with it.
    return fuzzy(squared_norm(matrix.mid), matrix.rad)


def _stacked(found: list[Interval]) -> Interval:
    return jax.tree.map(lambda *ends: np.array(ends), *found)
