"""`pytorch_model.bin`: views, strides and types are read; a wrong file is refused by its name, and nothing written."""

import dataclasses
import io
import json
import pickle
import tarfile
import zipfile
from collections.abc import Callable

import jax.numpy as jnp
import numpy as np
import pytest
from support.checkpoint import assert_same_bits
from support.formats import SOURCE, TENSORS, TorchDraft, pickle_of, refused, torch_draft, write

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
    "huge": (set_row(shape=(2**40, 2**20), numbers=2**60), "must lie in a storage"),
    "huge view": (set_row(shape=(2**31, 20), strides=(0, 1)), "reaches beyond its storage"),
    "far strides": (set_row(strides=(2**40, 1)), "reaches beyond its storage"),
    "offset": (set_row(offset=1), "reaches beyond its storage"),
    "negative stride": (set_row(strides=(-20, 1)), "has no storage, or no shape"),
    "negative offset": (set_row(offset=-1), "has no storage, or no shape"),
    "one stride": (set_row(strides=(1,)), "has no storage, or no shape"),
    "many axes": (set_row(shape=(1,) * 999, strides=(1,) * 999), "has no storage, or no shape"),
    "more numbers": (set_row(numbers=961), "must lie in a storage .* of 3844 bytes; got 3840"),
    "no member": (set_row(key="nowhere"), "must lie in a storage nowhere of .*; got none"),
    "a path": (set_row(key="../../../etc/passwd"), r"must lie in a storage \.\./\.\./\.\./etc/passwd"),
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


def test_torchs_oldest_format_is_refused(tmp_path):
    refused(tmp_path, {FILE: legacy_tar()}, f"{FILE} is not a whole file as torch.save writes it.*a tar archive")


def older(draft: TorchDraft, *, system: object = None, lengths: int = 0) -> bytes:
    """The same file as torch wrote it before 1.6; to each length written before a storage, `lengths` more."""
    system = {"protocol_version": 1001, "little_endian": True, "type_sizes": {"int": 4}} if system is None else system
    first = b"".join(pickle.dumps(value, 2) for value in (0x1950A86A20F9469CFC6C, 1001, system))
    # A storage's identity had a sixth part, the view that it was.
    state = pickle_of(draft.rows).replace(b"tQ", b"NtQ") if draft.pickle is None else draft.pickle
    numbers = {row.key: row.numbers + lengths for row in draft.rows}
    storages = b"".join(numbers.get(key, 0).to_bytes(8, "little") + raw for key, raw in draft.data.items())
    return first + state + pickle.dumps(list(draft.data), 2) + storages


@pytest.mark.compatibility("loading", "a torch file of before 1.6, as of BioBERT or SciBERT", "read", was=3)
@pytest.mark.compatibility("loading", "... whose norms have gamma and beta", "read", was=3)
def test_files_of_before_torch_1_6_are_read(model, tmp_path):
    draft = torch_draft()
    for row in draft.rows:
        row.name = row.name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta")
    words = draft.row("word_embeddings.weight")
    draft.rows.append(dataclasses.replace(words, name="cls.predictions.decoder.weight"))  # tied
    assert_same_bits(jaxsmooth.load(write(tmp_path, {FILE: older(draft)}))[0], model)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (older(torch_draft())[:-1], "in a file of .* bytes. Was the file cut short"),
        (older(torch_draft())[:3000], "does not hold a whole pickle"),
        (older(torch_draft(), lengths=1), "must hold 20 numbers, .*; got 21"),
        (older(torch_draft(), system={"little_endian": False}), "must hold little-endian numbers"),
        (older(torch_draft(), system=[]), "must hold little-endian numbers"),
        (older(dataclasses.replace(torch_draft(), data={"nowhere": b""}, rows=[])), "does not hold a whole pickle"),
        (older(dataclasses.replace(torch_draft(), pickle=b"\x80\x02cos\nsystem\n.")), "asks for 'os.system'"),
        (older(TorchDraft([dataclasses.replace(torch_draft().rows[0], numbers=2**62)], {"ids": b""})), "cut short"),
        (older(TorchDraft([dataclasses.replace(torch_draft().rows[0], key="a")], {})), "must lie in a storage a of"),
    ],
)
def test_damaged_files_of_before_torch_1_6_are_refused(content, message, tmp_path):
    refused(tmp_path, {FILE: content}, f"{FILE}.*{message}")


