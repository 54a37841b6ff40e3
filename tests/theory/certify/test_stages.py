"""The compiled first stage of `verify` encloses what the host's does, in every layer, head and sentence."""

import jax
import numpy as np
import pytest
from jax import export

import jaxsmooth
from jaxsmooth.studies import verify
from jaxsmooth.studies.verify_stages import ROWS, SHORTEST, WORTH_COMPILING, CompiledStage, HostStage, crop
from jaxsmooth.theory.certify import compiled as first_stage
from jaxsmooth.theory.certify import theorems
from jaxsmooth.theory.statement import compare

FEW_OF_HEADS = ("shi2022_lemma1_4_mixing",)
FEW_OF_BLOCKS = ("data_rate_L4",)
# Five sentences of several lengths: a full group of rows, and one that is filled up.
TEXTS = ["a", "a film worth", "ab", "seeing it", "a film"]


@pytest.fixture(scope="module")
def checker():
    return verify._Checker(jaxsmooth.load("tiny")[0])


@pytest.fixture(scope="module")
def data(checker):
    tokenizer = jaxsmooth.load("tiny")[1]
    (encoded,) = tokenizer.batches(TEXTS)
    seen = jax.tree.map(np.asarray, verify.observe(checker.model, encoded.batch))
    lengths = np.asarray(encoded.batch.mask.sum(axis=1))[: len(TEXTS)].tolist()
    assert len(set(lengths)) > 1
    assert len(TEXTS) > ROWS
    assert max(lengths) <= SHORTEST
    return [[crop(seen, k, row, n) for row, n in enumerate(lengths)] for k in range(len(checker.blocks))]


@pytest.fixture
def few(monkeypatch):
    """Only some theorems, so that little is compiled."""
    wanted = tuple(theorem for theorem in theorems.BLOCK_THEOREMS if theorem.name in FEW_OF_BLOCKS)
    monkeypatch.setattr(theorems, "BLOCK_THEOREMS", wanted)
    monkeypatch.setattr(theorems, "NORM_THEOREMS", ())
    first_stage.block_claims.clear_cache()
    yield
    first_stage.block_claims.clear_cache()


def check_agreement(checker, data, heads: tuple[str, ...]) -> None:
    host, compiled = (
        stage(checker.blocks, checker.norms, heads, plain=True)(data) for stage in (HostStage, CompiledStage)
    )
    for layer in range(len(data)):
        assert host.claims[layer].keys() == compiled.claims[layer].keys()
        for name, claim in host.claims[layer].items():
            other = compiled.claims[layer][name]
            for ours, theirs in ((claim.lhs, other.lhs), (claim.rhs, other.rhs)):
                assert ours.down.shape == theirs.down.shape
                # Two enclosures of one number meet.
                assert np.all((ours.down <= theirs.up) & (theirs.down <= ours.up)), name
                np.testing.assert_allclose([theirs.down, theirs.up], [ours.down, ours.up], rtol=1e-7, atol=1e-13)
            np.testing.assert_array_equal(compare(claim.lhs, claim.rhs), compare(other.lhs, other.rhs), name)
        for ours, theirs in zip(host.data[layer], compiled.data[layer], strict=True):
            np.testing.assert_allclose(theirs.mixing.up, ours.mixing.up, rtol=1e-9)
            np.testing.assert_allclose(theirs.largest_mixing.up, ours.largest_mixing.up, rtol=1e-9)


@pytest.mark.usefixtures("few")
def test_both_stages_enclose_the_same_numbers(checker, data):
    """The host sees sentences without padding, the compiled stage groups of them with it."""
    check_agreement(checker, data, FEW_OF_HEADS)


@pytest.mark.long
def test_both_stages_enclose_the_same_numbers_in_every_theorem(checker, data):
    check_agreement(checker, data, theorems.HEAD_NAMES)


def test_long_runs_are_compiled_and_short_ones_are_not(monkeypatch):
    """And a series that cannot be counted beforehand is taken to be long."""
    model, tokenizer = jaxsmooth.load("tiny")
    made = []

    class SeenError(Exception):
        pass

    def note(model, *, compiled):
        made.append(compiled)
        raise SeenError

    monkeypatch.setattr(verify, "_Checker", note)
    many = -(-WORTH_COMPILING // model.config.layers)
    for texts in (["a"] * many, ["a"] * (many - 1), iter(["a"])):
        with pytest.raises(SeenError):
            jaxsmooth.verify(model, tokenizer, texts)
    assert made == [True, False, True]


@pytest.mark.usefixtures("few")
def test_the_compiled_stage_lowers_for_every_platform(checker):
    """No call into a CPU library is left in what a GPU or a TPU is given."""
    stage = CompiledStage(checker.blocks, checker.norms, FEW_OF_HEADS, plain=True)
    layers, heads, width = len(checker.blocks), *checker.blocks[0].heads.query.shape[:2]
    shapes = first_stage.SentenceData(
        *(jax.ShapeDtypeStruct(shape, "float64") for shape in ((layers, 2, 8, width), (layers, 2, heads, 8, 8))),
        *[None] * 9,
    )
    lowered = export.export(
        jax.jit(lambda *args: first_stage.head_claims(*args, names=FEW_OF_HEADS)), platforms=["cpu", "cuda", "tpu"]
    )(stage.blocks.heads, stage.norms, shapes, jax.ShapeDtypeStruct((2, 8), bool))
    assert "lapack" not in lowered.mlir_module()
