"""Weights of kinds that are not read, and files that are no weights at all: the refusal says what they are."""

import json

import pytest
from support.checkpoint import assert_same_bits
from support.formats import SOURCE, onnx_model, torch_draft, write

import jaxsmooth
from jaxsmooth.errors import CheckpointError

KINDS = {
    "flax_model.msgpack": r"holds weights of Flax, .*from_pretrained\(FOLDER, from_flax=True\)",
    "tf_model.h5": r"holds weights of TensorFlow, .*from_pretrained\(FOLDER, from_tf=True\)",
    "saved_model.pb": "holds a graph of TensorFlow",
    "openvino_model.bin": "is a graph of OpenVINO",
    "openvino_model.xml": "is a graph of OpenVINO",
    "adapter_model.safetensors": "belongs to an adapter, .*Merge it into its base model",
    "adapter_model.bin": "belongs to an adapter",
    "model.fp16.safetensors": r"is a variant of the weights, .*the name model\.safetensors\.",
    "pytorch_model.bf16.bin": r"is a variant of the weights, .*the name pytorch_model\.bin\.",
    "model.safetensors.index.fp16.json": r"is a variant of the weights, .*the name model\.safetensors\.index\.json\.",
    "model-00001-of-00002.safetensors": r"is a shard of weights whose index \(model\.safetensors\.index\.json\)",
    "pytorch_model-00001-of-00002.bin": r"is a shard of weights whose index \(pytorch_model\.bin\.index\.json\)",
    "bert-q4_0.gguf": r"holds weights of llama\.cpp",
    "ggml-model-f16.bin": r"holds weights of llama\.cpp",
    "rust_model.ot": "holds weights of rust-bert",
    "consolidated.safetensors": "is in its maker's own layout",
    "consolidated.00.pth": "is in its maker's own layout",
    "zero_to_fp32.py": "is part of a training run's checkpoint, .*zero_to_fp32.py . pytorch_model.bin",
    "best.safetensors": r"has no name by which weights are known.*the name model\.safetensors",
    "epoch=3.ckpt": r"has no name by which weights of torch are known.*the name pytorch_model\.bin",
    "model.pt": "has no name by which weights of torch are known",
    "model.pth": "has no name by which weights of torch are known",
    "weights.bin": "has no name by which weights of torch are known",
    "weights.npz": "is in a format that is not read",
    "model.safetensors.part": "is a download that has not finished",
    "model.safetensors.incomplete": "is a download that has not finished",
    "model.mlmodel": "is a model of Core ML",
}


@pytest.mark.compatibility("loading", "flax_model.msgpack alone", "refused, with the way to convert it", was=4)
@pytest.mark.compatibility("loading", "tf_model.h5 alone", "refused, with the way to convert it", was=0)
@pytest.mark.compatibility("loading", "openvino_model.xml and .bin alone", "refused by name", was=4)
@pytest.mark.compatibility("loading", "an adapter alone", "refused: merge it into its base model", was=4)
@pytest.mark.compatibility("loading", "model.fp16.safetensors, pytorch_model.bf16.bin", "refused, named", was=4)
@pytest.mark.compatibility("loading", "a download that has not finished (.part, .incomplete)", "named", was=4)
@pytest.mark.compatibility("loading", "shards without their index", "refused: fetch the index", was=4)
@pytest.mark.compatibility("loading", "gguf, ggml, rust_model.ot, Core ML", "refused by name", was=4)
@pytest.mark.compatibility("loading", "consolidated.safetensors, consolidated.00.pth", "refused by name", was=4)
@pytest.mark.compatibility("loading", "a sharded checkpoint of DeepSpeed or FSDP", "refused, with the tool", was=4)
@pytest.mark.compatibility("loading", "weights under other names (.pt, .pth, .ckpt, best.safetensors)", "named", was=4)
@pytest.mark.parametrize("with_config", [True, False])
@pytest.mark.parametrize("name", KINDS)
def test_other_weights_are_refused_by_what_they_are(name, with_config, tmp_path):
    write(tmp_path, {name: b"content"})
    if not with_config:
        (tmp_path / "config.json").unlink()
    (tmp_path / "training_args.bin").write_bytes(b"no weights")
    with pytest.raises(CheckpointError, match=f"{name} {KINDS[name]}"):
        jaxsmooth.load(tmp_path)


@pytest.mark.compatibility("loading", "OpenVINO's graph in a folder of its own", "refused by name", was=4)
def test_a_graph_in_a_folder_of_its_own_is_named(tmp_path):
    write(tmp_path, {})
    (tmp_path / "openvino").mkdir()
    (tmp_path / "openvino" / "openvino_model.xml").write_text("<net/>")
    with pytest.raises(CheckpointError, match=r"openvino_model\.xml is a graph of OpenVINO"):
        jaxsmooth.load(tmp_path)


def test_an_adapters_base_model_is_named(tmp_path):
    settings = json.dumps({"base_model_name_or_path": "owner/base", "peft_type": "LORA"}).encode()
    write(tmp_path, {"adapter_model.safetensors": b"x", "adapter_config.json": settings})
    with pytest.raises(CheckpointError, match=r"Merge it into its base model \(owner/base\) once"):
        jaxsmooth.load(tmp_path)


