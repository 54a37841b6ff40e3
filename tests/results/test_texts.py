"""Values text by text: bounded memory, a uniform sample, and no dependence on batches."""

import numpy as np

from jaxsmooth.results.texts import KeptTexts


def kept_of(total: int, limit: int, size: int, seed: int = 0) -> tuple[np.ndarray, dict]:
    kept = KeptTexts(limit, seed)
    for start in range(0, total, size):
        places = np.arange(start, min(start + size, total))
        padded = np.concatenate([places, [-1]]).astype(np.float64)  # a filler at the end of every batch
        kept.add({"a": np.stack([padded, 2 * padded])}, places)
    assert kept.read == total
    return kept.found()


def test_all_are_kept_up_to_the_limit():
    places, values = kept_of(7, 7, 3)
    assert places.tolist() == list(range(7))
    assert values["a"].tolist() == [list(range(7)), list(range(0, 14, 2))]


def test_a_sample_does_not_depend_on_batches():
    one, other = kept_of(1000, 50, 7), kept_of(1000, 50, 256)
    assert one[0].tolist() == other[0].tolist()
    assert (one[1]["a"] == other[1]["a"]).all()
    assert (one[1]["a"][0] == one[0]).all()
    assert len(one[0]) == 50


def test_every_text_is_as_likely_as_any_other():
    counts = np.zeros(40)
    for seed in range(1500):
        counts[kept_of(40, 10, 40, seed)[0]] += 1
    # A count is binomial with mean 375 and standard deviation 16.8.
    assert np.abs(counts - 375).max() < 5 * 16.8
    assert counts.std() > 5


def test_memory_is_bounded():
    kept = KeptTexts(10)
    for start in range(0, 1000, 5):
        kept.add({"a": np.zeros((3, 5))}, np.arange(start, start + 5))
        assert sum(map(len, kept._places)) <= 25


def test_nothing_read():
    assert KeptTexts().found()[0].size == 0
