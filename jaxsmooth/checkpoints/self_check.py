"""The self-check of an encoder that was read: a probe of a few tokens through it, against what must hold and is known.

What must hold of any encoder: every array of every layer is finite, every row of attention sums to 1, the tokenizer's
ids have rows in the word table. What is known of some: eight numbers that the probe's last hidden states gave when the
model was saved, under `ANSWER_KEY` in `config.json`.

The answer is worked out in float32, and compared in float32 or, of a model read in float64, in float64. In bfloat16 it
is that of the rounded weights, which is in the file too, as is float16's: rounding to nearest gives the same bits
everywhere. What is left to differ is the rounding and the order of float32 sums on another machine. Moving every weight
by 2^-9 of itself moved the answer by m; float32 operations move theirs by 2^-24 of themselves, so the tolerance is
2^-15 m times 2^5 for their number, and at least 2^-18 of the answer's size.
"""

import dataclasses
import functools
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
from jax.extend.core import ClosedJaxpr
from jaxtyping import Array

from ..assets.cache import added_file
from ..assets.registry import REGISTRY
from ..bert.config import EncoderConfig
from ..bert.encoder import embed, encode
from ..bert.params import Encoder
from ..errors import CheckpointError
from ..inputs.tokenizer import Tokenizer
from ..json_reading import loads
from ..types import Batch, BlockTrace, ImageBatch
from .config_json import ANSWER_KEY
from .host import run_on_host

TOKENS, NUMBERS = 8, 8
PINNED = "answer.json"
ROUNDED = {"float32": np.float32, "bfloat16": ml_dtypes.bfloat16, "float16": np.float16}
"""The dtypes whose rounded weights' answers are stored."""
STEP = 2.0**-9  # half a bfloat16's last bit, relative
SHARE, FLOOR = 2.0**-10, 2.0**-18
TWICE_ROUNDED = 4.0
SETTINGS = ("activation", "heads", "eps", "layers", "placement", "positions")
"""Fields that a wrong answer is explained by first."""
ROWS_TOLERANCE = 1e-4
TEXT = "A text of a few words, 1 of them a number."
OFF = "load(..., check=False), or --no-check, reads it all the same."

# In the order of computation.
_POST = (
    *("query", "key", "value", "attn_logits", "attn", "context", "mixed", "pre_attn", "std_attn"),
    *("normed", "mlp", "pre_mlp", "std_mlp", "hidden"),
)
_PRE = (
    *("std_attn", "query", "key", "value", "attn_logits", "attn", "context", "mixed", "pre_attn"),
    *("std_mlp", "normed", "mlp", "pre_mlp", "hidden"),
)


def check_read(model: Encoder, tokenizer: Tokenizer | None, where: str, answer: Mapping[str, Any] | None) -> None:
    """Refuse a model that cannot be what its files mean.

    Args:
      model: as it was read; nothing is checked while it is traced.
      tokenizer: read beside it, or None.
      where: names the files in errors.
      answer: from `known_answer`, or None.

    Raises:
      CheckpointError: what differs from what was expected, and the usual cause.
    """
    if any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves(model)):
        return
    config = model.config
    if tokenizer is not None and not config.is_vision:
        ids = tokenizer.rows([TEXT], length=config.max_length)[0].ids
        check_ids(np.asarray([*ids, tokenizer.pad_id]), config, f"{where}: its tokenizer gives a text")
    tokens = None if answer is None else answer["tokens"]
    if tokens is not None:
        check_ids(np.asarray(tokens), config, f"{where}: the model was saved with")
    hidden = _finite_hidden(model, tokens, where)
    if answer is not None:
        _compare(numbers_of(hidden), answer, model, where)


def known_answer(name: str, directory: Path) -> dict[str, Any] | None:
    """What the probe is known to give: of an asset by this package, elsewhere by `config.json`; or None.

    transformers writes keys on that it does not know. An answer beside its version is of the weights before.

    Args:
      name: as it was given to `load`.
      directory: where it led.

    Raises:
      CheckpointError: an answer that is none.
    """
    own = directory / "config.json"
    if directory != Path(name) and name in REGISTRY:
        try:
            file, text = f"the pinned answer of {name}", added_file(REGISTRY[name], PINNED).decode()
        except FileNotFoundError:
            return None
    elif own.exists():
        file, text = str(own), own.read_text(encoding="utf-8")
    else:
        return None
    hf = loads(text)
    answer = hf.get(ANSWER_KEY)
    if answer is None or "transformers_version" in hf:
        return None
    try:
        whole = {name: answer[name] for name in ("tokens", "tolerance", *ROUNDED)}
        lists = [np.asarray(whole[name], np.float64).shape for name in ROUNDED if whole[name] is not None]
        tokens = np.asarray(whole["tokens"])
        good = set(lists) == {(NUMBERS,)} and tokens.ndim == 1 and (not tokens.size or tokens.dtype.kind == "i")
        good = good and whole["float32"] is not None and float(whole["tolerance"]) > 0
    except (TypeError, KeyError, ValueError):
        good = False
    if not good:
        raise CheckpointError(
            f"{file}: {ANSWER_KEY} must hold tokens, tolerance and {NUMBERS} numbers for each of "
            f"{', '.join(ROUNDED)}; got {answer!r:.100}. Without the key nothing is compared."
        )
    return dict(answer)


