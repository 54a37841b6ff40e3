"""BERT with nothing in it but its matrix products, in jax and in torch: what a step's products take by themselves.

No softmax, norm, activation, bias, residual, dropout, loss or optimiser: tokens go through every product of every
layer, and back through the two that its derivative has of each, in the shapes and orders that training gives them.
What a step takes besides is everything else.
"""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import torch

from jaxsmooth.bert.config import EncoderConfig

Weights = list[dict[str, Any]]


def draw(config: EncoderConfig, rng: np.random.Generator) -> Weights:
    """The kernels of every layer, [in out], drawn so that numbers keep their size."""
    width, wide = config.width, config.mlp_width
    shapes = dict.fromkeys(("query", "key", "value", "out"), (width, width)) | {
        "up": (width, wide),
        "down": (wide, width),
    }
    return [
        {name: (rng.normal(size=shape) / np.sqrt(shape[0])).astype(np.float32) for name, shape in shapes.items()}
        for _ in range(config.layers)
    ]


def through(x: Any, weights: Weights, rows: int, heads: int, swap: Callable[[Any, int, int], Any]) -> Any:
    """[B*T D] -> [B*T D]; `swap` exchanges two axes, which jax and torch call differently."""
    tokens, width = x.shape
    length = tokens // rows

    def split(flat: Any) -> Any:
        return swap(flat.reshape(rows, length, heads, width // heads), 1, 2)

    for layer in weights:
        query, key, value = (split(x @ layer[name]) for name in ("query", "key", "value"))
        mixed = (query @ swap(key, 2, 3) / length) @ value
        x = swap(mixed, 1, 2).reshape(tokens, width) @ layer["out"] @ layer["up"] @ layer["down"]
    return x


def bare_sides(config: EncoderConfig, rows: int, length: int) -> dict[str, Callable[[], Any]]:
    """One function per part and side, which returns when its work is done."""
    rng = np.random.default_rng(0)
    weights, heads = draw(config, rng), config.heads
    x = rng.normal(size=(rows * length, config.width)).astype(np.float32)

    def ours(x: Any, weights: Weights) -> Any:
        return through(x, weights, rows, heads, jax.numpy.swapaxes)

    def gradient(x: Any, weights: Weights) -> Any:
        found, back = jax.vjp(ours, x, weights)
        return back(found)

    forward, both, given = jax.jit(ours), jax.jit(gradient), jax.device_put((x, weights))
    theirs = [{name: torch.tensor(kernel, requires_grad=True) for name, kernel in layer.items()} for layer in weights]
    start = torch.tensor(x, requires_grad=True)

    def torch_forward() -> np.ndarray:
        with torch.no_grad():
            return through(start, theirs, rows, heads, torch.transpose).numpy()

    def torch_step() -> Any:
        found = through(start, theirs, rows, heads, torch.transpose)
        found.backward(found.detach())
        kernels = [{name: kernel.grad for name, kernel in layer.items()} for layer in theirs]
        for tensor in (start, *(kernel for layer in theirs for kernel in layer.values())):
            tensor.grad = None
        return kernels

    sides: dict[str, Callable[[], Any]] = {
        "bare step ours": lambda: jax.block_until_ready(both(*given)),
        "bare step torch": torch_step,
        "bare forward ours": lambda: jax.block_until_ready(forward(*given)),
        "bare forward torch": torch_forward,
    }
    np.testing.assert_allclose(sides["bare forward ours"](), torch_forward(), rtol=1e-3, atol=1e-5)
    last = np.asarray(sides["bare step ours"]()[1][0]["query"]), torch_step()[0]["query"].numpy()
    np.testing.assert_allclose(*last, rtol=1e-3, atol=1e-4 * np.abs(last[1]).max())
    return sides
