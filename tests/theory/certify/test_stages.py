"""The compiled first stage of `verify` encloses what the host's does, in every layer, head and sentence."""

import jax
import numpy as np
import pytest
from jax import export

import jaxsmooth
from jaxsmooth.studies import verify
from jaxsmooth.studies.verify_stages import ROWS, SHORTEST, WORTH_COMPILING, CompiledStage, HostStage
from jaxsmooth.theory.certify import compiled
from jaxsmooth.theory.statement import decide
from jaxsmooth.theory.theorems import THEOREMS
from jaxsmooth.theory.theorems.exact_block import Observation

HEAD = "shi2022_lemma1_4_mixing"
FEW = (HEAD, "data_rate_L4")
# Five sentences of several lengths: a full group of rows, and one that is filled up.
TEXTS = ["a", "a film worth", "ab", "seeing it", "a film"]


@pytest.fixture(scope="module")
def parameters():
    return verify._Checker(jaxsmooth.load("tiny")[0], FEW).parameters


@pytest.fixture(scope="module")
def data():
    """What was observed, and the numbers of tokens."""
    model, tokenizer = jaxsmooth.load("tiny")
    (encoded,) = tokenizer.batches(TEXTS)
    lengths = np.asarray(encoded.batch.mask.sum(axis=1))[: len(TEXTS)].tolist()
    assert len(set(lengths)) > 1
    assert len(TEXTS) > ROWS
    assert max(lengths) <= SHORTEST
    return jax.tree.map(np.asarray, verify.observe(model, encoded.batch)), lengths


@pytest.mark.parametrize("names", [FEW, pytest.param(tuple(THEOREMS), marks=pytest.mark.long)], ids=["few", "all"])
def test_both_stages_enclose_the_same_numbers(parameters, data, names):
    """The host sees sentences without padding, the compiled stage groups of them with it."""
    host, device = (stage(parameters, names)(*data) for stage in (HostStage, CompiledStage))
    assert host.statements.keys() == device.statements.keys() == set(names)
    for name, statement in host.statements.items():
        other = device.statements[name]
        for ours, theirs in ((statement.lhs, other.lhs), (statement.rhs, other.rhs)):
            assert ours.lower.shape == theirs.lower.shape
            # Two enclosures of one number meet.
            assert np.all((ours.lower <= theirs.upper) & (theirs.lower <= ours.upper)), name
            np.testing.assert_allclose([theirs.lower, theirs.upper], [ours.lower, ours.upper], rtol=1e-7, atol=1e-13)
        np.testing.assert_array_equal(decide(*statement), decide(*other), name)
    np.testing.assert_allclose(device.mixing.upper, host.mixing.upper, rtol=1e-9)


def test_long_runs_are_compiled_and_short_ones_are_not(monkeypatch):
    """And a series that cannot be counted beforehand is taken to be long."""
    model, tokenizer = jaxsmooth.load("tiny")
    made = []

    class SeenError(Exception):
        pass

    def note(model, names, hypotheses, *, compiled, **options):
        made.append(compiled)
        raise SeenError

    monkeypatch.setattr(verify, "_Checker", note)
    many = -(-WORTH_COMPILING // model.config.layers)
    # A dict's keys are counted and no list, as what the command line has read.
    for texts in (["a"] * many, ["a"] * (many - 1), {"a": 0}.keys(), iter(["a"])):
        with pytest.raises(SeenError):
            jaxsmooth.verify(model, tokenizer, texts)
    assert made == [True, False, False, True]


def test_the_compiled_stage_lowers_for_every_platform(parameters):
    """No call into a CPU library is left in what a GPU or a TPU is given."""
    stage = CompiledStage(parameters, FEW)
    layers, heads, width = len(parameters.blocks), *stage.heads.query.kernel.shape[1:3]
    shapes = Observation(
        *(jax.ShapeDtypeStruct(shape, "float64") for shape in ((layers, 2, 8, width), (layers, 2, heads, 8, 8))),
        *[None] * 7,
    )
    lowered = export.export(
        jax.jit(lambda *args: compiled.head_statements(*args, names=(HEAD,))), platforms=["cpu", "cuda", "tpu"]
    )(stage.heads, stage.norms, shapes, jax.ShapeDtypeStruct((2, 8), bool))
    assert "lapack" not in lowered.mlir_module()
