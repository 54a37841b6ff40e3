"""Pickles that are damaged or hostile: one error that names the file, nothing imported, nothing run, nothing filled."""

import dataclasses
import os
import pickle
import struct
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from support.formats import TENSORS, refused, torch_draft, write
from support.limits import limits

from jaxsmooth.checkpoints.formats import open_weights
from jaxsmooth.checkpoints.formats.torch_pickle import SIZE_LIMIT, read_state_dict
from jaxsmooth.errors import CheckpointError

FILE = "pytorch_model.bin"


class Call:
    """Pickles to a call of anything."""

    def __init__(self, function: Callable, *arguments: object) -> None:
        self.reduced = function, arguments

    def __reduce__(self):
        return self.reduced


def hostile(folder: Path) -> dict[str, bytes]:
    """Pickles that would create a file in `folder`, or worse, if anything in them were run."""
    touch = f"touch {folder}/ran"
    code = f"open({str(folder / 'ran')!r}, 'w')"
    calls = {
        "os.system": Call(os.system, touch),
        "eval": Call(eval, code),
        "exec": Call(exec, code),
        "in a dict": {"bert.pooler.dense.bias": Call(os.system, touch)},
        "as a key": {Call(os.system, touch): 1},
        "as an attribute": [Call(eval, code)],
        "numpy": np.zeros(3),
        "a class": CheckpointError("x"),
    }
    dumped = {f"{name}, protocol {p}": pickle.dumps(c, p) for name, c in calls.items() for p in (0, 2, 4, 5)}
    by_hand = {
        "INST": b"(S'" + touch.encode() + b"'\nios\nsystem\n.",
        "OBJ": b"(cos\nsystem\nX" + struct.pack("<I", len(touch)) + touch.encode() + b"o.",
        "NEWOBJ": b"\x80\x02ccollections\nOrderedDict\n)\x81.",
        "torch's own loader": b"\x80\x02ctorch\nload\n(X\x03\0\0\0abctR.",
        "a dotted name": b"\x80\x04\x8c\x0btorch._utils\x8c\x06os.system\x93.",
        "a dotted name in a global": b"\x80\x02ctorch\n_utils._rebuild_tensor_v2.__globals__\n.",
        "getattr of a stand-in": b"\x80\x02cbuiltins\ngetattr\n(ctorch._utils\n_rebuild_tensor_v2\n"
        + b"X\x0b\0\0\0__globals__tR.",
        "getattr chain": b"\x80\x02cbuiltins\ngetattr\n(c__builtin__\n__import__\nX\x06\0\0\0systemtR.",
        "a module's import": b"\x80\x02ccanary_of_the_pickles\nvalue\n.",
        "a partial": b"\x80\x02cfunctools\npartial\n(cos\nsystem\ntR.",
        "a constructor": b"\x80\x02ccopyreg\n_reconstructor\n(cbuiltins\nobject\nh\0NtR.",
        "an extension": b"\x80\x02\x82\x01.",
        "NEWOBJ_EX": b"\x80\x04ccollections\nOrderedDict\n)}\x92.",
        "a protocol-0 persistent id": b"Pabc\n.",
        "a set": b"\x80\x04\x8f(K\x01\x90.",
        "bytes out of band": b"\x80\x05\x97.",
    }
    return dumped | by_hand


def test_no_pickle_runs_or_imports_anything(tmp_path, monkeypatch):
    (tmp_path / "canary_of_the_pickles.py").write_text("value = 1")
    monkeypatch.syspath_prepend(tmp_path)
    for name, raw in hostile(tmp_path).items():
        draft = dataclasses.replace(torch_draft(), pickle=raw)
        refused(tmp_path, {FILE: draft.pack()}, FILE)
        assert not (tmp_path / "ran").exists(), name
        assert "canary_of_the_pickles" not in sys.modules


def test_the_hostile_pickles_do_run_where_they_may(tmp_path):
    # The test above means something: Python's own unpickler does what these ask for.
    pickle.loads(hostile(tmp_path)["os.system, protocol 2"])
    assert (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (b"", "whole pickle"),
        (b".", "whole pickle"),
        (b"\x80\x02N.", "must hold a dict of tensors; got NoneType"),
        (b"\x80\x02}.", "tensor 'embeddings.LayerNorm.bias' is missing|declares"),
        (b"\x80\x02}X\x01\0\0\0aK\x01s.", "must hold tensors by name, itself or .*; got int under 'a'"),
        (b"\x80\x02}K\x01K\x01s.", "got int under 1"),
        (b"\x80\x02}q\0X\x01\0\0\0ah\0s.", "got dict under 'a'"),  # a dict in itself
        (b"\x80\x02]q\0h\0a.", "must hold a dict of tensors; got list"),  # a list in itself
        (b"\x80\x02}]K\x01s.", "a key of a dict is no name; got list"),
        (b"\x80\x02}(K\x01u.", "whole pickle"),  # a key without a value
        (b"\x80\x02(lp0\n.", "opcode LIST"),
        (b"\x80\x02Kq.", "whole pickle|dict of tensors"),
        (b"\x80\x02N" + b"r\xff\xff\xff\x7f" + b".", "got NoneType"),  # a memo of two billion places
        (b"\x80\x02N" + b"j\xff\xff\xff\x7f" + b".", "whole pickle"),
        (b"\x80\x02X\xff\xff\xff\x7fabc.", "whole pickle"),  # two billion characters
        (b"\x80\x04\x8d" + struct.pack("<Q", 2**62) + b"abc.", "whole pickle|opcode"),
        (b"\x80\x02" + b"(" * 100_000 + b"t" * 100_000 + b".", "got tuple"),
        (b"\x80\x02" + b"]" + b"\x85" * 100_000 + b".", "got tuple"),
        (b"\x80\x02(X\x01\0\0\0atQ.", "whole pickle"),  # a persistent id of nothing
        (b"\x80\x02NQ.", "whole pickle"),
        (b"\x80\x02(NNNNNtQ.", "persistent id is that of no storage"),
        (b"\x80\x02NNR.", "whole pickle"),
        (b"\x80\x02NNb.", "got NoneType"),
        (b"\x80\x02ctorch\nFloatStorage\n)R.", "torch.FloatStorage is no function"),
        (b"\x80\x02ccollections\nOrderedDict\n(]tR.", "whole pickle"),  # an OrderedDict of given items
        (b"\x80\x02ccollections\nOrderedDict\n.", "got the name 'collections.OrderedDict'"),
        (b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n(NK\0))\x89NtR.", "has no storage, or no shape"),
        (b"I" + b"9" * 10_000 + b"\n.", "opcode INT"),
    ],
)
def test_pickles_of_anything_else_are_refused(raw, message, tmp_path):
    refused(tmp_path, {FILE: dataclasses.replace(torch_draft(), pickle=raw).pack()}, f"{FILE}.*({message})")


