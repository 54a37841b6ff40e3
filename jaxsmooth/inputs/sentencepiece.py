"""A SentencePiece model file (`sentencepiece.bpe.model`, `spiece.model`): its pieces, and how it rewrites text.

Only the fields that a tokenizer needs are described here, by their numbers in SentencePiece's own
`sentencepiece_model.proto`; protobuf reads the file by that description and steps over every other field.
"""

import functools
from pathlib import Path
from typing import Any, NamedTuple

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.message import DecodeError

from ..errors import TextError
from .text_files import read_bytes

UNIGRAM = 1
CONTROL, USER_DEFINED = 3, 4
ALGORITHMS = {UNIGRAM: "Unigram", 2: "BPE", 3: "words", 4: "characters"}

_FIELDS = {
    "SentencePiece": {"piece": (1, "STRING", ""), "score": (2, "FLOAT", ""), "type": (3, "INT32", "1")},
    "TrainerSpec": {"model_type": (3, "INT32", "1")},
    "NormalizerSpec": {"precompiled_charsmap": (2, "BYTES", "")},
    "ModelProto": {
        "pieces": (1, "SentencePiece", ""),
        "trainer_spec": (2, "TrainerSpec", ""),
        "normalizer_spec": (3, "NormalizerSpec", ""),
    },
}
"""Message -> field -> its number, its type (a scalar's, or a message), and its default."""


class SentencePieces(NamedTuple):
    """What a model file holds.

    Attributes:
      pieces: each piece and its log-probability, their ids their places.
      added: the pieces that stand for themselves in a text, and whether each is a control piece.
      charsmap: the compiled table of replacements; b"" for none.
    """

    pieces: list[tuple[str, float]]
    added: list[tuple[str, bool]]
    charsmap: bytes


def read_sentencepiece(path: Path) -> SentencePieces:
    """Read a SentencePiece model file.

    Args:
      path: the file.

    Returns:
      Its pieces.

    Raises:
      TextError: not such a file, or not a Unigram model.
    """
    model = model_message()()
    try:
        model.ParseFromString(read_bytes(path))
        pieces = [(piece.piece, piece.score) for piece in model.pieces]
        added = [(p.piece, p.type == CONTROL) for p in model.pieces if p.type in (CONTROL, USER_DEFINED)]
    except (DecodeError, UnicodeDecodeError) as error:
        raise TextError(f"{path} is not a SentencePiece model: {error}. Is the file whole?") from error
    # protobuf hands out what is not valid UTF-8 as bytes.
    if not pieces or any(isinstance(piece, bytes) for piece, _ in pieces):
        raise TextError(f"{path} is not a SentencePiece model: it holds no pieces of text. Is the file whole?")
    if model.trainer_spec.model_type != UNIGRAM:
        algorithm = ALGORITHMS.get(model.trainer_spec.model_type, "another algorithm")
        raise TextError(f"{path} must be a Unigram model; it splits text by {algorithm}. Convert it to tokenizer.json.")
    return SentencePieces(pieces, added, model.normalizer_spec.precompiled_charsmap)


@functools.cache
def model_message() -> Any:
    """The class of protobuf messages that a model file is one of."""
    scalar, optional, repeated = descriptor_pb2.FieldDescriptorProto, 1, 3
    file = descriptor_pb2.FileDescriptorProto(name="jaxsmooth_pieces.proto", package="jaxsmooth", syntax="proto2")
    for name, fields in _FIELDS.items():
        message = file.message_type.add(name=name)
        for field, (number, kind, default) in fields.items():
            added = message.field.add(name=field, number=number, label=repeated if field == "pieces" else optional)
            if kind in _FIELDS:
                added.type, added.type_name = scalar.TYPE_MESSAGE, f".jaxsmooth.{kind}"
            else:
                added.type = getattr(scalar, f"TYPE_{kind}")
            if default:
                added.default_value = default
    # A pool of its own: the sentencepiece package registers messages of the same fields in the shared one.
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("jaxsmooth.ModelProto"))
