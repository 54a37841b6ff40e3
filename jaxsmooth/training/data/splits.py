"""Splits that never change and never leak: an example's side follows from a hash of its own text.

Examples that share a key (the same sentence up to case and punctuation, the same passage, the same article) are
one group, groups that share a key are one group, and a group lies on one side whole. Adding or dropping other
examples moves no group; nothing is random.
"""

import hashlib
import re
import unicodedata
from collections.abc import Sequence
from typing import NamedTuple, TypeVar

from .tasks import Example, Split

T = TypeVar("T")

HELD_OUT = 0.1
"""Share of the groups in the validation split, and likewise in the test split."""


class Parts(NamedTuple):
    """Data as read.

    Attributes:
      splits: the examples of each split there is.
      notes: what was left out, and why.
    """

    splits: dict[Split, list[Example]]
    notes: tuple[str, ...] = ()


def normalise(text: str) -> str:
    """What two texts must share to count as one: words and digits, case, width and accents' encoding folded.

    Args:
      text: any.

    >>> normalise("It's  FINE!")
    'it s fine'
    """
    return " ".join(re.findall(r"\w+", unicodedata.normalize("NFKC", text).casefold())) or text.strip()


def side_of(key: str) -> Split:
    """The split of a group, by the sha256 of its key: test, validation (a tenth each) or train.

    Args:
      key: the group's name.

    >>> [side_of(name) for name in ("apple", "bread", "cheese", "dill", "egg")]
    ['train', 'train', 'train', 'validation', 'train']
    """
    share = int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "big") / 2**64
    if share < HELD_OUT:
        return "test"
    return "validation" if share < 2 * HELD_OUT else "train"


def groups(keys: Sequence[Sequence[str]]) -> list[str]:
    """Name the group of each example: the least key of all that hang together with its own.

    Args:
      keys: of each example the keys, at least one.

    Returns:
      One name per example.

    >>> groups([["b"], ["c", "b"], ["a"], ["d", "c"]])
    ['b', 'b', 'a', 'b']
    """
    parents: dict[str, str] = {}
    for first, *others in keys:
        root = _root(parents, first)
        for key in others:
            other = _root(parents, key)
            # The lesser name stays root, so a group's name does not depend on the order of the examples.
            low, high = min(root, other), max(root, other)
            parents[high] = low
            root = low
    return [_root(parents, own[0]) for own in keys]


def split_by_hash(examples: Sequence[Example], keys: Sequence[Sequence[str]]) -> dict[Split, list[Example]]:
    """All three splits of examples that come without any, each group whole in one of them.

    Args:
      examples: all of them.
      keys: of each example the keys, as for `groups`.

    Returns:
      Split -> its examples, in the order in which they were given.

    >>> from jaxsmooth.training.data.tasks import Sentence
    >>> sides = split_by_hash([Sentence("apple"), Sentence("dill")], [["apple"], ["dill"]])
    >>> {split: [example.text for example in part] for split, part in sides.items()}
    {'train': ['apple'], 'validation': ['dill'], 'test': []}
    """
    sides: dict[Split, list[Example]] = {"train": [], "validation": [], "test": []}
    for example, group in zip(examples, groups(keys), strict=True):
        sides[side_of(group)].append(example)
    return sides


def keep_test(
    train: Sequence[Example], test: Sequence[Example], train_keys: Sequence[str], test_keys: Sequence[str]
) -> tuple[dict[Split, list[Example]], int]:
    """An official test split, kept whole. What it repeats is dropped from train; validation is taken from train.

    Args:
      train: the official training examples.
      test: the official test examples.
      train_keys: a key per training example.
      test_keys: a key per test example.

    Returns:
      The splits, and how many training examples were dropped.
    """
    held = set(test_keys)
    kept = [(example, key) for example, key in zip(train, train_keys, strict=True) if key not in held]
    sides: dict[Split, list[Example]] = {"train": [], "validation": [], "test": list(test)}
    for example, key in kept:
        sides["validation" if side_of(key) == "validation" else "train"].append(example)
    return sides, len(train) - len(kept)


def sample(examples: Sequence[T], size: int) -> list[T]:
    """A fixed sample, in the order of the examples: those whose place has the least sha256.

    Corpora are often sorted by class or source, so their first examples say little about the rest. A smaller sample
    is part of a larger one, and nothing but the number of examples decides which places are taken.

    Args:
      examples: of one split.
      size: how many to take; all where there are fewer.

    Returns:
      The chosen examples.

    >>> sample(["a", "b", "c", "d", "e", "f"], 3)
    ['a', 'd', 'e']
    """
    order = sorted(range(len(examples)), key=lambda place: hashlib.sha256(str(place).encode()).digest())
    return [examples[place] for place in sorted(order[:size])]


def _root(parents: dict[str, str], key: str) -> str:
    path = []
    while (parent := parents.setdefault(key, key)) != key:
        path.append(key)
        key = parent
    parents.update(dict.fromkeys(path, key))
    return key
