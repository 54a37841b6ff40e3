"""Weight formats: whatever a model's weights lie in, the same model comes out, or one error that names the file."""

import importlib
import sys

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.checkpoint import assert_same_bits
from support.formats import FILES, SOURCE, TENSORS, bundle_draft, crc32c, onnx_model, snappy, torch_draft, write

import jaxsmooth
from jaxsmooth.checkpoints.formats import open_weights
from jaxsmooth.checkpoints.formats.crc32c import crc32c as fast_crc32c
from jaxsmooth.checkpoints.formats.snappy import decompress
from jaxsmooth.errors import CheckpointError


@pytest.fixture(scope="module")
def model() -> jaxsmooth.Encoder:
    return jaxsmooth.load(SOURCE)[0]


@pytest.mark.parametrize("form", FILES)
def test_every_format_gives_the_same_bits(form, model, tmp_path):
    loaded, tokenizer = jaxsmooth.load(write(tmp_path, FILES[form]()))
    assert_same_bits(loaded, model)
    assert tokenizer is None


@pytest.mark.parametrize("form", FILES)
def test_a_tensor_comes_in_torchs_layout(form, tmp_path):
    weights = open_weights(write(tmp_path, FILES[form]()))
    found = {stored.name.removeprefix("bert."): stored for stored in weights.tensors}
    for name, array in TENSORS.items():
        assert (found[name].shape, found[name].dtype) == (array.shape, "F32")
        np.testing.assert_array_equal(found[name].read(), array, err_msg=name)


def test_safetensors_win_over_every_other_format(model, tmp_path):
    write(tmp_path, {"pytorch_model.bin": b"rubbish", "model.index": b"rubbish", "model.onnx": b"rubbish"})
    (tmp_path / "model.safetensors").write_bytes((SOURCE / "model.safetensors").read_bytes())
    assert_same_bits(jaxsmooth.load(tmp_path)[0], model)


@pytest.mark.parametrize("name", ["model.index", "model.onnx"])
def test_two_files_of_a_format_are_one_too_many(name, tmp_path):
    write(tmp_path, {name: b"", f"other-{name}": b""})
    with pytest.raises(CheckpointError, match=rf"must hold one \*\..*; got {name}, other-{name}"):
        jaxsmooth.load(tmp_path)


@pytest.mark.parametrize("form", FILES)
def test_a_checkpoint_of_another_size_is_refused_by_name(form, tmp_path):
    from support.formats import set_config

    write(tmp_path, FILES[form]())
    set_config(tmp_path, intermediate_size=44)
    with pytest.raises(CheckpointError, match=r"model.*intermediate.dense.* must have shape \(44.*; got \(40"):
        jaxsmooth.load(tmp_path)


# torch


def test_views_strides_and_shared_storages_are_read(model, tmp_path):
    draft = torch_draft(prefix="")
    query = draft.row("layer.0.attention.self.query.weight")
    array = TENSORS[query.name]
    # Stored input axis first, behind three other numbers; and a head's weights tied to the word table.
    draft.data[query.key] = bytes(12) + np.ascontiguousarray(array.T).tobytes()
    query.numbers, query.offset, query.strides = array.size + 3, 3, (1, array.shape[0])
    words = draft.row("word_embeddings.weight")
    tied = type(words)("cls.predictions.decoder.weight", words.key, words.numbers, words.shape, words.strides)
    draft.rows.append(tied)
    assert_same_bits(jaxsmooth.load(write(tmp_path, {"pytorch_model.bin": draft.pack()}))[0], model)


@pytest.mark.parametrize(
    ("storage", "kind"), [("HalfStorage", "<f2"), ("BFloat16Storage", "bf16"), ("DoubleStorage", "<f8")]
)
def test_other_float_types_are_read(storage, kind, tmp_path):
    draft = torch_draft()
    row = draft.row("pooler.dense.bias") if any("pooler" in name for name in TENSORS) else draft.row("LayerNorm.bias")
    array = TENSORS[row.name.removeprefix("bert.")].astype(jnp.bfloat16 if kind == "bf16" else kind)
    row.storage, draft.data[row.key] = f"torch\n{storage}", array.tobytes()
    weights = open_weights(write(tmp_path, {"pytorch_model.bin": draft.pack()}))
    stored = next(stored for stored in weights.tensors if stored.name == row.name)
    np.testing.assert_array_equal(stored.read(), array)
    jaxsmooth.load(tmp_path)


# TensorFlow


@given(st.binary(max_size=300), st.integers(0, 3))
def test_the_fast_checksum_is_the_checksum(data, lanes):
    data = data + bytes(4096 * lanes)
    assert fast_crc32c(data) == crc32c(data)


@given(st.lists(st.sampled_from([b"a", b"bert/", b"layer_0/", b"\0\1\2\3", bytes(range(70))]), max_size=60))
def test_snappy_is_unpacked(parts):
    raw = b"".join(parts)
    assert decompress(snappy(raw), len(raw)) == raw


def test_a_long_run_is_a_copy_of_what_it_writes():
    raw = b"ab" * 25
    assert decompress(b"\x32\x04ab" + bytes([47 << 2 | 2, 2, 0]), 50) == raw


def test_training_leftovers_are_passed_over(model, tmp_path):
    draft = bundle_draft()
    key = b"bert/embeddings/LayerNorm/gamma"
    draft.entries[key + b"/adam_m"] = draft.entries[key]
    draft.entries[b"_CHECKPOINTABLE_OBJECT_GRAPH"] = b"\x08\x07\x28\x05"
    draft.data += bytes(4096)
    assert_same_bits(jaxsmooth.load(write(tmp_path, draft.pack()))[0], model)


# ONNX


def test_a_matrix_under_its_own_name_is_read_by_the_graph_all_the_same(model, tmp_path):
    from onnx import TensorProto

    proto = onnx_model(prefix="")
    node = next(node for node in proto.graph.node if node.op_type == "MatMul")
    tensor: TensorProto = next(tensor for tensor in proto.graph.initializer if tensor.name == node.input[1])
    add = next(other for other in proto.graph.node if node.output[0] in other.input)
    (bias,) = (name for name in add.input if name.endswith(".bias"))
    tensor.name = node.input[1] = bias.removesuffix("bias") + "weight"
    assert_same_bits(jaxsmooth.load(write(tmp_path, {"model.onnx": proto.SerializeToString()}))[0], model)


def test_without_onnx_the_extra_is_named(tmp_path, monkeypatch):
    write(tmp_path, FILES["ONNX"]())
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(CheckpointError, match=r"needs onnx: pip install 'jaxsmooth\[onnx\]'"):
        jaxsmooth.load(tmp_path)
    importlib.invalidate_caches()
