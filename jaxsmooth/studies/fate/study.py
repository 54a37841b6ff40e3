"""`converge_map`: one of a model's maps applied again and again to real text, and where its tokens go."""

import dataclasses
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array
from numpy.typing import NDArray

from ...bert.params import Encoder
from ...errors import TextError, arguments_checked, is_int, is_number, require_int
from ...inputs.batching import EncodedBatch
from ...inputs.tokenizer import Tokenizer
from ...programs import kept
from ...results.fate import FATES, SENTENCE_NUMBERS, MapConvergence, MapFates, StdSweep
from ...theory.equal_tokens import NEARLY_AT_REST
from ...theory.fate.orbit import Fate, default_tolerance
from ...theory.fate.stability import Krylov, krylov_radius
from ...types import Batch
from ..finite import refuse_diverged
from ..stream import TextStream
from ..summaries import model_summary, package_versions
from .maps import MAPS
from .programs import basins, fates, jacobians, starts, swept
from .threshold import std_thresholds


@dataclasses.dataclass(frozen=True)
class _Setting:
    """What is done to every batch."""

    kind: str
    layers: tuple[int, ...]  # from 0; (0,) for the stack
    steps: int
    tolerance: float
    std: float | None
    stds: tuple[float, ...]
    halvings: int

    @property
    def followed(self) -> dict[str, Any]:
        return {"kind": self.kind, "steps": self.steps, "tolerance": self.tolerance}


@arguments_checked
def converge_map(
    model: Encoder,
    tokenizer: Tokenizer | None,
    texts: Iterable[Any],
    *,
    map: str,
    layer: int | None = None,
    steps: int = 200,
    tolerance: float | None = None,
    std: float | Sequence[float] | None = None,
    basin: int = 0,
    name: str = "model",
    data: str = "texts",
    note: str = "",
    tokens_per_batch: int = 512,
    progress: bool = False,
    programs: Path | None = None,
) -> MapConvergence:
    """Apply one of the model's own maps again and again, everything recomputed each time; say where each sentence goes.

    A sentence starts at what enters the layer in the model's own run on it, for the stack at its embedding. See
    `theory.fate.follow` for when its fate is decided, and docs/fate.md for the maps.

    Args:
      model: the encoder, of any family; its dtype is the precision.
      tokenizer: its tokenizer; None for a vision encoder.
      texts: sentences, any iterable of strings; for a vision encoder images, each [C Y X].
      map: "attention" (mean over heads, acting on the tokens), "attention-values" (the sub-layer without its residual
        sum), "layer" (a whole block) or "stack" (all blocks).
      layer: which block, from 1; all, one after the other, unless given. Not for the stack.
      steps: the most applications.
      tolerance: relative distance, or change, that counts as none: 1e-9 in float64, 1e-5 in float32 unless given.
      std: imposed on both norms of every block in the place of their own; several for a sweep over them, beside the
        run with the norms' own.
      basin: how often to halve the interval in which the basin of consensus ends; 0 to leave it out.
      name: the model's name, for the report.
      data: the text's name, for the report.
      note: a warning to print with the model.
      tokens_per_batch: size of a batch, padding included.
      progress: whether to show a progress bar on stderr.
      programs: folder of traced programs, which another process need not trace again (see `programs.kept`).

    Returns:
      A `MapConvergence`.

    Raises:
      TextError: no text, something that is not text, no such map or layer, or a number out of range.
      DivergedError: a model whose own run is not finite; names the first layer and array.

    >>> import jaxsmooth
    >>> model, tokenizer = jaxsmooth.load("tiny")
    >>> found = converge_map(model, tokenizer, ["Dull."], map="attention", layer=1, steps=20)
    >>> found.maps[0].fate, found.maps[0].layer
    (('consensus',), 1)
    """
    setting = _checked(model, map, layer, steps, tolerance, std, basin)
    gathered = _Gathered(setting, programs)
    stream = TextStream(model, tokenizer, texts, "iterating", tokens_per_batch=tokens_per_batch, progress=progress)
    with stream:
        for encoded in stream:
            gathered.add(stream.model, tokenizer, encoded)
    return MapConvergence(
        model=model_summary(model, name, note),
        data=stream.summary(data),
        map=map,
        steps=steps,
        tolerance=setting.tolerance,
        std=setting.std,
        tokens=gathered.tokens(),
        maps=tuple(gathered.fates_of(place) for place in range(len(setting.layers))),
        sweeps=gathered.sweeps(model),
        versions=package_versions(),
    )


def _plain(value: Any) -> Any:
    """A whole number of numpy as one of Python, which programs are compiled for."""
    return int(value) if isinstance(value, np.integer) else value


