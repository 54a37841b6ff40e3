"""The names of a checkpoint's tensors without what wrappers put before them, and what is amiss where they do not fit.

A model inside another module is called by that module's attribute: torch's DistributedDataParallel puts "module."
before every name, torch.compile "_orig_mod.", sentence-transformers "0.auto_model.", a class of the user's what its
author chose. Known wrappers are stripped, in any nesting; another name is not guessed at but named.
"""

import functools
import re
from collections.abc import Iterable, Iterator, Sequence
from fnmatch import translate
from typing import NamedTuple

from .names import NAMES, OWN

WRAPPERS = frozenset(
    (
        *(
            "0",
            "state_dict",
            "module",
            "_module",
            "model",
            "base_model",
            "auto_model",
            "hf_model",
            "pretrained_model",
            "encoder",
        ),
        *("transformer", "transformer_model", "backbone", "base", "net", "network", "core", "lm", "plm"),
        *("language_model", "text_model", "text_encoder", "sentence_encoder"),
        *("question_encoder", "query_encoder", "ctx_encoder", "span_predictor"),
    )
)
"""Segments of a name that say nothing about the model: what trainers and common classes put before it."""
TRANSPARENT = frozenset(["_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module", "_forward_module"])
"""Segments that compilers and sharding put before any module, inside the model too."""

BUFFERS = ("*rotary_emb.*inv_freq", "*.position_ids")
"""What old versions of transformers stored besides parameters."""

DEPTH, SAMPLE = 40, 500
"""Segments of a name, and names of a checkpoint, beyond which nothing is made out: a damaged file may have millions."""

_OLD = {"gamma": "weight", "beta": "bias"}  # of norms, TensorFlow's
_VIT_5 = re.compile(r"layers\.(\d+)\.(attention\.[qkvo]_proj|mlp\.fc[12]|layernorm_\w+)\.(weight|bias)")
_OF_VIT_5 = {
    **{f"attention.{name[0]}_proj": f"attention.attention.{name}" for name in ("query", "key", "value")},
    "attention.o_proj": "attention.output.dense",
    "mlp.fc1": "intermediate.dense",
    "mlp.fc2": "output.dense",
}
"""What transformers 5 calls a vision encoder's layers in memory, and so in a state dict; its files keep older names."""
_LIKE_ROBERTA = ("roberta", "xlm-roberta", "camembert")  # one encoder under three names


class Sorted(NamedTuple):
    """What the names of a checkpoint are.

    Attributes:
      own: stored name -> plain name, of the encoder's tensors.
      heads: likewise of heads and buffers.
      inside: stored names below the encoder's own modules that are none of its tensors.
      others: all other stored names.
    """

    own: dict[str, str]
    heads: dict[str, str]
    inside: list[str]
    others: list[str]


class _Family(NamedTuple):
    """Patterns of a family's names, and the segments that may stand before them."""

    own: re.Pattern[str]
    heads: re.Pattern[str]
    inside: re.Pattern[str]
    wrappers: frozenset[str]


def sort_names(names: Iterable[str], family: str) -> Sorted:
    """Tell the encoder's tensors from heads, buffers and strangers, whatever wrappers are before them.

    Args:
      names: as they are stored.
      family: the encoder's.

    Returns:
      Every name in one of four groups.

    >>> found = sort_names(["module.bert.pooler.dense.bias", "module.cls.predictions.bias", "crf.transitions"], "bert")
    >>> found.own, found.heads, found.others
    ({'module.bert.pooler.dense.bias': 'pooler.dense.bias'}, {'module.cls.predictions.bias': 'cls.predictions.bias'}, \
['crf.transitions'])
    """
    rules, found = _rules(family), Sorted({}, {}, [], [])
    for name in names:
        for spelled in _unwrapped(name, rules.wrappers):
            rest = _as_in_files(spelled, family)
            if rules.own.fullmatch(rest):
                found.own[name] = rest
            elif rules.heads.fullmatch(rest):
                found.heads[name] = rest
            elif rules.inside.match(rest):
                found.inside.append(name)
            else:
                continue
            break
        else:
            found.others.append(name)
    return found


def _unwrapped(name: str, wrappers: frozenset[str]) -> Iterator[str]:
    """The name in today's spelling, then without its first wrapper, without its first two, ..."""
    segments = _segments(name)
    if len(segments) > DEPTH:
        return
    for start, segment in enumerate(segments):
        yield ".".join(segments[start:])
        if segment not in wrappers:
            return


