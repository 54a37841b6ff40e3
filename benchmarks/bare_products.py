"""BERT with little in it but its matrix products, in jax and in torch: what a step's products take by themselves.

No softmax, norm, activation, bias, residual, dropout, loss or optimiser: tokens go through every product of every
layer, and back through the two that its derivative has of each, by the functions by which either model multiplies
(`bert.matmul`, `torch.nn.functional.linear`). Besides products there are the exchanges of axes around heads and the
sums of gradients, of which both sides have the same. What a step takes beyond this is everything else.
"""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import torch

from jaxsmooth.bert.config import EncoderConfig
from jaxsmooth.bert.matmul import split_matmul, token_matmul
from jaxsmooth.linalg.precision import matmul

Weights = list[dict[str, Any]]
Product = Callable[[Any, Any, str], Any]
Swap = Callable[[Any, int, int], Any]


def draw(config: EncoderConfig, x: np.ndarray, rows: int) -> Weights:
    """The kernels of every layer, [in out], drawn so that numbers keep their size."""
    rng, width, wide = np.random.default_rng(0), config.width, config.mlp_width
    shapes = dict.fromkeys(("query", "key", "value", "out"), (width, width)) | {
        "up": (width, wide),
        "down": (wide, width),
    }
    weights = []
    for _ in range(config.layers):
        layer = {
            name: (rng.normal(size=shape) / np.sqrt(shape[0])).astype(np.float32) for name, shape in shapes.items()
        }
        size = np.sqrt(np.mean(np.square(_by_numpy(x, [layer], rows, config.heads))))
        layer["query"] = layer["query"] / size  # in which the layer is linear
        x = _by_numpy(x, [layer], rows, config.heads)
        weights.append(layer)
    return weights


def through(x: Any, weights: Weights, rows: int, heads: int, product: Product, between: Any, swap: Swap) -> Any:
    """[B*T D] -> [B*T D] by `product` with a kernel of that name and, `between` heads' arrays, the other one."""
    tokens, width = x.shape
    length = tokens // rows

    def split(flat: Any) -> Any:
        return swap(flat.reshape(rows, length, heads, width // heads), 1, 2)

    for layer in weights:
        query, key, value = (split(product(x, layer[name], name)) for name in ("query", "key", "value"))
        x = swap(between(between(query, swap(key, 2, 3)), value), 1, 2).reshape(tokens, width)
        for name in ("out", "up", "down"):
            x = product(x, layer[name], name)
    return x


def _by_numpy(x: np.ndarray, weights: Weights, rows: int, heads: int) -> np.ndarray:
    found: np.ndarray = through(x, weights, rows, heads, lambda x, kernel, _: x @ kernel, np.matmul, np.swapaxes)
    return found


def bare_sides(config: EncoderConfig, rows: int, length: int) -> dict[str, Callable[[], Any]]:
    """One function per part and side, which returns when its work is done; forward passes and gradients are equal."""
    heads, x = config.heads, np.random.default_rng(1).normal(size=(rows * length, config.width)).astype(np.float32)
    weights = draw(config, x, rows)

    def of_model(x: Any, kernel: Any, name: str) -> Any:
        return (split_matmul if name == "up" else token_matmul)(x[None], kernel)[0]

    def ours(x: Any, weights: Weights) -> Any:
        return through(x, weights, rows, heads, of_model, matmul, jax.numpy.swapaxes)

    def gradient(x: Any, weights: Weights) -> Any:
        found, back = jax.vjp(ours, x, weights)
        return back(found)

    forward, both, given = jax.jit(ours), jax.jit(gradient), jax.device_put((x, weights))
    theirs = [
        {name: torch.tensor(kernel.T.copy()).requires_grad_() for name, kernel in layer.items()} for layer in weights
    ]
    start = torch.tensor(x).requires_grad_()

    def by_torch() -> torch.Tensor:
        linear = torch.nn.functional.linear
        return through(
            start, theirs, rows, heads, lambda x, kernel, _: linear(x, kernel), torch.matmul, torch.transpose
        )

    def torch_forward() -> np.ndarray:
        with torch.no_grad():
            return by_torch().numpy()

    def torch_step() -> Any:
        found = by_torch()
        found.backward(found.detach())
        gradients = start.grad, [{name: kernel.grad for name, kernel in layer.items()} for layer in theirs]
        for tensor in (start, *(kernel for layer in theirs for kernel in layer.values())):
            tensor.grad = None
        return gradients

    sides: dict[str, Callable[[], Any]] = {
        "bare step ours": lambda: jax.block_until_ready(both(*given)),
        "bare step torch": torch_step,
        "bare forward ours": lambda: jax.block_until_ready(forward(*given)),
        "bare forward torch": torch_forward,
    }
    _require_equal(sides["bare forward ours"](), torch_forward())
    (dx, kernels), (their_dx, their_kernels) = sides["bare step ours"](), torch_step()
    _require_equal(dx, their_dx.numpy())
    for layer, their_layer in zip(kernels, their_kernels, strict=True):
        for name, kernel in layer.items():
            _require_equal(kernel, their_layer[name].numpy().T)
    return sides


def _require_equal(found: Any, expected: np.ndarray) -> None:
    size = np.sqrt(np.mean(np.square(expected)))
    assert 1e-12 < size < 1e12, size  # neither zeros nor overflow, which some processors multiply at another speed
    # Six layers, each cubic in its input, in float32: up to 3e-4 was seen.
    np.testing.assert_allclose(found, expected, atol=1e-3 * size, rtol=0)