def text(words: str) -> bytes:
    return b"X" + len(words).to_bytes(4, "little") + words.encode()


def nested(draft: TorchDraft, path: tuple[str, ...], beside: bytes = b"") -> bytes:
    """A trainer's checkpoint with the state dict at the end of a path of keys, other things beside each."""
    inner = pickle_of(draft.rows)[2:-1]
    for key in reversed(path):
        inner = b"}" + text("epoch") + b"K\x03s" + beside + text(key) + inner + b"s"
    draft.pickle = b"\x80\x02" + inner + b"."
    return draft.pack()


LIGHTNING = (
    text("pytorch-lightning_version") + text("2.4.0") + b"s"
    + text("hyper_parameters") + b"}" + text("lr") + b"G\x3f\x00\x00\x00\x00\x00\x00\x00ss"
    + text("optimizer_states") + b"]s" + text("callbacks") + b"}" + text("best") + b"Nss"
)  # fmt: skip


@pytest.mark.compatibility("loading", "a torch file that holds its state dict under `state_dict`", "found", was=3)
@pytest.mark.compatibility("loading", "... under `model_state_dict` or `model`", "found", was=3)
@pytest.mark.compatibility(
    "loading", "a Lightning checkpoint (version, hyper_parameters, ...)", "its model is read", was=3
)
@pytest.mark.parametrize(
    ("path", "beside"),
    [
        (("state_dict",), LIGHTNING),
        (("model_state_dict",), b""),
        (("model",), b""),
        (("module",), b""),
        (("model", "state_dict"), b""),
    ],
)
def test_the_state_dict_of_a_trainers_checkpoint_is_found(path, beside, model, tmp_path):
    content = nested(torch_draft(prefix="model.bert."), path, beside)
    assert_same_bits(jaxsmooth.load(write(tmp_path, {FILE: content}))[0], model)


@pytest.mark.compatibility("loading", "numbers and notes beside the tensors of a torch file", "passed over", was=3)
def test_notes_beside_the_tensors_are_passed_over(model, tmp_path):
    draft = torch_draft()
    whole = pickle_of(draft.rows)
    draft.pickle = whole[:-1] + text("epoch") + b"K\x03s" + text("note") + b"Ns."
    assert_same_bits(jaxsmooth.load(write(tmp_path, {FILE: draft.pack()}))[0], model)


def test_a_checkpoint_without_a_state_dict_says_where_it_may_lie(tmp_path):
    refused(
        tmp_path,
        {FILE: nested(torch_draft(), ("ema",))},
        r"itself or under one of \('state_dict'.*; got int under 'epoch'",
    )


@pytest.mark.compatibility("loading", "pytorch_model.bin in shards", "read", was=3)
def test_shards_are_read_together(model, tmp_path):
    weight_map = {}
    for number in (1, 2):
        draft, name = torch_draft(), f"pytorch_model-0000{number}-of-00002.bin"
        draft.rows = draft.rows[number - 1 :: 2]
        weight_map |= {row.name: name for row in draft.rows}
        (tmp_path / name).write_bytes(draft.pack())
    index = json.dumps({"metadata": {}, "weight_map": weight_map}).encode()
    assert_same_bits(jaxsmooth.load(write(tmp_path, {f"{FILE}.index.json": index}))[0], model)
    (tmp_path / "pytorch_model-00002-of-00002.bin").unlink()
    refused(tmp_path, {}, "00002-of-00002.bin is missing, though pytorch_model.bin.index.json names it")


@pytest.mark.parity
def test_checkpoints_of_torch_itself_are_read(model, tmp_path):
    import torch

    state = {f"module.model.bert.{name}": torch.from_numpy(array.copy()) for name, array in TENSORS.items()}
    write(tmp_path, {})
    for whole in (
        state,
        {"state_dict": state, "epoch": 3, "pytorch-lightning_version": "2.4.0", "hyper_parameters": {"lr": 1e-3}},
        {"model_state_dict": state, "optimizer_state_dict": {"state": {0: {"step": torch.tensor(3.0)}}}, "loss": 0.5},
    ):
        for zipped in (True, False):
            torch.save(whole, tmp_path / FILE, _use_new_zipfile_serialization=zipped)
            assert_same_bits(jaxsmooth.load(tmp_path)[0], model)
