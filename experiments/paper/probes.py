"""A linear probe of token ids and positions, of hidden states as they are and smoothed: part (a) of criticisms.py."""

from typing import Any

import numpy as np
from jax import Array
from numpy.typing import NDArray

import jaxsmooth
from jaxsmooth import BlockTrace

from .. import keeping
from . import observed

GAPS = (None, 3e-1, 1e-1, 1e-2, 1e-3, 1e-5, 1e-7, 1e-9, 1e-11)
"""1 - mean cosine that the last layer is smoothed to; None for as it is."""
PRECISIONS = ("float32", "float64")
FREQUENT, POSITIONS = 40, 16


def least_squares_probe(x: NDArray, y: NDArray, test: NDArray, classes: int) -> NDArray:
    """Predicted classes of test rows by a linear map with a constant, fitted to one-hot targets in x's own precision.

    Args:
      x: states, [n D].
      y: their classes, [n].
      test: other states, [m D].
      classes: how many there are.

    Returns:
      [m].
    """
    centre = x.mean(axis=0)
    design, other = (np.concatenate([side - centre, np.ones((len(side), 1), x.dtype)], axis=1) for side in (x, test))
    kernel = np.linalg.lstsq(design, np.eye(classes, dtype=x.dtype)[y], rcond=None)[0]
    return np.argmax(other @ kernel, axis=1)


def smoothed(states: NDArray, text: NDArray, gap: float | None) -> NDArray:
    """Every text's rows drawn to their mean by one factor s, so that 1 - mean cosine is `gap`, in float64.

    Args:
      states: rows of all texts, [n D].
      text: the text of each row, [n], ascending.
      gap: wanted mean over texts of 1 - cosine, below what it is; None leaves the rows alone.
    """
    wide = states.astype(np.float64)
    if gap is None:
        return wide
    mean, _ = text_means(wide, text)
    scale = 1.0
    for _ in range(30):  # the gap goes like s^2 next to equal tokens
        reached = mean_gap(mean + scale * (wide - mean), text)
        if abs(reached / gap - 1) < 1e-4:
            break
        scale *= np.sqrt(gap / reached)
    return mean + scale * (wide - mean)


def text_means(rows: NDArray, text: NDArray) -> tuple[NDArray, NDArray]:
    """The mean row of its text for every row, [n D], and every text's number of rows; texts ascend."""
    starts = np.flatnonzero(np.diff(text, prepend=-1))
    counts = np.diff(starts, append=len(text))
    return np.repeat(np.add.reduceat(rows, starts, axis=0) / counts[:, None], counts, axis=0), counts


def mean_gap(states: NDArray, text: NDArray) -> float:
    """1 - mean cosine of a text's distinct rows, mean over texts of two rows or more; keeps its digits near 0."""
    unit = states / np.linalg.norm(states, axis=1, keepdims=True)
    mean, counts = text_means(unit, text)
    spread = np.add.reduceat(((unit - mean) ** 2).sum(axis=1), np.cumsum(counts) - counts)
    return float(np.mean((spread / np.maximum(counts - 1, 1))[counts > 1]))


def token_states(model: str, count: int) -> dict[str, NDArray]:
    """Hidden states of all real tokens of film reviews, [L+1 n D], with text, position and id of each, [n]."""
    encoder, tokenizer = observed.loaded(model)
    texts = observed.texts_of("movie-reviews", count)
    parts: dict[str, list[NDArray]] = {"states": [], "text": [], "position": [], "id": []}
    for encoded in tokenizer.batches(texts, tokens_per_batch=1024):
        rows = len(encoded.indices)
        batch = encoded.batch
        first, rest = jaxsmooth.embed(encoder, batch), jaxsmooth.encode(encoder, batch, collect=_hidden)[1]
        mask = np.asarray(batch.mask)[:rows]
        where, position = np.nonzero(mask)
        parts["states"].append(np.concatenate([np.asarray(first)[None], np.asarray(rest)])[:, where, position])
        parts["text"].append(encoded.indices[where])
        parts["position"].append(position)
        parts["id"].append(np.asarray(batch.tokens)[where, position])
    joined = {name: np.concatenate(part, axis=1 if name == "states" else 0) for name, part in parts.items()}
    order = np.argsort(joined["text"], kind="stable")
    return {name: value[:, order] if name == "states" else value[order] for name, value in joined.items()}


def _hidden(trace: BlockTrace) -> Array:
    return trace.hidden


def labels(found: dict[str, NDArray], what: str, special: frozenset[int]) -> NDArray:
    """The class of every token, -1 for those that are not asked about, [n].

    Of "id" the most frequent ids of the texts that the probe is fitted on; ids that stand in every text (special
    tokens, a prefix) are not asked about. Of "position" the first `POSITIONS` after the first token.
    """
    if what == "position":
        position = found["position"]
        return np.where((position >= 1) & (position <= POSITIONS), position - 1, -1)
    ids, fitted = found["id"], found["text"] % 2 == 0
    texts = len(np.unique(found["text"][fitted]))
    known, counts = np.unique(ids[fitted], return_counts=True)
    everywhere = {k for k in known if len(np.unique(found["text"][fitted & (ids == k)])) == texts}
    usable = [k for k in known[np.argsort(-counts, kind="stable")] if k not in special and k not in everywhere]
    table = {k: place for place, k in enumerate(usable[:FREQUENT])}
    return np.array([table.get(k, -1) for k in ids])


def accuracy(states: NDArray, text: NDArray, label: NDArray) -> tuple[float, float, float]:
    """Share of held-out tokens (of odd texts) that the probe names, with its 95% interval over texts."""
    asked, held_out = label >= 0, text % 2 == 1
    fit, test = asked & ~held_out, asked & held_out
    right = least_squares_probe(states[fit], label[fit], states[test], label.max() + 1) == label[test]
    places = np.unique(text[test], return_inverse=True)[1]
    hits, all_ = np.bincount(places, right), np.bincount(places)
    low, high = keeping.bootstrap(lambda k: hits[k].sum(axis=1) / all_[k].sum(axis=1), len(all_))
    return float(right.mean()), float(low), float(high)


def probe(model: str, count: int) -> dict[str, Any]:
    """(a) of one model."""
    found = token_states(model, count)
    special = observed.loaded(model)[1].special_ids
    text, last, result = found["text"], found["states"][-1], {}
    own = mean_gap(last.astype(np.float64), text)
    drawn_in = [smoothed(last, text, gap) for gap in GAPS if gap is None or gap < own]
    cosines = [1 - mean_gap(layer.astype(np.float64), text) for layer in found["states"]]
    for what in ("id", "position"):
        label = labels(found, what, special)
        asked = label >= 0
        most = np.bincount(label[asked & (text % 2 == 0)]).argmax()
        tested = asked & (text % 2 == 1)
        result[what] = {
            "classes": int(label.max()) + 1,
            "tested": int(tested.sum()),
            "chance": float(np.mean(label[tested] == most)),
            "layers": [{"cosine": cosine, "accuracy": accuracy(layer, text, label)}
                       for cosine, layer in zip(cosines, found["states"], strict=True)],
            "smoothed": [{"gap": mean_gap(states, text)}
                         | {kind: accuracy(states.astype(kind), text, label) for kind in PRECISIONS}
                         for states in drawn_in],
        }  # fmt: skip
    return result
