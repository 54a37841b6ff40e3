"""One pass over texts: what is counted, warned of, refused and kept in memory."""

import functools
import threading
import time
import tracemalloc
import warnings

import jax.numpy as jnp
import numpy as np
import pytest
import threadpoolctl

import jaxsmooth
from jaxsmooth.errors import TextError, arguments_checked
from jaxsmooth.inputs.tokenizer import Tokenizer, TruncationWarning
from jaxsmooth.inputs.tokenizer_settings import TokenizerSettings
from jaxsmooth.inputs.vocabulary import tiny_wordpiece
from jaxsmooth.linalg.eigh import one_lapack_thread
from jaxsmooth.results.comparison import COMPARED_RATES
from jaxsmooth.results.convergence import CONVERGENCE
from jaxsmooth.results.texts import KeptTexts
from jaxsmooth.studies import compare, converge
from jaxsmooth.studies.stream import TextStream

MODEL, TOKENIZER = jaxsmooth.load("tiny")
TEXTS = ["so be it", "a " * 200, "no", "b " * 300]


@arguments_checked  # as every study is, so that the warning's caller is one further up
def whole_pass(texts, *, stop=False):
    with TextStream(MODEL, TOKENIZER, texts, "reading", tokens_per_batch=256) as stream:
        for encoded in stream:
            assert len(encoded.indices)
            if stop:
                raise KeyboardInterrupt
    return stream


def test_a_pass_counts_and_warns_its_caller_of_cuts():
    with pytest.warns(TruncationWarning, match="2 of 4 texts were cut to 128 tokens") as caught:
        found = whole_pass(TEXTS).summary("letters")
    assert caught[0].filename == __file__
    lengths = [int(TOKENIZER([text]).mask.sum()) for text in TEXTS[::2]]
    assert (found.name, found.sentences, found.truncated) == ("letters", 4, 2)
    assert found.tokens == sum(lengths) + 2 * MODEL.config.max_length


def test_the_warning_names_the_tokenizers_own_limit():
    shorter = Tokenizer(tiny_wordpiece(), MODEL.config, "shorter", settings=TokenizerSettings({}, max_length=20))
    stream = TextStream(MODEL, shorter, TEXTS, "reading", tokens_per_batch=256)
    with pytest.warns(TruncationWarning, match="2 of 4 texts were cut to 20 tokens"), stream:
        assert sum(encoded.truncated for encoded in stream) == 2


def test_a_pass_that_fails_does_not_warn_too():
    with warnings.catch_warnings(record=True) as caught, pytest.raises(KeyboardInterrupt):
        whole_pass(TEXTS[::-1], stop=True)
    assert not caught


def blas_threads() -> set[int]:
    return {library["num_threads"] for library in threadpoolctl.threadpool_info() if library["user_api"] == "blas"}


def test_lapack_spins_no_threads_beside_a_study():
    with threadpoolctl.threadpool_limits(3, user_api="blas"), warnings.catch_warnings(action="ignore"):
        before = blas_threads()
        with TextStream(MODEL, TOKENIZER, TEXTS, "reading", tokens_per_batch=256) as stream:
            assert all(blas_threads() == {1} for _ in stream)
        assert blas_threads() == before


def test_of_two_passes_at_once_the_last_gives_the_threads_back():
    with threadpoolctl.threadpool_limits(3, user_api="blas"):
        before = blas_threads()
        first, second = one_lapack_thread(), one_lapack_thread()
        first.__enter__()
        second.__enter__()
        first.__exit__(None, None, None)
        assert blas_threads() == {1}
        second.__exit__(None, None, None)
        assert blas_threads() == before


def test_what_is_counted_is_done():
    """The bar and the counts stand at what has been worked on, not at what is ahead."""
    with TextStream(MODEL, TOKENIZER, 6 * ["so be it"], "reading", tokens_per_batch=16) as stream:
        done = [stream.summary("").sentences for _ in stream.computed(lambda encoded: lambda: None)]
    assert done == list(range(6))


