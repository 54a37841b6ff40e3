"""`diagnose` against the independent implementation, number by number."""

import json

import jax.numpy as jnp
import numpy as np
import pytest
from support import reference_ladder
from support.freeze_diagnosis import frozen_diagnosis, minilm_diagnosis
from support.make_frozen import FROZEN
from support.parity import PRECISIONS, VOCABULARY, frozen_model, minilm_directory, precision

import jaxsmooth

RTOL = {"float32": 1e-3, "float64": 1e-9}
FEW = 256
"""Tokens of a batch, so that little of it is filler: a dozen sentences do not fill one of the usual size."""
FIELDS = ("mean", "std", "min", "max")
SENTENCES = [
    *("a", "bad cab", "a a a a a a a a", "the end", "t", "ab abc abcd", "q r s t", "s s t t s s"),
    *("fade fade fade", "b a d c a f e", "no one is in", "i did it again man"),
]


def letter_tokens(text: str) -> tuple[list[int], list[int]]:
    """WordPiece by hand: over an alphabet of letters every word is its letters, all but the first continuing."""
    pieces = [piece for word in text.split() for piece in (word[0], *(f"##{letter}" for letter in word[1:]))]
    ids = [VOCABULARY.index(piece) for piece in ("[CLS]", *pieces, "[SEP]")]
    return ids, [0] * len(ids)


def compare(diagnosis: jaxsmooth.Diagnosis, expected: dict[str, dict], rtol: float) -> None:
    """Every field of every quantity; all failures are reported at once."""
    assert set(diagnosis.rates) == set(reference_ladder.RATES)
    wrong = []
    for name, spread in expected.items():
        ours = diagnosis.rates[name] if name in diagnosis.rates else getattr(diagnosis, name)
        if name == "attention_similarity":  # the first layer has none before it
            ours = ours.map(lambda field: field[1:])
        np.testing.assert_array_equal(ours.count, spread["count"], err_msg=name)
        # A standard deviation is a difference of the values, so it can only be as good as they are.
        scale = {field: np.abs(spread["mean" if field == "std" else field]) for field in FIELDS}
        errors = {field: np.max(np.abs(getattr(ours, field) - spread[field]) / scale[field]) for field in FIELDS}
        wrong += [f"{name}.{field}: {error:.2e}" for field, error in errors.items() if not error <= rtol]
    assert not wrong, f"relative errors above {rtol}: {wrong}"


@pytest.mark.parametrize(
    ("name", "dtype"),
    [
        ("gelu-many-heads", "float64"),
        pytest.param("silu-deep", "float32", marks=pytest.mark.long),
        pytest.param("gelu-many-heads", "float32", marks=pytest.mark.long),
        pytest.param("silu-deep", "float64", marks=pytest.mark.long),
    ],
)
def test_a_random_model(name, dtype, tmp_path):
    for file in ("config.json", "model.safetensors"):
        (tmp_path / file).write_bytes((FROZEN / name / file).read_bytes())
    (tmp_path / "vocab.txt").write_text("\n".join(VOCABULARY) + "\n")
    tensors, config, _ = frozen_model(name)
    expected = reference_ladder.diagnose(tensors, config, [letter_tokens(text) for text in SENTENCES])
    with precision(dtype):
        model, tokenizer = jaxsmooth.load(tmp_path, dtype=getattr(jnp, dtype))
        diagnosis = jaxsmooth.diagnose(model, tokenizer, SENTENCES, tokens_per_batch=FEW)
    assert diagnosis.model.precision == dtype
    compare(diagnosis, expected, RTOL[dtype])


@pytest.fixture(scope="module")
def reviews() -> list[str]:
    return json.loads((FROZEN / "minilm-l6.json").read_text(encoding="utf-8"))["texts"]


@pytest.mark.long
@pytest.mark.parametrize("dtype", PRECISIONS)
def test_minilm_on_reviews(dtype, reviews):
    """Against what tests/reference_ladder.py computed in two minutes; the long test below computes it anew."""
    directory = minilm_directory()
    with precision(dtype):
        model, tokenizer = jaxsmooth.load(directory, dtype=getattr(jnp, dtype))
        tokenizer.buckets = (64,)  # one shape, one compilation; padding changes nothing
        diagnosis = jaxsmooth.diagnose(model, tokenizer, reviews, tokens_per_batch=FEW)
    compare(diagnosis, frozen_diagnosis(), RTOL[dtype])


@pytest.mark.long
def test_the_frozen_diagnosis_is_what_the_reference_computes(reviews):
    frozen = frozen_diagnosis()
    computed = minilm_diagnosis(minilm_directory(), reviews)
    assert set(frozen) == set(computed)
    for name, spread in computed.items():
        for field, values in spread.items():
            np.testing.assert_allclose(frozen[name][field], values, rtol=1e-11, err_msg=f"{name}.{field}")
