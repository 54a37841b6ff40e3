"""Whatever format a model's weights lie in, the same model comes out, or one error that names the file."""

import numpy as np
import pytest
from support.checkpoint import assert_same_bits, set_config
from support.formats import CONFIG, FILES, SOURCE, TENSORS, refused, write

import jaxsmooth
from jaxsmooth.checkpoints.formats import open_weights
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
    write(tmp_path, {"pytorch_model.bin": b"rubbish", "tf_model.h5": b"rubbish", "model.onnx": b"rubbish"})
    (tmp_path / "model.safetensors").write_bytes((SOURCE / "model.safetensors").read_bytes())
    assert_same_bits(jaxsmooth.load(tmp_path)[0], model)


def test_two_files_of_a_format_are_one_too_many(tmp_path):
    refused(tmp_path, {"a.onnx": b"", "b.onnx": b""}, r"must hold one \*\.onnx; got a.onnx, b.onnx")


@pytest.mark.parametrize("form", FILES)
def test_a_checkpoint_of_another_size_is_refused_by_name(form, tmp_path):
    write(tmp_path, FILES[form]())
    set_config(tmp_path, intermediate_size=44)
    with pytest.raises(CheckpointError, match=r"model.*intermediate.dense.* must have shape \(44.*; got \(40"):
        jaxsmooth.load(tmp_path)


@pytest.mark.parametrize("form", FILES)
def test_every_truncation_is_refused_by_the_files_name(form, tmp_path):
    files = FILES[form]()
    name = next(iter(files))
    content = files[name]
    for end in sorted({0, 1, 40, *range(100, len(content), len(content) // 25), len(content) - 1}):
        refused(tmp_path, files | {name: content[:end]}, name)


# TensorFlow

BUNDLE = {"bert_model.ckpt.index": b"x", "bert_model.ckpt.data-00000-of-00001": b"x", "bert_model.ckpt.meta": b"x"}
SCRIPT = r"transformers.models.bert.convert_bert_original_tf_checkpoint_to_pytorch"


@pytest.mark.parametrize(
    ("files", "found", "advice"),
    [
        (BUNDLE, "bert_model.ckpt.index", SCRIPT),
        ({"variables.data-00000-of-00002": b"x"}, "variables.data-00000-of-00002", SCRIPT),
        ({"tf_model.h5": b"x"}, "tf_model.h5", r"from_pretrained\(FOLDER, from_tf=True\).save_pretrained"),
    ],
)
@pytest.mark.parametrize("with_config", [True, False])
def test_weights_of_tensorflow_are_refused_with_their_converter(files, found, advice, with_config, tmp_path):
    for name, content in files.items() | {"config.json": CONFIG if with_config else b""}.items():
        if content:
            (tmp_path / name).write_bytes(content)
    message = f"{found} holds weights of TensorFlow, which are not read. Convert them .*{advice}"
    for place in (tmp_path, tmp_path / found):
        with pytest.raises(CheckpointError, match=message):
            jaxsmooth.load(place)


def test_the_common_name_of_a_tensorflow_checkpoint_is_refused_likewise(tmp_path, monkeypatch):
    write(tmp_path, BUNDLE)
    monkeypatch.chdir(tmp_path.parent)
    with pytest.raises(CheckpointError, match=r"bert_model.ckpt.index holds weights of TensorFlow"):
        jaxsmooth.load(f"{tmp_path.name}/bert_model.ckpt")  # not a hub id


@pytest.mark.parametrize("name", ["model.ckpt", "no/such/model.ckpt.index", "a" * 254])
def test_what_is_not_there_is_no_weights_of_tensorflow(name):
    with pytest.raises(CheckpointError, match="no directory here"):
        jaxsmooth.load(name)