def _checked(
    model: Encoder, kind: str, layer: int | None, steps: int, tolerance: float | None, std: Any, basin: int
) -> _Setting:
    if kind not in MAPS:
        raise TextError(f"map must be one of {', '.join(MAPS)}; got {kind!r}.")
    steps, basin, layer = (_plain(value) for value in (steps, basin, layer))
    require_int("steps", steps, 2, TextError)
    require_int("basin", basin, 0, TextError)
    depth = model.config.layers
    if layer is not None and (kind == "stack" or not is_int(layer, 1, depth)):
        allowed = "the stack has all layers" if kind == "stack" else f"layers count from 1 to {depth}"
        raise TextError(f"layer={layer!r} is out of range: {allowed}.")
    one, stds = _imposed(std)
    if (stds or one is not None) and kind not in ("layer", "stack"):
        raise TextError(f"std is imposed on the norms of a whole block: map must be layer or stack; got {kind!r}.")
    # ALBERT's layers are one block: the same map whichever is asked for, but for the tokens it starts from.
    places = (0,) if kind == "stack" else tuple(range(depth)) if layer is None else (layer - 1,)
    dtype = jax.tree.leaves(model)[0].dtype
    tolerance = default_tolerance(dtype) if tolerance is None else _positive("tolerance", tolerance)
    return _Setting(kind, places, steps, tolerance, one, stds, basin)


def _imposed(std: Any) -> tuple[float | None, tuple[float, ...]]:
    """The std of the run itself, and those of the sweep beside it."""
    if isinstance(std, np.ndarray | jax.Array):
        std = np.asarray(std).tolist()
    if std is None or is_number(std):
        return None if std is None else _positive("an imposed std", std), ()
    if isinstance(std, str | bytes) or not isinstance(std, Iterable):
        raise TextError(f"an imposed std must be a finite number above 0, or several; got {std!r}.")
    several = tuple(_positive("an imposed std", value) for value in std)
    if not several:
        raise TextError("an imposed std must be a finite number above 0, or several; got none.")
    return None, several


def _positive(name: str, value: Any) -> float:
    if not is_number(value) or not 0 < value < np.inf:
        raise TextError(f"{name} must be a finite number above 0; got {value!r}.")
    return float(value)


class _Gathered:
    """What was found of each sentence, by its place in the text."""

    def __init__(self, setting: _Setting, programs: Path | None) -> None:
        self.setting = setting
        self._starts = kept(starts, programs)
        self._fates, self._sweep = (kept(one, programs, **setting.followed) for one in (fates, swept))
        self._basins = kept(basins, programs, **setting.followed, halvings=setting.halvings)
        self._jacobians = kept(jacobians, programs, structs=(Krylov,), kind=setting.kind)
        self._tokens: dict[int, tuple[str, ...]] = {}
        self._rows: list[dict[int, dict[str, Any]]] = [{} for _ in setting.layers]
        self._swept: list[dict[int, tuple[NDArray, NDArray]]] = [{} for _ in setting.layers]
        self._mixing: list[NDArray] = []

    def add(self, model: Encoder, tokenizer: Tokenizer | None, encoded: EncodedBatch) -> None:
        """One batch through every map."""
        batch, setting = encoded.batch, self.setting
        with jax.default_matmul_precision("highest"):
            begun = self._starts(model, batch)
            refuse_diverged(model, encoded, begun)
            for place, layer in enumerate(setting.layers):
                arguments = (model, begun["input"][layer], batch.mask, jnp.int32(layer))
                self._keep(place, encoded, self._one_map(*arguments))
                if setting.stds:
                    stds = jnp.asarray(setting.stds, begun["input"].dtype)
                    fate, rate = (np.asarray(side) for side in self._sweep(*arguments, stds))
                    self._swept[place] |= {int(k): (fate[:, r], rate[:, r]) for r, k in enumerate(encoded.indices)}
        if begun["mixing"].ndim > 1:
            self._mixing.append(np.asarray(begun["mixing"])[:, : len(encoded.indices)].max(axis=1))
        mask = np.asarray(batch.mask)
        for row, index in enumerate(encoded.indices):
            self._tokens[int(index)] = _names(tokenizer, batch, mask, row)

    def _one_map(self, model: Encoder, start: Array, mask: Array, layer: Array) -> dict[str, NDArray]:
        setting = self.setting
        std = None if setting.std is None else jnp.asarray(setting.std, start.dtype)
        found: dict[str, Any] = self._fates(model, start, mask, layer, std)
        rest, near = self._radii(model, mask, layer, std, found)
        found["radius"], found["radius_residual"] = rest
        found["consensus_radius"], found["consensus_residual"] = near
        if setting.halvings:
            found["basin_reached"], found["basin_missed"] = self._basins(model, start, mask, layer, std)
        found["distances"] = found["distances"].T
        found["mask"] = mask
        return {key: np.asarray(values) for key, values in found.items()}

    def _radii(self, model: Encoder, mask: Array, layer: Array, std: Array | None, found: dict[str, Any]) -> tuple:
        """Of the Jacobian at the states of rest, where there are any, and at the consensus near by."""
        final, move, equal, deviation = (found.pop(key) for key in ("final", "move", "equal", "deviation"))
        period = jnp.maximum(found["period"], 1)
        one = jnp.ones_like(period)

        def radius(state: Array, period: Array, centred: Array, start: Array) -> tuple[NDArray, NDArray]:
            krylov = self._jacobians(model, state, mask, layer, std, period, centred, start)
            return krylov_radius(krylov, np.asarray(period))

        unknown = np.full(len(period), np.nan)
        rest = unknown, unknown
        if np.isin(np.asarray(found["fate"]), (Fate.CLUSTERS, Fate.CYCLE)).any():
            rest = radius(final, period, one == 0, move)
        return rest, radius(equal, one, one == 1, deviation)

    def _keep(self, place: int, encoded: EncodedBatch, found: dict[str, NDArray]) -> None:
        for row, index in enumerate(encoded.indices):
            self._rows[place][int(index)] = {key: values[row] for key, values in found.items()}

    def tokens(self) -> tuple[tuple[str, ...], ...]:
        return tuple(self._tokens[k] for k in sorted(self._tokens))

    def fates_of(self, place: int) -> MapFates:
        layer = 0 if self.setting.kind == "stack" else self.setting.layers[place] + 1
        rows = [_read(self._rows[place][k]) for k in sorted(self._rows[place])]
        return MapFates(
            layer=layer,
            fate=tuple(row["fate"] for row in rows),
            clusters=tuple(row["clusters"] for row in rows),
            numbers={key: np.array([row[key] for row in rows], np.float64) for key in SENTENCE_NUMBERS},
            distances=np.stack([row["distances"] for row in rows]).astype(np.float64),
        )

    def sweeps(self, model: Encoder) -> tuple[StdSweep, ...]:
        if not self.setting.stds:
            return ()
        mixing = np.max(self._mixing, axis=0) if self._mixing else None
        found = []
        for place, rows in enumerate(self._swept):
            stack = self.setting.kind == "stack"
            layers = range(model.config.layers) if stack else [self.setting.layers[place]]
            paper, own = std_thresholds(model, mixing, layers)
            ordered = [rows[k] for k in sorted(rows)]
            fate = np.stack([fate for fate, _ in ordered], axis=1)
            rate = np.stack([rate for _, rate in ordered], axis=1).astype(np.float64)
            words = tuple(tuple(FATES[code] for code in row) for row in fate)
            stds = np.array(self.setting.stds)
            found.append(StdSweep(0 if stack else layers[0] + 1, stds, words, rate, paper, own))
        return tuple(found)


