"""Small helpers that every form of the report shares: digits a person can read, lists of layers, sums over heads."""

import dataclasses
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..results.brief import MISSING as MISSING
from ..results.brief import digits as digits
from ..results.diagnosis import FusedLayers
from ..results.spread import BLOCK_METRICS, Spread

BLOCK_QUANTITIES = ("std_attn", "std_mlp", *BLOCK_METRICS)
"""Fields with one value per block."""

FUSED_ROW = "fused"
"""What a table calls the row of fused layers."""


def layer_list(layers: Sequence[int]) -> str:
    """Name layers in words, runs of three or more as a range.

    Args:
      layers: layer numbers in ascending order.

    Returns:
      Text that fits after "in".

    >>> layer_list([3]), layer_list([1, 2, 5]), layer_list([1, 2, 3, 4, 6])
    ('layer 3', 'layers 1, 2 and 5', 'layers 1 to 4 and 6')
    """
    parts = layer_runs(layers)
    words = parts[0] if len(parts) == 1 else ", ".join(parts[:-1]) + " and " + parts[-1] if parts else "no layer"
    return words if not parts else f"{'layer' if len(layers) == 1 else 'layers'} {words}"


def layer_runs(layers: Iterable[int]) -> list[str]:
    """Layer numbers in ascending order, runs of three and more by their ends.

    >>> layer_runs([1, 3, 4, 5])
    ['1', '3 to 5']
    """
    runs: list[list[int]] = []
    for layer in layers:
        if runs and layer == runs[-1][-1] + 1:
            runs[-1].append(layer)
        else:
            runs.append([layer])
    return [part for run in runs for part in ([f"{run[0]} to {run[-1]}"] if len(run) > 2 else map(str, run))]


def over_heads(spread: Spread) -> Spread:
    """Pool a per-head quantity over its heads, as if every head of every sentence were one sample.

    Args:
      spread: a spread of shape [L N].

    Returns:
      The spread of all heads together, [L]; heads without a value are left out.
    """
    count = spread.count.sum(axis=1)
    defined = spread.count > 0
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = np.where(defined, spread.count * spread.mean, 0.0).sum(axis=1) / count
        square = spread.std**2 + (spread.mean - mean[:, None]) ** 2
        std = np.sqrt(np.where(defined, spread.count * square, 0.0).sum(axis=1) / count)
    low = np.where(defined, spread.min, np.inf).min(axis=1)
    high = np.where(defined, spread.max, -np.inf).max(axis=1)
    return Spread(mean, std, np.where(count > 0, low, np.nan), np.where(count > 0, high, np.nan), count)


def rows_of(report: dict[str, Any]) -> list[dict[str, Any]]:
    """The rows of a table of report.json: its layers, then what is fused of them, if anything is."""
    return [*report["layers"], *({**fused, "layer": FUSED_ROW} for fused in [report.get("fused")] if fused)]


def fused_words(fused: FusedLayers) -> str:
    """Which layers are fused, how, and how much each counts."""
    if fused.gates is None:
        return fused.label
    gates = ", ".join(f"{layer}: {digits(gate)}" for layer, gate in zip(fused.layers, fused.gates.mean, strict=True))
    return f"{fused.label} (how much each layer counts, mean over tokens: {gates})"


def at(spread: Spread, *index: int) -> dict[str, float]:
    """Read one layer of a spread of shape [K], or one layer and head of [K N], as plain Python numbers."""
    return {field.name: getattr(spread, field.name)[index].item() for field in dataclasses.fields(spread)}


def finite(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Drop NaN and infinities."""
    return values[np.isfinite(values)]
