"""report.json: every number of a diagnosis, strict JSON, full precision.

Layer 0 is the embedding output; layer l >= 1 pairs hidden state l with the block that made it (block l - 1).
A plain name is the mean over sentences (and heads). A name ending in `_min` or `_max` is an extremum over tokens, heads
and sentences. `spread` adds the standard deviation, the extrema and the number of values; `heads` gives each head's
mean, `_min` and `_max` over sentences. `metrics` holds the user's own. What has no value is null. `fused`, where layers
were fused, is one more hidden state, with the means of the gates of the layers it is made of. `texts` says what the
texts that were read support about others of their kind; a limit that so few cannot give is null. `every_input`, where
known, holds for every text: bounds of the LayerNorm stds and of the thresholds, by layer. `weights` holds no text's
numbers but the weights': by matrix and layer the singular values, and the power law fitted to their squares;
`principal`, of each layer's F = sum_h W_V^h W_O^h, the eigenvalue of largest modulus, the next modulus, and what
`principal_alignment` is by chance. `attribution` of a layer is the change of ln(d_M / ||H||) over each part of its
block. `baselines` holds what similarity is compared with, by hidden state: `anisotropy`, the mean cosine of two tokens
of different texts, and `untrained`, the same architecture before training, on as many texts as `texts` says.
"""

import dataclasses
from pathlib import Path
from typing import Any

from ..errors import DataError, arguments_checked
from ..files import as_path, strict
from ..files import check_writable as check_writable
from ..results.comparison import Comparison
from ..results.convergence import HeadConvergence
from ..results.diagnosis import Diagnosis, FusedLayers
from ..results.fate import MapConvergence
from ..results.spread import HEAD_METRICS, HIDDEN_METRICS, Spread
from ..results.summaries import RATES
from ..results.verification import Verification
from .every_input import every_input_json
from .format import BLOCK_QUANTITIES, at, over_heads
from .headline import headline
from .sections.baselines import baselines_json
from .sections.weights import weights_json
from .texts import texts_json

SCHEMA = 1


@arguments_checked
def to_json(diagnosis: Diagnosis) -> dict[str, Any]:
    """Turn a diagnosis into the content of report.json.

    Args:
      diagnosis: what `jaxsmooth.diagnose` found.

    Returns:
      A tree of dicts, lists, strings, ints, floats and None with the keys `schema`, `model`, `data`, `layers`,
      `verdict` and `versions`; no NaN and no infinity, those are None.
    """
    blocks = diagnosis.rates["actual"].mean.shape[0]
    layers = [{"layer": 0, **_hidden(diagnosis, 0)}]
    for block in range(blocks):
        entry = {"layer": block + 1, **_hidden(diagnosis, block + 1)}
        spread = entry.pop("spread")
        made = _block(diagnosis, block)
        entry |= {**made, "spread": spread | made["spread"]}
        layers.append(entry)
    return strict(
        {
            **described(diagnosis),
            "layers": layers,
            **({} if diagnosis.fused is None else {"fused": _fused(diagnosis.fused)}),
            **({} if diagnosis.every_input is None else {"every_input": every_input_json(diagnosis)}),
            **baselines_json(diagnosis),
            **({} if diagnosis.texts is None else {"texts": texts_json(diagnosis.texts)}),
            **({} if diagnosis.weights is None else {"weights": weights_json(diagnosis.weights)}),
            "verdict": dataclasses.asdict(headline(diagnosis)),
            "versions": dict(diagnosis.versions),
        }
    )


def _hidden(diagnosis: Diagnosis, state: int) -> dict[str, Any]:
    spreads = {name: at(getattr(diagnosis, name), state) for name in HIDDEN_METRICS}
    entry = {name: spread["mean"] for name, spread in spreads.items()} | {"spread": _rest(spreads)}
    return _with_own(entry, {name: at(spread, state) for name, spread in diagnosis.metrics.items()})


def _with_own(entry: dict[str, Any], own: dict[str, dict[str, float]]) -> dict[str, Any]:
    """The entry of a hidden state with the user's metrics."""
    if own:
        entry["metrics"] = {name: spread["mean"] for name, spread in own.items()}
        entry["spread"]["metrics"] = _rest(own)
    return entry


def _fused(fused: FusedLayers) -> dict[str, Any]:
    spreads = {name: at(fused.measures[name], 0) for name in HIDDEN_METRICS}
    entry: dict[str, Any] = {"label": fused.label, "layers": list(fused.layers)}
    entry |= {name: spread["mean"] for name, spread in spreads.items()} | {"spread": _rest(spreads)}
    own = {name: at(spread, 0) for name, spread in fused.measures.items() if name not in HIDDEN_METRICS}
    entry = _with_own(entry, own)
    if fused.gates is None:
        return entry
    gates = [at(fused.gates, place) for place in range(len(fused.layers))]
    named = {
        f"gates{end}": [gate[key] for gate in gates] for end, key in (("", "mean"), ("_min", "min"), ("_max", "max"))
    }
    return entry | named


def _block(diagnosis: Diagnosis, block: int) -> dict[str, Any]:
    spreads = {name: at(getattr(diagnosis, name), block) for name in BLOCK_QUANTITIES}
    spreads |= {name: at(over_heads(getattr(diagnosis, name)), block) for name in HEAD_METRICS}
    rates = {name: at(diagnosis.rates[name], block) for name in RATES}
    entry: dict[str, Any] = {}
    for name, spread in spreads.items():
        entry |= {name: spread["mean"], f"{name}_min": spread["min"], f"{name}_max": spread["max"]}
    entry["rates"] = {name: rate["mean"] for name, rate in rates.items()}
    entry["heads"] = {
        key: values for name in HEAD_METRICS for key, values in _heads(name, getattr(diagnosis, name), block)
    }
    entry["spread"] = _rest(spreads) | {"rates": _rest(rates)}
    if diagnosis.attribution is not None:
        parts = {part: at(diagnosis.attribution, block, k) for k, part in enumerate(diagnosis.parts)}
        entry["attribution"] = {part: change["mean"] for part, change in parts.items()}
        entry["spread"]["attribution"] = _rest(parts)
    return entry


def _heads(name: str, spread: Spread, block: int) -> list[tuple[str, list[float]]]:
    return [
        (name, spread.mean[block].tolist()),
        (f"{name}_min", spread.min[block].tolist()),
        (f"{name}_max", spread.max[block].tolist()),
    ]


def _rest(spreads: dict[str, dict[str, float]]) -> dict[str, dict[str, float]]:
    return {name: {k: v for k, v in spread.items() if k != "mean"} for name, spread in spreads.items()}


def described(found: Comparison | Diagnosis | HeadConvergence | MapConvergence | Verification) -> dict[str, Any]:
    """The head of every file of numbers: the schema, which model, and which data."""
    return {"schema": SCHEMA, "model": dataclasses.asdict(found.model), "data": dataclasses.asdict(found.data)}


def folder_for(result: Any, kind: type, out: Any) -> Path:
    """The folder, where both it and the result are what a writer takes.

    Raises:
      DataError: another kind of result.
      OptionError: no path.
    """
    if not isinstance(result, kind):
        raise DataError(f"the result must be a {kind.__name__}; got {type(result).__name__}.")
    return as_path("out", out)
