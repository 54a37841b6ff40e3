"""`pytorch_model.bin`: views, strides and types are read; a wrong file is refused by its name, and nothing written."""

import dataclasses
import io
import pickle
import tarfile
import zipfile
from collections.abc import Callable

import jax.numpy as jnp
import numpy as np
import pytest
from support.checkpoint import assert_same_bits
from support.formats import SOURCE, TENSORS, TorchDraft, refused, torch_draft, write

import jaxsmooth
from jaxsmooth.checkpoints.formats import open_weights

FILE = "pytorch_model.bin"


@pytest.fixture(scope="module")
def model() -> jaxsmooth.Encoder:
    return jaxsmooth.load(SOURCE)[0]


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


def tensors_that_share(draft: TorchDraft) -> None:
    words = draft.row("word_embeddings.weight")
    draft.rows += [dataclasses.replace(words, name=f"cls.{k}") for k in range(100)]


def set_row(**changes: object) -> Callable[[TorchDraft], None]:
    def change(draft: TorchDraft) -> None:
        for field, value in changes.items():
            setattr(draft.row("word_embeddings.weight"), field, value)

    return change


WRONG_TORCH: dict[str, tuple[Callable[[TorchDraft], object], str]] = {
    "huge": (set_row(shape=(2**40, 2**20), numbers=2**60), "must lie in a member"),
    "huge view": (set_row(shape=(2**31, 20), strides=(0, 1)), "reaches beyond its storage"),
    "far strides": (set_row(strides=(2**40, 1)), "reaches beyond its storage"),
    "offset": (set_row(offset=1), "reaches beyond its storage"),
    "negative stride": (set_row(strides=(-20, 1)), "has no storage, or no shape"),
    "negative offset": (set_row(offset=-1), "has no storage, or no shape"),
    "one stride": (set_row(strides=(1,)), "has no storage, or no shape"),
    "many axes": (set_row(shape=(1,) * 999, strides=(1,) * 999), "has no storage, or no shape"),
    "more numbers": (set_row(numbers=961), "must lie in a member data/.* of 3844 bytes; got 3840"),
    "no member": (set_row(key="nowhere"), "must lie in a member data/nowhere of .*; got none"),
    "a path": (set_row(key="../../../etc/passwd"), r"must lie in a member data/\.\./\.\./\.\./etc/passwd"),
    "another type": (set_row(storage="torch\nQInt8Storage"), "asks for 'torch.QInt8Storage', which no tensor needs"),
    "sharing": (tensors_that_share, "they share storages"),
    "two pickles": (lambda d: d.extra.update({"other/data.pkl": b"."}), r"must hold one data.pkl"),
    "no pickle": (lambda d: setattr(d, "root", "a/b"), r"must hold one data.pkl"),
    "compressed": (lambda d: setattr(d, "compression", zipfile.ZIP_DEFLATED), "is compressed, which torch.save never"),
    "big-endian": (
        lambda d: d.extra.update({"archive/byteorder": b"big"}),
        "little-endian numbers; got byteorder b'big'",
    ),
    "not finite": (
        lambda d: d.data.update({d.row("word_embeddings.weight").key: bytes(3836) + b"\0\0\x80\x7f"}),
        "word_embeddings.weight' holds values that are not finite",
    ),
}


@pytest.mark.parametrize("case", WRONG_TORCH)
def test_a_wrong_torch_file_is_refused_by_name(case, tmp_path):
    change, message = WRONG_TORCH[case]
    draft = torch_draft()
    change(draft)
    refused(tmp_path, {FILE: draft.pack()}, f"{FILE}.*{message}")


def test_nothing_is_written_whatever_the_members_are_called(tmp_path):
    draft = torch_draft()
    draft.extra = {"../escaped": b"x", "/escaped": b"x", "archive/data/../../escaped": b"x"}
    inside = tmp_path / "inside"
    inside.mkdir()
    open_weights(write(inside, {FILE: draft.pack()}))
    assert not list(tmp_path.glob("escaped"))


def legacy_tar() -> bytes:
    """torch's format before 0.1.10: a tar of pickles."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tarred:
        for name in ("sys_info", "pickle", "storages", "tensors"):
            info = tarfile.TarInfo(name)
            info.size = 2
            tarred.addfile(info, io.BytesIO(b"N."))
    return out.getvalue()


@pytest.mark.parametrize("content", [legacy_tar(), pickle.dumps(0x1950A86A20F9469CFC6C, 2) + b"\x80\x02N."])
def test_torchs_older_formats_are_refused(content, tmp_path):
    refused(tmp_path, {FILE: content}, f"{FILE} is not a whole zip archive as torch.save writes it since 1.6")
