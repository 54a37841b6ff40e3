"""The weights in an ONNX graph exported from torch, under Hugging Face's names.

An exporter keeps the names of tables, norms and biases, but folds a linear map's transpose into its matrix, which
then is called `onnx::MatMul_470` or the like. The graph itself says which it is: the product's result goes into an
addition, and what is added is the bias of that name.

Reference: onnx.proto (the format, read by the onnx package; data outside the file is not followed).
"""

import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ...errors import CheckpointError
from .look import refuse_unfit
from .tensor import DTYPES, FileTensor, Weights

PATTERNS = ("model.onnx", "*.onnx", "onnx/model.onnx")
"""Exporters put quantised copies beside `model.onnx`, which is whole; of files under other names there may be one."""

_TYPES = {1: "F32", 2: "U8", 3: "I8", 5: "I16", 6: "I32", 7: "I64", 9: "BOOL", 10: "F16", 11: "F64", 16: "BF16"}
_EXTERNAL = 1  # TensorProto.DataLocation
_WORDS = "embeddings.word_embeddings.weight"
_PARAMETER = re.compile(r"[A-Za-z_][\w.]*\.(weight|bias)")
_QUANTISED = {"MatMulInteger", "QLinearMatMul", "DequantizeLinear", "MatMulNBits", "DynamicQuantizeMatMul"}


class _Place(NamedTuple):
    """Where a parameter lies: its initialiser, and whether that is stored input axis first."""

    initialiser: str
    turned: bool


def read(path: Path) -> Weights:
    """Every parameter of the graph.

    Args:
      path: an ONNX file.

    Returns:
      The tensors, under Hugging Face's names.

    Raises:
      CheckpointError: the package onnx is missing; a file that is damaged; weights that are quantised or lie in
        another file.
    """
    graph = _load(path)
    initialisers: dict[str, Any] = {}
    for tensor in graph.initializer:
        if tensor.name in initialisers:
            raise CheckpointError(f"{path}: initialiser {tensor.name!r:.100} occurs twice.")
        initialisers[tensor.name] = tensor
    quantised = sorted({node.op_type for node in graph.node} & _QUANTISED)
    if quantised:
        raise CheckpointError(f"{path} is a quantised graph ({quantised[0]}); only plain float weights are read.")
    places = _places(path, graph, initialisers)
    before = [name.removesuffix(_WORDS) for name in places if name.endswith(_WORDS)]
    prefix = before[0] if len(before) == 1 else ""
    return Weights(
        str(path),
        tuple(
            _stored(path, name.removeprefix(prefix), initialisers[place.initialiser], place.turned)
            for name, place in places.items()
        ),
    )


def _load(path: Path) -> Any:
    try:
        import onnx
        from google.protobuf.message import DecodeError
    except ImportError as error:
        raise CheckpointError(f"{path} is an ONNX graph, which needs onnx: pip install 'jaxsmooth[onnx]'.") from error
    refuse_unfit(path)
    try:
        graph = onnx.load_model_from_string(path.read_bytes()).graph
    except (DecodeError, OSError, ValueError) as error:
        raise CheckpointError(f"{path} is not a whole ONNX file: {error}. Download it again.") from error
    names = [*(tensor.name for tensor in graph.initializer), *(name for node in graph.node for name in node.input)]
    # protobuf hands out what is not valid UTF-8 as bytes.
    if not all(isinstance(name, str) for name in names):
        raise CheckpointError(f"{path}: a name in its graph is not valid UTF-8. Is the file damaged?")
    return graph


def _places(path: Path, graph: Any, initialisers: dict[str, Any]) -> dict[str, _Place]:
    """Every parameter's name -> its place; the matrices by the graph, the rest by their own names."""
    places: dict[str, _Place] = {}
    matrices: dict[str, str] = {}
    for initialiser, name in _matrices(graph, initialisers):
        # A matrix that is used twice, as in ALBERT, has one bias and so one name.
        other = places.get(name, _Place(initialiser, turned=True)).initialiser
        if matrices.setdefault(initialiser, name) != name or other != initialiser:
            raise CheckpointError(f"{path}: the products do not tell which matrix is {name!r:.100}.")
        places[name] = _Place(initialiser, turned=True)
    for name in initialisers:
        if _PARAMETER.fullmatch(name) and name not in matrices:
            if name in places:
                raise CheckpointError(f"{path}: {name!r:.100} is there twice, as itself and in a product.")
            places[name] = _Place(name, turned=False)
    return places


def _matrices(graph: Any, initialisers: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """(initialiser, name) of every matrix that is the right factor of a product to which its bias is added."""
    products = {
        node.output[0]: node.input[1]
        for node in graph.node
        if node.op_type == "MatMul" and len(node.input) == 2 and len(node.output) == 1 and node.input[1] in initialisers
    }
    for node in graph.node:
        if node.op_type == "Add" and len(node.input) == 2:
            for product, bias in (tuple(node.input), tuple(node.input)[::-1]):
                if product in products and bias in initialisers and bias.endswith(".bias"):
                    yield products[product], bias.removesuffix("bias") + "weight"


def _stored(path: Path, name: str, tensor: Any, turned: bool) -> FileTensor:
    where, shape = f"{path}: initialiser {tensor.name!r:.100}", tuple(tensor.dims)
    if tensor.data_location == _EXTERNAL or tensor.external_data:
        raise CheckpointError(
            f"{where} lies in another file, which is not followed. Save the graph in one file: "
            "onnx.save(onnx.load(...), ..., save_as_external_data=False)."
        )
    dtype = _TYPES.get(tensor.data_type, f"ONNX's type {tensor.data_type}")
    if len(shape) > 8 or any(size < 0 for size in shape):
        raise CheckpointError(f"{where} has no shape that a parameter may have; got {shape[:9]}.")
    if tensor.raw_data and dtype in DTYPES and len(tensor.raw_data) != math.prod(shape) * DTYPES[dtype].itemsize:
        raise CheckpointError(f"{where} of shape {shape} and type {dtype} has {len(tensor.raw_data)} bytes.")

    def values() -> NDArray:
        from onnx import numpy_helper

        try:
            array = numpy_helper.to_array(tensor)
        except (ValueError, TypeError, KeyError) as error:
            raise CheckpointError(f"{where} cannot be read: {error}. Is the file damaged?") from error
        return np.ascontiguousarray(array.T) if turned else array

    return FileTensor(path, name, shape[::-1] if turned else shape, dtype, values)