def _as_in_files(name: str, family: str) -> str:
    found = _VIT_5.fullmatch(name) if family in ("vit", "deit") else None
    return name if found is None else f"encoder.layer.{found[1]}.{_OF_VIT_5.get(found[2], found[2])}.{found[3]}"


def _segments(name: str) -> list[str]:
    *stem, last = [segment for segment in name.split(".") if segment not in TRANSPARENT] or [name]
    return [*stem, _OLD.get(last, last) if stem else last]


def prefix_of(name: str, family: str) -> str | None:
    """What stands before one of the encoder's names, known or not; None for a name that ends in none of them.

    >>> prefix_of("tower.text.pooler.dense.bias", "bert")
    'tower.text.'
    """
    segments, own = _segments(name), _rules(family).own
    depth = len(segments) if len(segments) <= DEPTH else 0
    place = next((k for k in range(depth) if own.fullmatch(".".join(segments[k:]))), None)
    return None if place is None else "".join(f"{segment}." for segment in segments[:place])


def families_of(names: Sequence[str]) -> list[str]:
    """The families whose encoder's names these are, by whatever prefix.

    Between those that share the names, a prefix that is one's own decides, then how many names of one are not there.

    Args:
      names: as they are stored.

    Returns:
      The families that fit best, and equally well; [] where none fits.

    >>> families_of(["roberta.encoder.layer.0.output.dense.weight", "roberta.embeddings.word_embeddings.weight"])
    ['roberta', 'xlm-roberta', 'camembert']
    """
    names = names[:SAMPLE]
    counts = {family: sum(prefix_of(name, family) is not None for name in names) for family in NAMES}
    best = max(counts.values(), default=0)
    found = [family for family, count in counts.items() if count == best and best]
    own = [family for family in found if has_own_prefix(names, family)]
    absent = {family: _absent(names, family) for family in own or found}
    return [family for family in absent if absent[family] == min(absent.values())]


def _absent(names: Sequence[str], family: str) -> int:
    """How many of a family's names are not there, the pooler's left out."""
    plain = {name.removeprefix(prefix_of(name, family) or "") for name in names}
    patterns = [pattern for pattern in _patterns(family) if not pattern.startswith("pooler")]
    return sum(not any(re.fullmatch(pattern, name) for name in plain) for pattern in patterns)


def has_own_prefix(names: Iterable[str], family: str) -> bool:
    """Whether before the encoder's names stands what only this family's classes put there."""
    return bool(_parts(names, family) & own_prefixes(family))


def _parts(names: Iterable[str], family: str) -> set[str]:
    return {segment for name in names for segment in (prefix_of(name, family) or "").split(".")}


def own_prefixes(family: str) -> frozenset[str]:
    """The segments that only this family's classes put before an encoder's names.

    >>> sorted(own_prefixes("bert")), sorted(own_prefixes("gpt2"))
    (['bert', 'bert_model'], ['gpt2', 'gpt2_model'])
    """
    kin = _LIKE_ROBERTA if family in _LIKE_ROBERTA else (family,)
    names = {NAMES[member].prefix.removesuffix(".") for member in kin} - WRAPPERS
    names |= {member.replace("-", "_") for member in kin}
    return frozenset(names | {f"{name}_model" for name in names})


@functools.cache
def _rules(family: str) -> _Family:
    names, inside = NAMES[family], ["embeddings"]
    for entry in names.entries:
        stem = re.split(r"\{\}|\d", entry.tensor)[0]
        inside.append(stem.removesuffix(".") if stem != entry.tensor else stem.rpartition(".")[0])
    heads = "|".join(translate(pattern) for pattern in (*names.ignored, *BUFFERS))
    return _Family(
        re.compile("|".join([*_patterns(family), re.escape(OWN) + ".*"])),
        re.compile(heads),
        re.compile(f"({'|'.join(map(re.escape, inside))})\\."),
        WRAPPERS | own_prefixes(family),
    )


def forget() -> None:
    """Make the patterns anew: the families have changed."""
    _rules.cache_clear()
    _patterns.cache_clear()


@functools.cache
def _patterns(family: str) -> tuple[str, ...]:
    """A pattern for every name of a family's encoder; a layer is any number."""
    named = {entry.tensor: entry.members for entry in NAMES[family].entries}
    return tuple(
        re.escape(tensor.replace("{}", member)).replace(re.escape("{}"), r"\d+")
        for tensor, members in named.items()
        for member in members or ("{}",)
    )
