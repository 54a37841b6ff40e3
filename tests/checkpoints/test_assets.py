"""The real weight assets, where the user's own cache has them, against references that need no torch."""

import json
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from support import reference
from support.assets import REAL, REAL_CACHE

import jaxsmooth
from jaxsmooth.assets import asset_path
from jaxsmooth.bert.heads import read_vocabulary
from jaxsmooth.checkpoints.formats import open_weights

SENTENCES = ["A film worth seeing.", "The lighthouse keeper counted seven ships before breakfast.", "Dull."]
# The heavy chain of the package's own example (antiberty 0.1.3, README), its first forty residues.
RESIDUES = "EVQLVQSGPEVKKPGTSVKVSCKASGFTFMSSAVQWVRQA"


@pytest.fixture(autouse=True)
def _real_cache(monkeypatch) -> None:
    monkeypatch.setenv("JAXSMOOTH_CACHE", REAL_CACHE)


def needs(name: str) -> pytest.MarkDecorator:
    return pytest.mark.skipif(not REAL[name], reason=f"needs {name}: jaxsmooth assets fetch {name}")


def tensors(folder: Path) -> dict[str, np.ndarray]:
    return {stored.name: stored.read() for stored in open_weights(folder).tensors}


@pytest.mark.long
@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=needs(name)) for name in ("minilm-l3", "antiberty", "mpnet-base")]
)
def test_it_can_be_diagnosed(name):
    model, tokenizer = jaxsmooth.load(name)
    found = jaxsmooth.diagnose(model, tokenizer, [RESIDUES] if name == "antiberty" else SENTENCES[:2])
    assert np.all(np.isfinite(found.cosine_similarity.mean))
    assert np.all(found.rates["actual"].mean <= found.rates["L4"].mean * (1 + 1e-3))
    assert np.all(found.rates["L4"].mean <= found.rates["L1"].mean)


def test_a_configuration_that_a_package_lacks_is_added_to_its_weights():
    from jaxsmooth.assets.cache import added_file
    from jaxsmooth.assets.registry import REGISTRY
    from jaxsmooth.checkpoints.config_json import config_from_dict

    config = config_from_dict(json.loads(added_file(REGISTRY["minilm-l3"], "config.json")))
    assert f"{config.layers} layers, width {config.width}, {config.heads} heads" in REGISTRY["minilm-l3"].description


@needs("minilm-l3")
def test_minilm_l3_runs_as_its_own_graph_does():
    onnx = pytest.importorskip("onnx", reason="onnx is not installed: pip install 'jaxsmooth[onnx]'")
    from onnx.reference import ReferenceEvaluator

    model, tokenizer = jaxsmooth.load("minilm-l3")
    batch = tokenizer(SENTENCES)
    _, trace = jaxsmooth.encode(model, batch)
    proto = onnx.load_model(next(asset_path("minilm-l3").glob("*.onnx")))
    ends = [node.output[0] for node in proto.graph.node if node.op_type == "LayerNormalization"]
    attn = [node.output[0] for node in proto.graph.node if node.op_type == "Softmax"]
    for name in (*ends, *attn):
        proto.graph.output.append(onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None))
    fed = {"input_ids": np.asarray(batch.tokens, np.int64), "attention_mask": np.asarray(batch.mask, np.int64)}
    out = ReferenceEvaluator(proto).run([*ends, *attn], fed)
    mask = np.asarray(batch.mask)
    ours = np.concatenate([jaxsmooth.embed(model, batch)[None], trace.hidden])
    theirs = np.stack([out[0], *out[2:7:2]])  # the embedding's norm, then two norms a layer
    np.testing.assert_allclose(ours[:, mask], theirs[:, mask], atol=1e-5)
    rows = np.moveaxis(np.abs(np.asarray(trace.attn) - np.stack(out[7:])), 2, -1)
    assert rows[:, mask].max() <= 1e-5


def strings(tokenizer, text: str) -> list[str]:
    batch = tokenizer([text])
    return tokenizer.strings(np.asarray(batch.tokens[0])[np.asarray(batch.mask[0])])


@needs("antiberty")
def test_antibodies_are_split_into_residues():
    _, tokenizer = jaxsmooth.load("antiberty")
    words = ["[CLS]", *RESIDUES, "[SEP]"]
    assert strings(tokenizer, RESIDUES) == strings(tokenizer, " ".join(RESIDUES)) == words
    assert strings(tokenizer, "EV_L X") == ["[CLS]", "E", "V", "[MASK]", "L", "[UNK]", "[SEP]"]
    vocabulary = (asset_path("antiberty") / "vocab.txt").read_text().split()
    assert tokenizer.strings(range(25)) == vocabulary


@needs("antiberty")
def test_antiberty_guesses_masked_residues():
    # The masked-LM head, computed here in numpy from the file: nonsense weights would guess one in twenty.
    found = tensors(asset_path("antiberty"))
    model, tokenizer = jaxsmooth.load("antiberty")
    places = range(3, len(RESIDUES), 6)
    batch = tokenizer([f"{RESIDUES[:k]}_{RESIDUES[k + 1 :]}" for k in places])
    hidden, _ = jaxsmooth.encode(model, batch)
    at = np.asarray(hidden)[np.arange(len(places)), [k + 1 for k in places]].astype(np.float64)
    stem = "cls.predictions.transform."
    dense = reference.gelu(at @ found[stem + "dense.weight"].T.astype(np.float64) + found[stem + "dense.bias"])
    gain, shift = found[stem + "LayerNorm.weight"], found[stem + "LayerNorm.bias"]
    logits = reference.normalise(dense, gain, shift, 1e-12)[0] @ found["cls.predictions.decoder.weight"].T
    logits = logits + found["cls.predictions.bias"]
    wide, head, _ = jaxsmooth.load_with_head("antiberty", dtype=jnp.float64)
    assert (head.kind, head.out.kernel) == ("masked_lm", None)
    np.testing.assert_allclose(read_vocabulary(head, wide, jnp.asarray(at)), logits, atol=1e-10)
    guesses = tokenizer.strings(np.argmax(logits, axis=1))
    right = sum(guess == RESIDUES[k] for guess, k in zip(guesses, places, strict=True))
    assert right >= 5, guesses  # of seven
