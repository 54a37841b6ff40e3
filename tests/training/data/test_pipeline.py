"""The input pipeline: order, shapes, sharding and resuming, through the public interface."""

import json

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.tasks import TOKENIZER, leaves, make_data, same

from jaxsmooth.errors import DataError
from jaxsmooth.training.data.pipeline import make_stream

KINDS = ("classification", "regression", "span", "choice", "masked_lm")
SMALL = {"batch_size": 4, "pool": 3}


def collect(data, **options):
    with make_stream(data, **(SMALL | options)) as stream:
        return list(stream)


def real(batches):
    return [int(i) for b in batches for i, w in zip(b.indices, b.weights, strict=True) if w]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shuffle", [True, False])
def test_every_epoch_holds_every_record_once(kind, shuffle):
    data = make_data(kind)
    batches = collect(data, epochs=2, shuffle=shuffle)
    half = len(batches) // 2
    for epoch in (batches[:half], batches[half:]):
        assert sorted(real(epoch)) == list(range(len(data)))
    filler = -len(data) % 4
    assert sum(int((b.weights == 0).sum()) for b in batches) == 2 * filler


@pytest.mark.parametrize("kind", KINDS)
def test_rows_are_the_tokenizers_own(kind):
    """Against rows tokenised one at a time, without the pipeline."""
    data = make_data(kind)
    for batch in collect(data, epochs=1, shuffle=False):
        rows_per_record = 3 if kind == "choice" else 1
        assert len(batch.batch.tokens) == 4 * rows_per_record
        for place, index in enumerate(batch.indices):
            (record,) = data.records.make([int(index)], 0, 0)
            for number, row in enumerate(record.rows):
                at = place * rows_per_record + number
                length = len(row.ids)
                assert batch.batch.tokens[at, :length].tolist() == row.ids
                assert batch.batch.segments[at, :length].tolist() == row.segments
                assert batch.batch.mask[at].tolist() == [True] * length + [False] * (batch.batch.mask.shape[1] - length)
                assert (batch.batch.tokens[at, length:] == TOKENIZER.pad_id).all()


def test_dtypes_and_pytree():
    for kind in KINDS:
        batch = collect(make_data(kind), epochs=1)[0]
        kinds = [leaf.dtype.name for leaf in leaves(batch)]
        label = "float32" if kind == "regression" else "int32"
        assert kinds == ["int32", "int32", "bool", *[label] * (len(kinds) - 5), "float32", "int32"]
        assert len(jax.tree.leaves(batch)) == len(kinds)
        assert all(isinstance(leaf, np.ndarray) for leaf in jax.tree.leaves(batch))
        doubled = jax.tree.map(lambda leaf: leaf, batch)
        assert same(batch, doubled)


def test_few_lengths_and_each_is_the_least_that_holds_the_batch():
    data = make_data(count=200)
    batches = collect(data, epochs=2)
    allowed = [16, 32, 48]
    assert len({b.batch.tokens.shape for b in batches}) > 1
    for batch in batches:
        longest, length = int(batch.batch.mask.sum(axis=1).max()), batch.batch.tokens.shape[1]
        assert length == next(bucket for bucket in allowed if longest <= bucket)


def test_pools_save_padding():
    data = make_data(count=200)
    padding = {p: sum((~b.batch.mask).sum() for b in collect(data, epochs=1, pool=p)) for p in (1, 16)}
    assert padding[16] < 0.7 * padding[1]


def test_fixed_length_gives_one_shape():
    assert {b.batch.tokens.shape for b in collect(make_data(), epochs=1, fixed_length=True)} == {(4, 48)}


def test_orders_differ_by_seed_and_epoch_and_repeat_exactly():
    data = make_data(count=60)
    batches = collect(data, epochs=2, seed=3)
    orders = [tuple(real(batches[:15])), tuple(real(batches[15:]))]
    # Seeds and epochs are not added up: seed 4 does not begin where seed 3 goes on.
    orders += [tuple(real(collect(data, epochs=1, seed=seed))) for seed in (4, 5)]
    assert len(set(orders)) == 4
    assert all(same(a, b) for a, b in zip(batches, collect(data, epochs=2, seed=3), strict=True))


def test_unshuffled_without_pools_keeps_the_order():
    assert real(collect(make_data(), epochs=1, shuffle=False, pool=1)) == list(range(37))


def test_shuffling_spreads_records_evenly():
    """The mean place of each record over many epochs is the middle; the bound is five standard errors."""
    data = make_data(count=24)
    epochs = 200
    batches = collect(data, epochs=epochs, pool=1)
    places = np.array(real(batches)).reshape(epochs, 24).argsort(axis=1)
    error = np.sqrt((24**2 - 1) / 12 / epochs)
    assert np.abs(places.mean(axis=0) - 11.5).max() < 5 * error


