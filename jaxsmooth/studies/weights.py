"""Spectra of a model's weights: once a model, on the host, in float64."""

import math
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np
from numpy.typing import NDArray

from ..bert.params import Encoder
from ..results.weights import LARGEST, MatrixSpectra, WeightSpectra
from ..theory.literature.power_method import PrincipalSubspace, li2026_principal_subspace
from ..theory.power_law import clauset2009_power_law


def principal_subspaces(model: Encoder) -> PrincipalSubspace:
    """Of every block's F = sum_h W_V^h W_O^h, the gains of the norms left out: [L 2 D], [L], [L].

    >>> import jaxsmooth
    >>> principal_subspaces(jaxsmooth.load("tiny")[0]).frame.shape
    (4, 2, 64)
    """
    found = li2026_principal_subspace(np.stack([_value_output(block) for block in _blocks(model)]))
    return PrincipalSubspace(*(_for_every_layer(model, side) for side in found))


def weight_spectra(model: Encoder, principal: PrincipalSubspace) -> WeightSpectra:
    """Stable rank, largest singular values and tail exponent of the weights of every block.

    Args:
      model: the encoder.
      principal: `principal_subspaces(model)`.

    Returns:
      A `WeightSpectra`.

    >>> import jaxsmooth
    >>> model, _ = jaxsmooth.load("tiny")
    >>> found = weight_spectra(model, principal_subspaces(model))
    >>> sorted(found.matrices), found.matrices["up"].singular_values.shape
    (['down', 'query_key', 'up', 'value_output'], (4, 5))
    """
    found = [{name: _spectrum(matrix) for name, matrix in _matrices(block)} for block in _blocks(model)]
    matrices = {
        name: MatrixSpectra(
            *(_for_every_layer(model, np.array(side)) for side in zip(*(one[name] for one in found), strict=True))
        )
        for name in found[0]
    }
    return WeightSpectra(matrices, principal.eigenvalue, principal.runner_up, projection_by_chance(principal))


def _blocks(model: Encoder) -> Iterator[Any]:
    """The blocks that are stored, one after the other, as arrays of numpy in float64."""
    stored = jax.tree.map(np.asarray, model.blocks)
    for layer in range(len(stored.up.kernel)):
        yield jax.tree.map(lambda leaf, layer=layer: leaf[layer].astype(np.float64), stored)


def _for_every_layer(model: Encoder, stored: NDArray) -> NDArray:
    """ALBERT stores one block and uses it in every layer."""
    return np.repeat(stored, model.config.layers, axis=0) if model.config.shared_layers else stored


def _matrices(block: Any) -> Iterator[tuple[str, NDArray]]:
    query, key = (kernel.reshape(len(kernel), -1) for kernel in (block.attn.query.kernel, block.attn.key.kernel))
    yield "query_key", query @ key.T
    yield "value_output", _value_output(block)
    yield "up", block.up.kernel
    if block.gate is not None:
        yield "gate", block.gate.kernel
    yield "down", block.down.kernel


def _value_output(block: Any) -> NDArray:
    width = len(block.attn.value.kernel)
    return block.attn.value.kernel.reshape(width, -1) @ block.attn.output.kernel.reshape(-1, width)


def _spectrum(matrix: NDArray) -> tuple:
    """The fields of `MatrixSpectra` for one matrix."""
    size = np.abs(matrix).max(initial=0) or 1.0
    scaled = matrix / size
    wide = scaled if len(scaled) <= scaled.shape[1] else scaled.T
    # The tail is what is asked for: of a Gram matrix its large eigenvalues keep all digits, at a third of the time.
    squares = np.maximum(np.linalg.eigvalsh(wide @ wide.T)[::-1], 0)
    top = np.full(LARGEST, np.nan)
    top[: len(squares)] = size * np.sqrt(squares[:LARGEST])
    rank = squares.sum() / squares[0] if squares[0] > 0 else math.nan
    law = clauset2009_power_law(squares)
    return top, rank, law.alpha, law.error, law.distance, law.tail, law.used


def projection_by_chance(principal: PrincipalSubspace) -> NDArray:
    """Mean length of a random unit vector's projection, Gamma((r+1)/2) Gamma(D/2) / (Gamma(r/2) Gamma((D+1)/2)).

    Args:
      principal: subspaces of r = 1 dimension (a real eigenvalue) or 2, [L].

    Returns:
      [L]; NaN where there is no subspace.

    >>> from jaxsmooth.theory import li2026_principal_subspace
    >>> projection_by_chance(li2026_principal_subspace(np.diag([2.0, 1.0])[None])).round(4)  # 2 / pi
    array([0.6366])
    """
    dimension, width = np.where(principal.eigenvalue.imag == 0, 1, 2), principal.frame.shape[-1]
    logs = [
        math.lgamma((r + 1) / 2) + math.lgamma(width / 2) - math.lgamma(r / 2) - math.lgamma((width + 1) / 2)
        for r in dimension
    ]
    chance = np.exp(np.array(logs))
    return np.where(np.isnan(principal.frame[:, 0, 0]), np.nan, chance)
