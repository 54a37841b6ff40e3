"""Results kept in a file and read again, and as tables."""

import dataclasses
import json
import math

import numpy as np
import pytest
import safetensors.numpy
from support.report import comparison, convergence, spread, synthetic, verification

import jaxsmooth
from jaxsmooth.errors import DataError, StorageError
from jaxsmooth.results import load_result, save_result, texts_table, to_table
from jaxsmooth.results.diagnosis import FusedLayers
from jaxsmooth.results.fate import MapConvergence, MapFates
from jaxsmooth.results.saved import FORMAT
from jaxsmooth.results.texts import LengthTrend, TextStatements

COLUMNS = ["quantity", "layer", "head", "mean", "std", "standard_error", "min", "max", "count"]


DIAGNOSIS = synthetic(4, 2)
FUSED = FusedLayers("gate", (1, 2), {"cosine_similarity": spread([0.3])}, None)
VALUES = {
    "contraction": np.array([[0.9, np.nan, 0.7]]),
    "rate": np.arange(12.0).reshape(4, 3),
    "cosine_similarity": np.linspace(0, 1, 15).reshape(5, 3),
}
TEXTS = TextStatements(
    0.95, 0.1, 3, 3, (), np.array([0, 4, 7]), VALUES, (LengthTrend("rate", 3, 2, 9, math.nan, 1.0, 0.1),)
)
FATES = MapFates(
    1, ("consensus", "cycle"), (((0, 1),), ((0,), (1,))), {"rate": np.array([0.5, np.nan])}, np.ones((2, 3))
)
MODEL, DATA = DIAGNOSIS.model, DIAGNOSIS.data
FOUND = {
    "diagnose": dataclasses.replace(DIAGNOSIS, texts=TEXTS, fused=FUSED),
    "compare": comparison(MODEL, DATA),
    "converge": convergence(MODEL, DATA),
    "fate": MapConvergence(MODEL, DATA, "layer", 9, 1e-5, None, (("a", "b"), ("c",)), (FATES,), (), {"jax": "0"}),
    "verify": verification(MODEL, DATA),
}


def same(a, b):
    if dataclasses.is_dataclass(a):
        return type(a) is type(b) and all(same(getattr(a, f.name), getattr(b, f.name)) for f in dataclasses.fields(a))
    if isinstance(a, np.ndarray):
        return (a.dtype, a.shape) == (b.dtype, b.shape) and a.tobytes() == b.tobytes()
    if isinstance(a, dict):
        return list(a) == list(b) and all(same(a[key], b[key]) for key in a)
    if isinstance(a, tuple):
        return isinstance(b, tuple) and len(a) == len(b) and all(map(same, a, b))
    return type(a) is type(b) and (a == b or (a != a and b != b))


@pytest.mark.parametrize("study", FOUND)
def test_a_result_comes_back_to_the_bit(study, tmp_path):
    path = save_result(FOUND[study], tmp_path / "new" / "found.safetensors")
    assert same(load_result(path), FOUND[study])


def test_a_report_of_a_saved_result(tmp_path):
    diagnosis = synthetic()
    again = load_result(save_result(diagnosis, tmp_path / "found.safetensors"))
    assert jaxsmooth.report.to_json(again) == jaxsmooth.report.to_json(diagnosis)


def damaged(content, **metadata):
    return safetensors.numpy.save({}, {"format": FORMAT, "content": json.dumps(content), **metadata})


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"no safetensors", "is no result that can be read"),
        (safetensors.numpy.save({"a": np.ones(2)}), "holds None; expected 'jaxsmooth result 1'"),
        (damaged({"kind": "Popen", "fields": {}}), "'Popen'"),
        (damaged({"kind": "Spread", "fields": {"mean": 1.0, "gone": 2.0}}), "'gone'"),
        (damaged({"array": "mean"}), "'mean'"),
        (damaged({"other": 1}), "an unknown entry"),
        (damaged({"dict": {"a": 1}}), "holds a dict; expected what a study returned"),
    ],
    # The bytes are in another order in every process, and every worker must know the test by the same name.
    ids=["text", "tensors", "kind", "field", "array", "entry", "dict"],
)
def test_what_is_no_result_is_refused(tmp_path, content, message):
    path = tmp_path / "found.safetensors"
    path.write_bytes(content)
    with pytest.raises(DataError, match=message):
        load_result(path)


def test_what_cannot_be_saved_leaves_no_file(tmp_path):
    with pytest.raises(DataError, match="result must be what a study returned; got dict"):
        save_result({}, tmp_path / "a.safetensors")
    wrong = dataclasses.replace(synthetic(), versions={"numpy": np})
    with pytest.raises(DataError, match=r"versions\.numpy is a module"):
        save_result(wrong, tmp_path / "a.safetensors")
    assert not list(tmp_path.iterdir())
    with pytest.raises(StorageError, match=r"a\.safetensors cannot be read: No such file.*Expected the file that"):
        load_result(tmp_path / "a.safetensors")
    with pytest.raises(StorageError, match="is no file"):
        load_result(tmp_path)


def test_a_diagnosis_as_a_table():
    diagnosis = FOUND["diagnose"]
    table = to_table(diagnosis)
    assert table.column_names == COLUMNS
    rows = {(row["quantity"], row["layer"], row["head"]): row for row in table.to_pylist()}
    assert len(rows) == table.num_rows
    assert rows["cosine_similarity", 0, None]["mean"] == diagnosis.cosine_similarity.mean[0]
    assert rows["L1", 2, None]["max"] == diagnosis.rates["L1"].max[1]
    assert rows["mixing_rate", 3, 1]["count"] == 256
    assert rows["attention_similarity", 1, None]["mean"] is None
    assert rows["cosine_similarity of gate", None, None]["mean"] == 0.3


def test_each_text_as_a_table():
    rows = texts_table(FOUND["diagnose"]).to_pylist()
    values = FOUND["diagnose"].texts.values
    own = {(row["text"], row["quantity"], row["layer"]): row["value"] for row in rows}
    assert own[7, "contraction", None] == 0.7
    assert own[4, "contraction", None] is None
    assert own[4, "rate", 4] == values["rate"][3, 1]
    assert own[0, "cosine_similarity", 0] == values["cosine_similarity"][0, 0]
    with pytest.raises(DataError, match="each_text=True"):
        texts_table(synthetic())


def test_the_other_results_as_tables():
    compared = to_table(FOUND["compare"])
    assert compared.column_names == ["remedy", *COLUMNS]
    assert set(compared["remedy"].to_pylist()) == {"none", MODEL.name}
    assert "attribution_3_mlp" in compared["quantity"].to_pylist()
    assert to_table(FOUND["converge"]).column_names == ["operator", *COLUMNS]
    fates = to_table(FOUND["fate"]).to_pylist()
    assert [(row["sentence"], row["value"], row["fate"]) for row in fates] == [
        (0, 0.5, "consensus"),
        (1, None, "cycle"),
    ]
    [check] = to_table(FOUND["verify"]).to_pylist()
    assert (check["theorem"], check["verdict"], check["VIOLATED"]) == (MODEL.name, "VIOLATED", 1)
    with pytest.raises(DataError, match="got int"):
        to_table(1)
