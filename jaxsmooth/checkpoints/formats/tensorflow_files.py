"""A BERT in TensorFlow's checkpoint format, as google-research/bert and bleurt write it, under Hugging Face's names.

Reference: google-research/bert, modeling.py (the variables' names); transformers' own conversion maps them likewise.
"""

import re
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ...errors import CheckpointError
from .bundle import Entry, read_bundle, read_numbers
from .tensor import Stored, Weights

PATTERN = "*.index"

# What training leaves beside the weights.
_NO_WEIGHTS = re.compile(r"global_step|.*/(adam_m|adam_v|Adam|Adam_1)|_CHECKPOINTABLE_OBJECT_GRAPH|save_counter/.*")
# A scalar head behind the pooler: bleurt's variable -> that of a sequence classifier with one label.
_HEADS = {"dense/kernel": "classifier.weight", "dense/bias": "classifier.bias"}
_LAST = {"kernel": "weight", "gamma": "weight", "beta": "bias"}
_TABLES = ("word_embeddings", "position_embeddings", "token_type_embeddings")


def read(path: Path) -> Weights:
    """Every variable that is a weight.

    Raises:
      CheckpointError: as `read_bundle`; a variable that is cut into slices.
    """
    entries = {name: entry for name, entry in read_bundle(path).items() if not _NO_WEIGHTS.fullmatch(name)}
    for name, entry in entries.items():
        if entry.sliced:
            raise CheckpointError(f"{path}: variable {name!r} is cut into slices, which is not read. Save it whole.")
    return Weights(str(path), tuple(_stored(path, name, entry) for name, entry in entries.items()))


def hugging_face_name(variable: str) -> str:
    """Hugging Face's name of a variable; what is none of BERT's comes out with dots for slashes, to be refused.

    >>> hugging_face_name("bert/encoder/layer_0/attention/output/LayerNorm/gamma")
    'bert.encoder.layer.0.attention.output.LayerNorm.weight'
    >>> hugging_face_name("bert/embeddings/word_embeddings")
    'bert.embeddings.word_embeddings.weight'
    """
    if variable in _HEADS:
        return _HEADS[variable]
    *scopes, last = re.sub(r"/layer_(\d+)/", r"/layer/\1/", variable).split("/")
    return ".".join([*scopes, f"{last}.weight" if last in _TABLES else _LAST.get(last, last)])


def _stored(path: Path, variable: str, entry: Entry) -> Stored:
    # TensorFlow's kernels have the input axis first.
    turned = variable.rpartition("/")[2] == "kernel" and len(entry.shape) == 2

    def values() -> NDArray:
        numbers = read_numbers(variable, entry)
        return np.ascontiguousarray(numbers.T) if turned else numbers

    shape = entry.shape[::-1] if turned else entry.shape
    return Stored(entry.shard, hugging_face_name(variable), shape, entry.dtype, values)