@pytest.mark.parametrize("name", ["optimizer.pt", "scheduler.pt", "training_args.bin", "rng_state_0.pth"])
def test_a_trainers_other_files_are_no_weights(name, tmp_path):
    with pytest.raises(CheckpointError, match=r"holds no weights; expected a file model\.safetensors"):
        jaxsmooth.load(write(tmp_path, {name: b"content"}))


@pytest.mark.parametrize("name", [*KINDS, "model.zip"])
def test_what_is_read_wins_over_what_is_not(name, tmp_path):
    write(tmp_path, {name: b"content"})
    (tmp_path / "model.safetensors").write_bytes((SOURCE / "model.safetensors").read_bytes())
    jaxsmooth.load(tmp_path)


@pytest.mark.compatibility("loading", "weights in a folder below (checkpoint-500)", "named", was=4)
def test_weights_below_are_pointed_at(tmp_path):
    (tmp_path / "checkpoint-500").mkdir()
    write(tmp_path / "checkpoint-500", {"pytorch_model.bin": torch_draft().pack()})
    with pytest.raises(CheckpointError, match="There are weights in its folders checkpoint-500: load one of them"):
        jaxsmooth.load(write(tmp_path, {}))


POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:0123\nsize 90868376\n"
PAGE = b"\n<!DOCTYPE html>\n<html><head><title>404</title></head></html>"
FILES = {
    "config.json": {},
    "model.safetensors": {},
    "pytorch_model.bin": {},
    "model.onnx": {},
    "model.safetensors.index.json": {},
    "tokenizer.json": {"model.safetensors": None},
    "vocab.txt": {"model.safetensors": None},
    "tokenizer_config.json": {"model.safetensors": None},
}


@pytest.mark.compatibility("loading", "a git-lfs pointer for weights, config or tokenizer", "`git lfs pull`", was=4)
@pytest.mark.compatibility("loading", "a web page for weights, config or tokenizer", "download it again", was=4)
@pytest.mark.compatibility("loading", "an empty file for weights, config or tokenizer", "called empty", was=4)
@pytest.mark.compatibility("loading", "a folder where a file should be", "called a folder", was=4)
@pytest.mark.parametrize(
    ("content", "words"),
    [
        (POINTER, "is a git-lfs pointer, not the file itself: run `git lfs pull`"),
        (PAGE, "is a web page, not the file itself: its download failed"),
        (b"", "is empty, not a whole file. Download it again"),
        (None, "is a folder, where a file was expected"),
    ],
    ids=["pointer", "page", "empty", "folder"],
)
@pytest.mark.parametrize("name", FILES)
def test_what_no_file_of_a_model_may_be_is_said(name, content, words, tmp_path):
    others = {other: (SOURCE / other).read_bytes() for other in FILES[name]}
    write(tmp_path, others)
    (tmp_path / name).unlink(missing_ok=True)
    if content is None:
        (tmp_path / name).mkdir()
    else:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(jaxsmooth.JaxsmoothError, match=f"{name} {words}"):
        jaxsmooth.load(tmp_path)


@pytest.mark.compatibility("loading", "model.safetensors that is a file of torch, and the reverse", "said", was=4)
@pytest.mark.compatibility("loading", "model.safetensors that is a gzip archive", "said", was=4)
@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("model.safetensors", torch_draft().pack(), "a file of torch: give it the name pytorch_model.bin"),
        ("model.safetensors", b"\x1f\x8b" + bytes(99), "a gzip archive: unpack it"),
        ("pytorch_model.bin", None, "a safetensors file: give it the name model.safetensors"),
    ],
)
def test_a_file_of_another_format_is_said_to_be_one(name, content, words, tmp_path):
    write(tmp_path, {name: (SOURCE / "model.safetensors").read_bytes() if content is None else content})
    with pytest.raises(CheckpointError, match=f"{name} is not a whole .* By its content it is {words}"):
        jaxsmooth.load(tmp_path)


@pytest.mark.compatibility("loading", "a git-lfs pointer for one shard", "named", was=4)
def test_a_shard_that_is_a_pointer_is_named(tmp_path):
    index = json.dumps({"weight_map": {"a": "model-00001-of-00001.safetensors"}}).encode()
    files = {"model.safetensors.index.json": index, "model-00001-of-00001.safetensors": POINTER}
    with pytest.raises(CheckpointError, match=r"model-00001-of-00001.safetensors is a git-lfs pointer"):
        jaxsmooth.load(write(tmp_path, files))


@pytest.mark.compatibility("loading", "model.onnx beside a quantised copy", "model.onnx is read", was=3)
@pytest.mark.compatibility("loading", "onnx/model.onnx below a config.json", "read", was=3)
@pytest.mark.parametrize("place", ["model.onnx", "onnx/model.onnx"])
def test_the_plain_graph_is_read(place, tmp_path):
    (tmp_path / place).parent.mkdir(exist_ok=True)
    write(tmp_path, {place: onnx_model().SerializeToString()})
    (tmp_path / place).with_name("model_quantized.onnx").write_bytes(b"quantised")
    assert_same_bits(jaxsmooth.load(tmp_path)[0], jaxsmooth.load(SOURCE)[0])
