"""Splits: fixed, of the right size, and no group on two sides."""

import random
from collections import defaultdict

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxsmooth.training.data.splits import groups, keep_test, normalise, sample, side_of, split_by_hash
from jaxsmooth.training.data.tasks import Sentence

keys_lists = st.lists(st.lists(st.sampled_from("abcdefghij"), min_size=1, max_size=3), max_size=12)


def components(keys):
    """Connected components by flooding, for comparison."""
    names = [None] * len(keys)
    for start in range(len(keys)):
        if names[start] is None:
            reached, grown = set(keys[start]), True
            while grown:
                touching = [own for own in keys if reached & set(own)]
                grown = not reached >= set().union(*touching)
                reached |= set().union(*touching)
            for place, own in enumerate(keys):
                if set(own) & reached:
                    names[place] = min(reached)
    return names


@given(keys_lists)
def test_groups_against_flooding(keys):
    assert groups(keys) == components(keys)


@given(keys_lists, st.randoms(use_true_random=False))
def test_groups_do_not_depend_on_order(keys, rng):
    order = list(range(len(keys)))
    rng.shuffle(order)
    shuffled = groups([keys[place] for place in order])
    assert [shuffled[order.index(place)] for place in range(len(keys))] == groups(keys)


@given(keys_lists)
def test_no_key_is_on_two_sides(keys):
    examples = [Sentence(str(place), id=str(place)) for place in range(len(keys))]
    sides = split_by_hash(examples, keys)
    assert sorted(int(e.id) for part in sides.values() for e in part) == list(range(len(keys)))
    where = defaultdict(set)
    for side, part in sides.items():
        for example in part:
            for key in keys[int(example.id)]:
                where[key].add(side)
    assert all(len(found) == 1 for found in where.values())


def test_shares():
    """Bounds are five standard errors of the binomial law."""
    sides = [side_of(f"sentence {number}") for number in range(10_000)]
    for side, share in (("train", 0.8), ("validation", 0.1), ("test", 0.1)):
        assert abs(sides.count(side) / 10_000 - share) < 5 * (share * (1 - share) / 10_000) ** 0.5


def test_sides_are_fixed():
    """Changing them would let old results and new ones leak into each other."""
    names = ("red", "blue", "teal", "gold", "white", "lime")
    assert [side_of(name) for name in names] == ["train", "test", "validation", "validation", "test", "train"]


def test_adding_examples_moves_none():
    texts = [f"text {number}" for number in range(300)]
    before = split_by_hash([Sentence(t) for t in texts[:150]], [[t] for t in texts[:150]])
    random.Random(0).shuffle(texts)
    after = split_by_hash([Sentence(t) for t in texts], [[t] for t in texts])
    for side, part in before.items():
        assert set(part) <= set(after[side])


@pytest.mark.parametrize(
    ("first", "second", "equal"),
    [
        ("A fine film!", "a  FINE film", True),
        ("\uff21 fine film", "a fine film", True),  # full width
        ("cafe\u0301", "caf\u00e9", True),
        ("cafe", "caf\u00e9", False),
        ("fine film", "film fine", False),
        ("!!", "??", False),  # no words: the text itself
    ],
)
def test_normalisation(first, second, equal):
    assert (normalise(first) == normalise(second)) is equal


def test_an_official_test_split_stays_and_train_loses_what_it_repeats():
    train = [Sentence(f"t{number}") for number in range(200)]
    test = [Sentence("T5"), Sentence("other"), Sentence("other")]
    sides, dropped = keep_test(train, test, [e.text for e in train], ["t5", "other", "other"])
    assert (sides["test"], dropped) == (test, 1)
    assert Sentence("t5") not in sides["train"] + sides["validation"]
    assert len(sides["train"]) + len(sides["validation"]) == 199
    assert 5 < len(sides["validation"]) < 40


@given(st.integers(1, 40), st.integers(1, 50), st.integers(1, 50))
def test_a_sample_is_in_order_and_part_of_every_larger_one(count, one, other):
    examples = [Sentence(str(place)) for place in range(count)]
    small, large = (sample(examples, size) for size in sorted((one, other)))
    assert len(large) == min(count, max(one, other))
    assert [example for example in large if example in small] == small
    assert [example for example in examples if example in large] == large


def test_a_sample_of_a_sorted_corpus_has_its_classes():
    """Its first 200 are of one class; those places are the same today as ever."""
    examples = [Sentence(str(place), label=int(place >= 700)) for place in range(1000)]
    taken = sample(examples, 200)
    assert 0.2 < sum(example.label for example in taken) / 200 < 0.4  # 0.3 of all, three standard deviations are 0.09
    assert [example.text for example in sample(examples, 4)] == ["245", "286", "671", "886"]