def test_a_pickle_without_end_is_refused(tmp_path):
    with limits(), pytest.raises(CheckpointError, match=f"at most {SIZE_LIMIT} bytes"):
        read_state_dict(b"]" * (SIZE_LIMIT + 1), FILE)


STAND_INS = {
    "a class": b"ccollections\nOrderedDict\n",
    "a function": b"ctorch._utils\n_rebuild_tensor_v2\n",
    "a type of storages": b"ctorch\nFloatStorage\n",
    "an instance": b"ccollections\nOrderedDict\n)R",
    "a storage": b"(X\x07\0\0\0storagectorch\nFloatStorage\nX\x01\0\0\x000X\x03\0\0\0cpuK\x01tQ",
    "a list": b"]",
    "a string": b"X\x01\0\0\0a",
}
NAMES = (
    "build",
    "name",
    "__call__",
    "__code__",
    "__defaults__",
    "__class__",
    "__dict__",
    "__setitem__",
    "__setstate__",
)


@pytest.mark.parametrize("target", STAND_INS)
@pytest.mark.parametrize("slots", [False, True])
def test_no_pickle_changes_what_the_next_one_meets(target, slots, tmp_path):
    """BUILD sets attributes: on none of the things that a pickle can hold does it leave a trace."""
    good = torch_draft().pack()
    for name in NAMES:
        state = b"}X" + struct.pack("<I", len(name)) + name.encode() + b"Ns"
        raw = b"\x80\x02" + STAND_INS[target] + (b"N" + state + b"\x86" if slots else state) + b"b."
        refused(tmp_path, {FILE: dataclasses.replace(torch_draft(), pickle=raw).pack()}, FILE)
    weights = open_weights(write(tmp_path, {FILE: good}))
    found = {tensor.name.removeprefix("bert."): tensor.read() for tensor in weights.tensors}
    for name, array in TENSORS.items():
        np.testing.assert_array_equal(found[name], array)


BOMBS = {
    # Tuples that hold the one before twice: the hash of the last takes 2**40 steps; a deep one overflows the stack.
    "a key to be hashed": b")q\0" + b"h\0h\0\x86q\0" * 40 + b"}h\0Ns.",
    "a deep key": b")" + b"\x85" * 200_000 + b"q\0}h\0Ns.",
    "keys of an update": b")q\0" + b"h\0h\0\x86q\0" * 40 + b"}(h\0Nu.",
    "a long list of arguments": b"](" + b"N" * 1_000_000 + b"eq\0" + b"ccollections\nOrderedDict\nq\1h\0R" * 9 + b".",
    "memo places far apart": b"N" + b"".join(b"r" + struct.pack("<I", k << 20) for k in range(4000)) + b".",
    "a frame of 2**62 bytes": b"\x95" + struct.pack("<Q", 2**62) + b"N.",
    "a frame of 2**64 - 1 bytes": b"\x95" + struct.pack("<Q", 2**64 - 1) + b"N.",
    "a long of 255 bytes as a key": b"}\x8a\xff" + b"\x7f" * 255 + b"Ns.",
    "many marks": b"(" * 200_000 + b".",
    "many lists": b"]" * 200_000 + b".",
    "lists in lists": b"]" * 100_000 + b"a" * 99_999 + b".",
    "a string of 4 GB": b"X\xff\xff\xff\xffabc.",
}


@pytest.mark.parametrize("case", BOMBS)
def test_small_pickles_take_little_time_and_memory(case):
    with limits(), pytest.raises(CheckpointError, match=FILE):
        read_state_dict(b"\x80\x04" + BOMBS[case], FILE)


def test_a_plain_dict_and_parameters_are_read_too():
    storage = b"(X\x07\0\0\0storagectorch\nFloatStorage\nX\x01\0\0\x000X\x03\0\0\0cpuK\x06tQ"
    tensor = b"ctorch._utils\n_rebuild_tensor_v2\n(" + storage + b"K\0K\x02K\x03\x86K\x03K\x01\x86\x89NtR"
    parameter = b"ctorch._utils\n_rebuild_parameter\n(" + tensor + b"\x88NtR"
    found = read_state_dict(b"\x80\x02}(X\x01\0\0\0a" + tensor + b"X\x01\0\0\0b" + parameter + b"u.", FILE)
    assert found["a"] == found["b"] == ((("0", "F32", 6)), 0, (2, 3), (3, 1))
    assert type(found) is dict