def _read(row: dict[str, NDArray]) -> dict[str, Any]:
    """One sentence's numbers, those without a meaning for its fate left out."""
    fate = FATES[int(row["fate"])]
    read: dict[str, Any] = {key: float(row[key]) if key in row else float("nan") for key in SENTENCE_NUMBERS}
    distances, mask = row["distances"], row["mask"]
    known = distances[np.isfinite(distances)]
    read["distance_start"], read["distance"] = (float(known[0]), float(known[-1])) if known.size else (np.nan, np.nan)
    if fate != "clusters":
        read["rest_rate"] = float("nan")
    if fate not in ("clusters", "cycle"):
        read["radius"] = read["radius_residual"] = float("nan")
    if mask.sum() < 2 or fate == "diverged":  # one token is always in consensus, and no deviation can shrink
        read |= dict.fromkeys(("consensus_rate", "consensus_radius", "consensus_residual"), float("nan"))
    if not read["row_change"] <= NEARLY_AT_REST:  # of a common token at no fixed point the local law is not asked
        read |= dict.fromkeys(("consensus_radius", "consensus_residual"), float("nan"))
    return read | {"fate": fate, "clusters": _groups(row["clusters"], mask, fate), "distances": distances}


def _groups(labels: NDArray, mask: NDArray, fate: str) -> tuple[tuple[int, ...], ...]:
    """Positions among the real tokens, by cluster, largest first."""
    labels = labels[mask]
    if fate == "consensus":
        return (tuple(range(len(labels))),)
    groups = [tuple(np.flatnonzero(labels == label).tolist()) for label in np.unique(labels)]
    return tuple(sorted(groups, key=lambda group: (-len(group), group)))


def _names(tokenizer: Tokenizer | None, batch: Any, mask: NDArray, row: int) -> tuple[str, ...]:
    """How the tokens of a sentence are spelled; tokens of an image by their number."""
    if isinstance(batch, Batch) and tokenizer is not None:
        return tuple(tokenizer.strings(np.asarray(batch.tokens)[row][mask[row]]))
    return tuple(str(k + 1) for k in range(int(mask[row].sum())))