def test_two_batches_are_computed_at_once_and_come_in_order():
    both, seen = threading.Barrier(2, timeout=60), []

    def start(encoded):
        seen.append(encoded)

        def wait():
            assert threading.current_thread() is not threading.main_thread()
            both.wait()  # for the other batch
            return len(seen)

        return wait

    with TextStream(MODEL, TOKENIZER, 6 * ["so be it"], "reading", tokens_per_batch=16) as stream:
        found = [(encoded.indices.tolist(), read) for encoded, read in stream.computed(start)]
    assert [indices for indices, _ in found] == [[k] for k in range(6)]
    assert max(read - place for place, (_, read) in enumerate(found)) <= 3  # no more are ahead


def test_nothing_is_computed_while_a_program_of_another_length_is_loaded():
    lengths, computing = [], set()

    def start(encoded):
        length = encoded.batch.mask.shape[1]
        if length not in lengths:
            lengths.append(length)
            assert not computing

        def compute():
            computing.add(int(encoded.indices[0]))
            time.sleep(0.02)
            computing.remove(int(encoded.indices[0]))

        return compute

    texts = [*64 * ["so be it"], *64 * ["a long text, " * 5], *64 * ["so be it"]]
    with TextStream(MODEL, TOKENIZER, texts, "reading", tokens_per_batch=128) as stream:
        list(stream.computed(start))
    assert len(lengths) == 2


def test_what_fails_on_the_way_ends_the_pass():
    def start(encoded):
        return lambda: 1 // int(encoded.indices[0] < 3)

    with TextStream(MODEL, TOKENIZER, 6 * ["so be it"], "reading", tokens_per_batch=16) as stream:
        batches = stream.computed(start)
        assert [next(batches)[1] for _ in range(3)] == [1, 1, 1]
        with pytest.raises(ZeroDivisionError):
            next(batches)


@pytest.mark.parametrize("texts", ["one string", 5, None])
def test_what_is_no_series_is_refused_at_once(texts):
    with pytest.raises(TextError, match="texts must be a series of strings; got"):
        TextStream(MODEL, TOKENIZER, texts, "reading", tokens_per_batch=64)


def unmeasured_remedy(model, norms, batch, plain, *, remedy):
    rows = batch.mask.shape[0]
    names = (*COMPARED_RATES, *compare.MEASURES, "attribution", "change")
    names += tuple(f"{fusion}/{name}" for fusion in compare.FUSIONS for name in compare.MEASURES)
    return jnp.ones((rows, 1, 1)), {name: jnp.ones((8, rows)) for name in names}


def unmeasured_heads(model, batch, window, *, steps, tolerance):
    return {name: np.ones((4, len(converge.OPERATORS), batch.mask.shape[0], 4)) for name in CONVERGENCE}


STUDIES = {
    "compare": lambda texts: compare.compare(MODEL, TOKENIZER, texts, "contranorm", tokens_per_batch=1024),
    "converge": lambda texts: converge.converge_heads(MODEL, TOKENIZER, texts, tokens_per_batch=1024),
}


def held(study: str, count: int) -> int:
    """Bytes that a study holds when it has read so many texts."""
    seen = []

    def texts():
        for _ in range(count):
            yield "so be it"
        seen.append(tracemalloc.get_traced_memory()[0])

    tracemalloc.start()
    try:
        assert STUDIES[study](texts()).data.sentences == count
    finally:
        tracemalloc.stop()
    return seen[0]


@pytest.mark.parametrize("study", STUDIES)
def test_a_study_holds_no_more_of_a_longer_text(study, monkeypatch):
    monkeypatch.setattr(compare, "model_norms", lambda model: None)
    monkeypatch.setattr(compare, "measure_remedy", unmeasured_remedy)
    monkeypatch.setattr(converge, "iterate_heads", unmeasured_heads)
    monkeypatch.setattr(compare, "KeptTexts", functools.partial(KeptTexts, 64))  # a sample, of fewer than either has
    held(study, 256)  # whatever is allocated once
    short, long = held(study, 512), held(study, 2048)
    assert long - short < 100_000  # each sentence's numbers, kept, would be millions