def make_answer(model: Encoder) -> dict[str, Any] | None:
    """The answer of a model that is about to be written; None for one whose hidden states are not finite.

    Args:
      model: the encoder, in any dtype.

    Returns:
      A JSON object for `known_answer`.
    """
    tokens = _probe_tokens(model.config)
    bare, places = _bare(model, tokens)

    def numbers(change: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
        with np.errstate(over="ignore"):  # beyond the range of float16, or of float32: no answer, below
            return numbers_of(_probe(jax.tree.map(change, bare), places).hidden)

    def rounded(kind: Any) -> np.ndarray:
        return numbers(lambda leaf: leaf.astype(kind).astype(np.float32))

    found = {name: rounded(kind) for name, kind in ROUNDED.items()}
    if not np.all(np.isfinite(found["float32"])):
        return None
    moved = np.abs(numbers(_moved) - found["float32"]).max()
    size = np.abs(found["float32"]).max()
    return {
        "tokens": tokens,
        "tolerance": float(max(SHARE * moved, FLOOR * size, np.finfo(np.float32).tiny)),
        **{name: value.tolist() if np.all(np.isfinite(value)) else None for name, value in found.items()},
        "settings": {name: getattr(model.config, name) for name in SETTINGS},
    }


def numbers_of(hidden: np.ndarray) -> np.ndarray:
    """Eight numbers that every entry of the hidden states counts in.

    Args:
      hidden: of the probe's real tokens, [T D].

    Returns:
      [8], each a sum with cosines of its own frequency, over the root of their number.
    """
    flat = np.asarray(hidden, np.float64).reshape(-1)
    waves = np.cos(np.sqrt([2.0, 3, 5, 7, 11, 13, 17, 19])[:, None] * np.arange(1, flat.size + 1)[None])
    return waves @ flat / np.sqrt(flat.size)


class _Seen(NamedTuple):
    """The probe's way through the encoder: last hidden states [T D], and what was asked of every layer [L ...]."""

    hidden: Any
    embedded: Any
    finite: Any
    rows: Any


def _run(model: Encoder, batch: Batch | ImageBatch) -> _Seen:
    names = _POST if model.config.placement == "post" else _PRE

    def watch(trace: BlockTrace) -> tuple[Array, Array]:
        finite = jnp.stack([jnp.isfinite(getattr(trace, name)).all() for name in names])
        return finite, jnp.abs(trace.attn.sum(axis=-1) - 1).max()

    hidden, (finite, rows) = encode(model, batch, collect=watch)
    return _Seen(hidden=hidden[0], embedded=jnp.isfinite(embed(model, batch)).all(), finite=finite, rows=rows)


def _probe(bare: Encoder, tokens: list[int]) -> _Seen:
    """What a probe finds in an encoder: `encode` itself, traced, and run in numpy, which needs no compilation."""
    leaves, tree = jax.tree.flatten((bare, _batch(bare.config, tokens)))
    shapes = tuple((leaf.shape, leaf.dtype) for leaf in leaves)
    program = _program(tree, shapes, bool(jax.config.read("jax_enable_x64")))
    return _Seen(*run_on_host(program, leaves))


@functools.lru_cache(maxsize=8)
def _program(tree: Any, shapes: tuple[Any, ...], x64: bool) -> ClosedJaxpr:
    """The traced probe; precision of integers is part of its types."""
    with np.errstate(all="ignore"):  # an epsilon beyond float32, say, which shows in what comes out
        return jax.make_jaxpr(_run)(*jax.tree.unflatten(tree, [jax.ShapeDtypeStruct(*each) for each in shapes]))


def _finite_hidden(model: Encoder, tokens: list[int] | None, where: str) -> np.ndarray:
    """The probe's last hidden states, once all that must hold on the way there does."""
    config = model.config
    seen = _probe(*_bare(model, _probe_tokens(config) if tokens is None else tokens))
    names, finite = _POST if config.placement == "post" else _PRE, seen.finite
    place = ""
    if not seen.embedded:
        place = "the embedding"
    elif not finite.all():
        layer, name = np.argwhere(~finite)[0]
        place = f"{names[name]!r} of layer {layer}"
    elif not np.isfinite(seen.hidden).all():
        place = "the final norm's output"
    if place:
        raise CheckpointError(
            f"{where}: a probe of {TOKENS} tokens must give finite numbers; the first that are not are in {place}. Did "
            f"training diverge, or is a tensor there damaged? {OFF}"
        )
    worst = seen.rows
    if worst.max() > ROWS_TOLERANCE:
        raise CheckpointError(
            f"{where}: every row of attention must sum to 1 within {ROWS_TOLERANCE}; got one off by {worst.max():.2g} "
            f"in layer {int(worst.argmax())}. Are the queries and keys of that layer damaged? {OFF}"
        )
    return seen.hidden


def _compare(found: np.ndarray, answer: Mapping[str, Any], model: Encoder, where: str) -> None:
    stored = {name: np.asarray(answer[name]) for name in ROUNDED if answer[name] is not None}
    off = {name: float(np.abs(found - value).max()) for name, value in stored.items()}
    allowed = float(answer["tolerance"])
    dtype = str(jax.tree.leaves(model)[0].dtype)
    if dtype == "bfloat16" and "bfloat16" in stored:
        # Of weights that were float16 in between: one in 16 is rounded to the other side, a whole bit away.
        allowed = max(allowed, TWICE_ROUNDED * float(np.abs(stored["bfloat16"] - stored["float32"]).max()))
    if min(off.values()) <= allowed:
        return
    then = answer.get("settings", {})
    config = {name: (then[name], getattr(model.config, name)) for name in SETTINGS if name in then}
    changed = [f"{name} was {old!r} and is {new!r}" for name, (old, new) in config.items() if old != new]
    why = (
        f"since the model was saved config.json was changed: {'; '.join(changed)}"
        if changed
        else "the weights, or config.json, are not those that were saved"
    )
    raise CheckpointError(
        f"{where}: the encoder must give a probe of {TOKENS} tokens the answer that {ANSWER_KEY} holds, within "
        f"{allowed:.2g}; it is off by {min(off.values()):.2g}: {why}. If that is meant, take {ANSWER_KEY} out of "
        f"config.json; {OFF}"
    )


def check_ids(ids: np.ndarray, config: EncoderConfig, what: str) -> None:
    """Refuse ids that the word table has no rows for.

    Args:
      ids: any shape.
      config: the encoder's.
      what: the sentence's beginning.

    Raises:
      CheckpointError: says which id.
    """
    if ids.size and not 0 <= ids.min() <= ids.max() < config.vocab:
        raise CheckpointError(
            f"{what} id {int(ids.max())}; the word table has rows 0 to {config.vocab - 1}. Was the vocabulary cut, or "
            f"is the tokenizer another model's? {OFF}"
        )


def _moved(leaf: np.ndarray) -> np.ndarray:
    """Every number moved by `STEP` of itself, up or down as one hashed bit of it says."""
    leaf = leaf.astype(np.float32)
    up = (np.atleast_1d(leaf).view(np.uint32) * np.uint32(2654435761)) >> np.uint32(31)
    return leaf * (1 + np.float32(STEP) * (2 * up.astype(np.float32) - 1)).reshape(leaf.shape)


def _bare(model: Encoder, tokens: list[int]) -> tuple[Encoder, list[int]]:
    """What the probe runs through, in numpy: of the word table only the rows that it reads, and their numbers."""
    config = dataclasses.replace(model.config, other_keys="", note="")
    table = model.embeddings
    if not config.is_vision:
        # Padding keeps the id by which positions know it.
        pad = max(0, config.position_offset - 1)
        others = sorted({*tokens} - {config.pad_token})
        rows = [*others[:pad], *(pad - len(others)) * [config.pad_token], config.pad_token, *others[pad:]]
        tokens = [rows.index(token) for token in tokens]
        config = dataclasses.replace(config, vocab=len(rows), pad_token=pad)
        read: Any = np.asarray(table.word)[rows]
        table = dataclasses.replace(table, word=read)
    model = dataclasses.replace(model, pooler=None, config=config, embeddings=table)
    return jax.tree.map(lambda leaf: np.asarray(leaf, np.promote_types(leaf.dtype, np.float32)), model), tokens


def _probe_tokens(config: EncoderConfig) -> list[int]:
    """Ids spread over the vocabulary, its last one included, none of them the padding's."""
    if config.is_vision:
        return []
    count = min(TOKENS, config.max_length)
    ids = [(k + 1) * config.vocab // count - 1 for k in range(count)]
    ids = [max(0, k) for k in ids]
    return [(k + 1) % config.vocab if k == config.pad_token else k for k in ids]


def _batch(config: EncoderConfig, tokens: list[int]) -> Batch | ImageBatch:
    """One sentence, its last token padding where there is another; or one image of waves."""
    if config.is_vision:
        shape = (1, config.channels, config.image_size, config.image_size)
        waves: Any = np.cos(np.arange(math.prod(shape), dtype=np.float32)).reshape(shape)
        seen: Any = np.ones((1, config.position_rows), bool)
        return ImageBatch(pixels=waves, mask=seen)
    places = np.arange(len(tokens))
    mask: Any = places < max(1, len(tokens) - 1)
    second: Any = (places >= len(tokens) // 2) & (config.segments > 1)
    ids: Any = np.where(mask, np.asarray(tokens), config.pad_token)
    return Batch(tokens=ids[None].astype(np.int32), segments=second[None].astype(np.int32), mask=mask[None])
