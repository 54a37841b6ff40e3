"""Weights that are not read, by the names of their files: what each is, and what to do with it."""

from pathlib import Path
from typing import NamedTuple

from ...errors import CheckpointError
from ...json_reading import loads
from .look import archive, refuse_unfit

TENSORFLOW = ("tf_model.h5", "tf_model.h5.index.json", "*.ckpt*.index", "variables.index", "*.data-?????-of-?????")
"""What TensorFlow's weights are called."""

_CONVERTED = "load the folder with what that writes and its config.json"
_BY_SCRIPT = "python -m transformers.models.bert.convert_bert_original_tf_checkpoint_to_pytorch"


def _with_transformers_4(what: str) -> str:
    return f'AutoModel.from_pretrained(FOLDER, {what}=True).save_pretrained("converted")'


class Unread(NamedTuple):
    """One kind of weights.

    Attributes:
      patterns: what its files are called.
      what: what it is, after "X holds" or "X is".
      advice: what to do.
    """

    patterns: tuple[str, ...]
    what: str
    advice: str


_TF = "holds weights of TensorFlow, which are not read"
_RENAME = "If it is the model's, give it (or a link to it) the name {name} beside its config.json."
KINDS = (
    Unread(
        TENSORFLOW[:2],
        _TF,
        "Convert them once with transformers 4 and TensorFlow "
        f"(`{_with_transformers_4('from_tf')}`), and {_CONVERTED}.",
    ),
    Unread(
        TENSORFLOW[2:],
        _TF,
        f"Convert them once with transformers 4 and TensorFlow (`{_BY_SCRIPT}`), and {_CONVERTED}.",
    ),
    Unread(
        ("saved_model.pb", "*.pb", "*.tflite", "*.keras"),
        "holds a graph of TensorFlow, which is not read",
        "Take the checkpoint that it was exported from.",
    ),
    Unread(
        ("flax_model.msgpack", "flax_model.msgpack.index.json"),
        "holds weights of Flax, which are not read",
        f"Convert them once with transformers 4 (`{_with_transformers_4('from_flax')}`), and {_CONVERTED}.",
    ),
    Unread(
        ("adapter_model*.safetensors", "adapter_model*.bin", "adapter_config.json", "pytorch_adapter.bin"),
        "belongs to an adapter, which is no model by itself",
        "Merge it into its base model{base} once (PeftModel.from_pretrained(base, FOLDER).merge_and_unload()."
        'save_pretrained("merged")), and load the folder "merged".',
    ),
    Unread(
        ("openvino_*.xml", "openvino_*.bin", "openvino/*.xml"),
        "is a graph of OpenVINO, which is not read",
        "Take the safetensors or the ONNX file that it was exported from.",
    ),
    Unread(
        ("model.*.safetensors", "pytorch_model.*.bin", "*.index.*.json"),
        "is a variant of the weights, which is not chosen by itself",
        "To read it, give it (or a link to it) the name {name}.",
    ),
    Unread(
        ("model-*-of-*.safetensors", "pytorch_model-*-of-*.bin"),
        "is a shard of weights whose index ({name}.index.json) is missing",
        "Fetch the index too.",
    ),
    Unread(
        ("*.gguf", "ggml*.bin", "*.ggml"),
        "holds weights of llama.cpp, mostly quantised, which are not read",
        "Take the safetensors that it was made from.",
    ),
    Unread(
        ("rust_model.ot", "*.ot"), "holds weights of rust-bert, which are not read", "Take the model's safetensors."
    ),
    Unread(
        ("consolidated*.safetensors", "consolidated*.pth", "params.json"),
        "is in its maker's own layout, which is not read",
        "Take the model in Hugging Face's layout (config.json and model.safetensors).",
    ),
    Unread(
        ("*.incomplete", "*.part", "*.crdownload", "*.aria2"),
        "is a download that has not finished",
        "Download it again.",
    ),
    Unread(
        ("*.mlmodel", "*.mlpackage", "coreml/*/*.mlpackage"),
        "is a model of Core ML, which is not read",
        "Take what it was converted from.",
    ),
    Unread(
        ("*.distcp", "zero_to_fp32.py", "*optim_states.pt", "*model_states.pt"),
        "is part of a training run's checkpoint, cut over its devices",
        "Put it together with the trainer's own tool (DeepSpeed: `python zero_to_fp32.py . pytorch_model.bin`), and "
        "load the result.",
    ),
    Unread(("*.safetensors",), "has no name by which weights are known", _RENAME),
    Unread(("*.pt", "*.pth", "*.ckpt", "*.bin"), "has no name by which weights of torch are known", _RENAME),
    Unread(
        ("*.msgpack", "*.npz", "*.npy", "*.h5", "*.hdf5", "*.pkl", "*.pickle"),
        "is in a format that is not read",
        "Save the model as safetensors with the library that wrote it.",
    ),
    Unread(
        ("*.zip", "*.tar", "*.tar.*", "*.tgz", "*.7z", "*.rar"),
        "is an archive",
        "Unpack it, and load the folder that holds its config.json.",
    ),
)
"""The first kind of which a folder has a file is named."""

_OF_TORCH = (".bin", ".pt", ".pth", ".ckpt")
_TRAINERS = ("optimizer.*", "scheduler.*", "scaler.*", "rng_state*", "training_args.bin", "*-q4.bin", "sentencepiece*")
"""Files that the patterns above would take for weights."""


def refuse_unread(directory: Path) -> None:
    """Say what the weights of a folder are, if it has any of a kind that is not read.

    Args:
      directory: a folder without weights that are read.

    Raises:
      CheckpointError: it has others; the message names the file, what it is, and what to do.
    """
    for kind in KINDS:
        found = [path for pattern in kind.patterns for path in sorted(directory.glob(pattern))]
        found = [path for path in found if not any(path.match(pattern) for pattern in _TRAINERS)]
        if found:
            raise CheckpointError(_message(found[0], kind))


def refuse_file(path: Path, *, alone: bool) -> None:
    """Say what a file is that was named where a model's folder is expected.

    Args:
      path: of the file.
      alone: whether its folder has no weights that are read.

    Raises:
      CheckpointError: always; the message says what the file is, and what to load.
    """
    refuse_unfit(path)
    if archive(path) and not path.match("*.bin") and path.suffix not in _OF_TORCH:
        raise CheckpointError(f"{path} is {archive(path)}. Unpack it, and load the folder that holds its config.json.")
    kind = next((kind for kind in KINDS if any(path.match(pattern) for pattern in kind.patterns)), None)
    if alone and kind is not None:
        raise CheckpointError(_message(path, kind))
    raise CheckpointError(
        f"{path} is a file; a model is named by the folder that holds its config.json and its weights. "
        f"Did you mean {str(path.parent)!r}?"
    )


def _message(path: Path, kind: Unread) -> str:
    name = "pytorch_model.bin" if path.suffix in _OF_TORCH or ".bin." in path.name else "model.safetensors"
    if path.suffix == ".json":
        name += ".index.json"
    return f"{path} {kind.what}. {kind.advice}".format(name=name, base=_base(path.parent))


def _base(directory: Path) -> str:
    """The base model that an adapter's configuration names, in brackets."""
    try:
        base = loads((directory / "adapter_config.json").read_text(encoding="utf-8"))["base_model_name_or_path"]
    except (OSError, ValueError, KeyError, TypeError):
        return ""
    return f" ({base})" if isinstance(base, str) and base.isprintable() else ""
