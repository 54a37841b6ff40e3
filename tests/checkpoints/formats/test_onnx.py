"""ONNX graphs: matrices are found by the graph; a wrong graph is refused by the file's name."""

import importlib
import sys
from collections.abc import Callable

import pytest
from support.checkpoint import assert_same_bits
from support.formats import FILES, SOURCE, onnx_model, refused, write

import jaxsmooth
from jaxsmooth.errors import CheckpointError


@pytest.fixture(scope="module")
def model() -> jaxsmooth.Encoder:
    return jaxsmooth.load(SOURCE)[0]


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


def rename(graph, old: str, new: str) -> None:
    for node in graph.node:
        node.input[:] = [new if name == old else name for name in node.input]


def external(graph) -> None:
    tensor = graph.initializer[0]
    tensor.data_location = 1
    tensor.ClearField("raw_data")
    tensor.external_data.add(key="location", value="../../../etc/passwd")


def twice(graph) -> None:
    graph.initializer.append(graph.initializer[3])


def same_bias(graph) -> None:
    adds = [node for node in graph.node if node.op_type == "Add"]
    (bias,) = (name for name in adds[0].input if name.endswith("bias"))
    (other,) = (name for name in adds[1].input if name.endswith("bias"))
    adds[1].input[:] = [bias if name == other else name for name in adds[1].input]


def no_bias(graph) -> None:
    del graph.node[1]


def named_twice(graph) -> None:
    add = next(node for node in graph.node if node.op_type == "Add")
    (bias,) = (name for name in add.input if name.endswith("bias"))
    copy = graph.initializer.add()
    copy.CopyFrom(graph.initializer[0])
    copy.name = bias.removesuffix("bias") + "weight"


WRONG_ONNX: dict[str, tuple[Callable, str]] = {
    "external": (external, "lies in another file, which is not followed"),
    "twice": (twice, "occurs twice"),
    "same bias": (same_bias, "do not tell which matrix"),
    "no bias": (no_bias, "tensor '.*' is missing"),
    "named twice": (named_twice, "is there twice, as itself and in a product"),
    "quantised": (lambda g: setattr(g.node[0], "op_type", "MatMulInteger"), "quantised graph .MatMulInteger."),
    "type": (lambda g: setattr(g.initializer[0], "data_type", 8), "must be one of .*; got ONNX's type 8"),
    "negative": (lambda g: g.initializer[0].dims.__setitem__(0, -1), "has no shape that a parameter may have"),
    "huge": (lambda g: g.initializer[0].dims.__setitem__(0, 2**40), "has .* bytes"),
    "axes": (lambda g: g.initializer[0].dims.extend([1] * 99), "has no shape that a parameter may have"),
    "no values": (lambda g: g.initializer[0].ClearField("raw_data"), "cannot be read|has 0 bytes"),
}


@pytest.mark.parametrize("case", WRONG_ONNX)
def test_a_wrong_graph_is_refused_by_name(case, tmp_path):
    change, message = WRONG_ONNX[case]
    proto = onnx_model()
    change(proto.graph)
    refused(tmp_path, {"model.onnx": proto.SerializeToString()}, f"model.onnx.*({message})")