@pytest.mark.parametrize("threads", [0, 1, 3])
def test_threads_change_nothing(threads):
    data = make_data("masked_lm")
    reference = collect(data, epochs=2, threads=1)
    assert all(same(a, b) for a, b in zip(reference, collect(data, epochs=2, threads=threads), strict=True))


@pytest.mark.parametrize("kind", KINDS)
def test_stopped_anywhere_the_rest_is_the_same(kind):
    data = make_data(kind)
    whole = collect(data, epochs=2, seed=7)
    for stop in range(0, len(whole) + 1, 3 if kind == "span" else 2):
        with make_stream(data, **SMALL, epochs=2, seed=7) as first:
            for _ in range(stop):
                next(first)
            state = json.loads(json.dumps(first.get_state()))
        with make_stream(make_data(kind), **SMALL, epochs=2, seed=7) as second:
            second.set_state(state)
            rest = list(second)
        assert len(rest) == len(whole) - stop
        assert all(same(a, b) for a, b in zip(whole[stop:], rest, strict=True))


def test_a_stream_goes_back_to_a_state_of_its_own():
    with make_stream(make_data(), **SMALL) as stream:
        state = stream.get_state()
        first = [next(stream) for _ in range(5)]
        stream.set_state(state)
        assert all(same(a, next(stream)) for a in first)


@settings(max_examples=25)
@given(seed=st.integers(0, 2**40), count=st.integers(1, 40), batch=st.sampled_from([2, 4, 6]), pool=st.integers(1, 5))
def test_processes_share_every_batch(seed, count, batch, pool):
    data = make_data("masked_lm", count=count)
    options = {"batch_size": batch, "pool": pool, "seed": seed, "epochs": 2, "threads": 0}
    with make_stream(data, **options) as stream:
        whole = list(stream)
    parts = []
    for index in range(2):
        with make_stream(data, **options, process_index=index, process_count=2) as stream:
            parts.append(list(stream))
    assert len(parts[0]) == len(parts[1]) == len(whole)
    for one, *shares in zip(whole, *parts, strict=True):
        for total, *own in zip(leaves(one), *map(leaves, shares), strict=True):
            assert np.array_equal(total, np.concatenate(own))


def test_state_fits_another_number_of_processes():
    data = make_data()
    with make_stream(data, **SMALL) as one:
        for _ in range(6):
            next(one)
        state, following = one.get_state(), next(one)
    with make_stream(data, **SMALL, process_index=3, process_count=4) as last:
        assert last.get_state() | {"next": 6} == state
        last.set_state(state)
        assert same(next(last), jax.tree.map(lambda leaf: leaf[3:], following))


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"seed": 1}, "seed is 1 here and 0 there"),
        ({"batch_size": 8}, "batch_size is 8 here and 4 there"),
        ({"shuffle": False}, "shuffle is False here"),
    ],
)
def test_a_state_of_another_stream_is_refused(change, expected):
    with make_stream(make_data(), **SMALL) as stream:
        state = stream.get_state()
    with make_stream(make_data(), **(SMALL | change)) as other, pytest.raises(DataError, match=expected):
        other.set_state(state)


def test_a_state_of_other_data_is_refused():
    with make_stream(make_data(), **SMALL) as stream:
        state = stream.get_state()
    for data in (make_data(seed=1), make_data(max_length=32)):
        with make_stream(data, **SMALL) as other, pytest.raises(DataError, match="data is"):
            other.set_state(state)
    with make_stream(make_data(), **SMALL, epochs=1) as other:
        with pytest.raises(DataError, match="get_state gave"):
            other.set_state({"step": 3})
        with pytest.raises(DataError, match="at batch 11, of a stream of 10"):
            other.set_state(state | {"next": 11})


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"batch_size": 0}, "batch_size must be a whole number of at least 1"),
        ({"batch_size": True}, "batch_size must be"),
        ({"seed": -1}, "seed must be"),
        ({"epochs": 0}, "epochs must be"),
        ({"process_count": 3}, "multiple of process_count"),
        ({"process_count": 2, "process_index": 2}, "process_index below it"),
    ],
)
def test_bad_settings(options, expected):
    with pytest.raises(DataError, match=expected):
        make_stream(make_data(), **(SMALL | options))


def test_masking_changes_with_the_epoch_and_not_in_evaluation():
    data = make_data("masked_lm", count=8)
    shuffled, plain = (collect(data, epochs=2, shuffle=s, pool=1, batch_size=8) for s in (True, False))
    assert same(plain[0], plain[1])
    asked = [zip(b.indices, b.labels.tokens, strict=True) for b in shuffled]
    by_record = [{int(index): row[row >= 0].tolist() for index, row in pairs} for pairs in asked]
    assert by_record[0] != by_record[1]
