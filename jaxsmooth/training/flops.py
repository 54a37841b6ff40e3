"""Floating-point operations of a training step by the shapes alone, and what a device can do at most."""

import time

import jax
import jax.numpy as jnp

from ..bert.config import EncoderConfig
from .accelerators import CHIPS, KINDS


def forward_flops(config: EncoderConfig, rows: int, length: int) -> float:
    """FLOPs of the encoder's matrix products for [rows, length] tokens, padding included, two per multiply-add.

    Per token and layer: 8 D^2 for the projections, 4 D F for the MLP (6 D F when gated), 4 T D for the attention.

    >>> forward_flops(EncoderConfig(layers=1), 1, 1) == 8 * 768**2 + 4 * 768 * 3072 + 4 * 768
    True

    References: Kaplan et al. (2020), arXiv 2001.08361, appendix B, with the attention's share kept.
    """
    d, f = config.width, config.mlp_width
    per_token = 8 * d * d + (6 if config.gated else 4) * d * f + 4 * length * d
    return float(config.layers * rows * length * per_token)


def step_flops(config: EncoderConfig, rows: int, length: int) -> float:
    """FLOPs of a training step: forward, and twice that backward. What is recomputed is not counted (model FLOPs)."""
    return 3 * forward_flops(config, rows, length)


def peak_flops(precision: str) -> float:
    """FLOP/s of all devices together, which utilisation is measured against.

    The vendor's bfloat16 figure where the device is known; on a CPU the rate of a 1024^3 float32 product, measured
    here and now. 0 for any other device or precision: then no utilisation is reported.
    """
    device = jax.devices()[0]
    if device.platform == "cpu":
        return _measured()
    chip = KINDS.get(device.device_kind)
    return CHIPS[chip].flops * jax.device_count() if chip and precision == "bfloat16" else 0.0


def _measured(size: int = 1024, rounds: int = 20) -> float:
    product = jax.jit(jnp.matmul)
    a = jnp.ones((size, size), jnp.float32)
    product(a, a).block_until_ready()
    times = []
    for _ in range(rounds):
        start = time.perf_counter()
        product(a, a).block_until_ready()
        times.append(time.perf_counter() - start)
    return 2 * size**3 / min(times)
