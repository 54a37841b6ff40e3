"""Values of each text: kept within bounds or spilled to a file, as tables, quantiles, differences."""

import dataclasses
import sys

import numpy as np
import pyarrow.parquet as pq
import pytest
from support.report import comparison, synthetic, verification

from jaxsmooth.errors import DataError, OptionError
from jaxsmooth.results import each_text, load_result, texts_table, to_table
from jaxsmooth.results.comparison import Comparison
from jaxsmooth.results.each_text import THEOREM, TextKeeper, nan_quantiles
from jaxsmooth.results.spread import RunningSpread
from jaxsmooth.results.verification import Verification
from jaxsmooth.studies.statements.paired import paired
from jaxsmooth.theory import paired_difference

LAYERS, HEADS, TEXTS, SIZE = 4, 3, 10, 4
RNG = np.random.default_rng(0)
VALUES = {
    "actual": RNG.uniform(0.5, 1.5, (LAYERS, TEXTS)),
    "cosine_similarity": RNG.uniform(size=(LAYERS + 1, TEXTS)),
    "mixing_rate": RNG.uniform(size=(LAYERS, TEXTS, HEADS)),
    "tokens": RNG.integers(3, 9, (1, TEXTS)).astype(float),
}
VALUES["actual"][2, 3] = np.nan


def kept(choice, axis="", groups=("",)):
    """The values in batches of four whose last row is a filler, those of a group k larger by k."""
    with TextKeeper(choice, axis) as keeper:
        for start in range(0, TEXTS, SIZE - 1):
            places = np.arange(start, min(start + SIZE - 1, TEXTS))
            rows = [*places, places[-1]]
            by_group = {
                group: {name: array[:, rows] + k for name, array in VALUES.items()} for k, group in enumerate(groups)
            }
            keeper.add(by_group, places)
    return keeper.found()


@pytest.mark.parametrize("spilled", [False, True], ids=["memory", "file"])
def test_every_text_has_its_values(spilled, tmp_path, monkeypatch):
    monkeypatch.setattr(each_text, "ROWS", 100)  # several row groups
    path = tmp_path / "new" / "texts.parquet"
    found = kept(path if spilled else True, "remedy", ("none", "other"))
    assert (found.read, found.positions.tolist()) == (TEXTS, list(range(TEXTS)))
    assert found.groups == ("none", "other")
    assert set(found.quantities("other")) == set(VALUES)
    for name, array in VALUES.items():
        np.testing.assert_array_equal(found.of(name, "other"), np.moveaxis(array, 1, -1) + 1)
    rows = {
        (r["remedy"], r["text"], r["quantity"], r["layer"], r["head"]): r["value"] for r in found.table().to_pylist()
    }
    assert len(rows) == 2 * sum(array.size for array in VALUES.values())
    assert rows["none", 3, "actual", 3, None] is None
    assert rows["none", 3, "cosine_similarity", 0, None] == VALUES["cosine_similarity"][0, 3]
    assert rows["other", 9, "mixing_rate", 4, 2] == VALUES["mixing_rate"][3, 9, 2] + 1
    assert rows["none", 9, "tokens", None, None] == VALUES["tokens"][0, 9]
    if spilled:
        assert [each.name for each in path.parent.iterdir()] == ["texts.parquet"]
        assert pq.ParquetFile(path).num_row_groups > 1
    with pytest.raises(DataError, match="no values of 'rate' of 'none' were kept"):
        found.of("rate", "none")


def test_memory_is_bounded_by_a_number_and_by_bytes(monkeypatch):
    few = kept(3)
    assert (few.read, len(few.places), few.of("actual").shape) == (TEXTS, 3, (LAYERS, 3))
    np.testing.assert_array_equal(few.of("actual"), VALUES["actual"][:, few.places])
    numbers = sum(array.size // TEXTS for array in VALUES.values())
    monkeypatch.setattr(each_text, "MEMORY", 8 * numbers * 5)
    assert len(kept(True).places) == 5


def test_a_study_that_fails_leaves_no_file(tmp_path):
    keeper = TextKeeper(tmp_path / "texts.parquet")
    keeper.add({"": {"actual": np.ones((1, 2))}}, np.arange(2))
    keeper._file._flush()
    assert len(list(tmp_path.iterdir())) == 1
    with pytest.raises(ZeroDivisionError), keeper:
        1 / 0  # noqa: B018
    assert not list(tmp_path.iterdir())


def test_a_file_that_is_gone_is_named(tmp_path):
    found = kept(tmp_path / "texts.parquet")
    (tmp_path / "texts.parquet").rename(tmp_path / "other.parquet")
    with pytest.raises(DataError, match=r"written to .*texts\.parquet, which cannot be read.*Was it moved"):
        found.of("actual")


@pytest.mark.parametrize("choice", [0, -1, 1.5, "texts.csv", None])
def test_what_is_no_choice_is_refused(choice):
    with pytest.raises(OptionError, match=r"each_text must be .*got"):
        TextKeeper(choice)


def test_nothing_asked_for_nothing_kept():
    keeper = TextKeeper(False)
    keeper.add({"": {"actual": np.ones((1, 2))}}, np.arange(2))
    assert (bool(keeper), keeper.found()) == (False, None)


def test_quantiles_are_numpy_s():
    shares = (0.0, 0.05, 0.3, 0.5, 1.0)
    found = kept(True).quantiles("actual", shares)
    np.testing.assert_allclose(found, np.nanquantile(VALUES["actual"], shares, axis=1), rtol=1e-14)
    endless = nan_quantiles(np.array([[1.0, np.inf, np.inf]]), (0.0, 0.25, 0.75))
    assert endless.ravel().tolist() == [1.0, np.inf, np.inf]
    with pytest.raises(OptionError, match="from 0 to 1"):
        nan_quantiles(np.ones((1, 2)), (95,))


def running(values):
    made = RunningSpread()
    made.add(values)
    return made.spread()


def diagnosed(**fields):
    return dataclasses.replace(synthetic(LAYERS, HEADS), **fields)


def test_standard_errors_and_quantiles_in_the_table():
    found = diagnosed(cosine_similarity=running(VALUES["cosine_similarity"]))
    row = next(
        row for row in to_table(found).to_pylist() if row["quantity"] == "cosine_similarity" and row["layer"] == 2
    )
    own = VALUES["cosine_similarity"][2]
    assert row["standard_error"] == pytest.approx(np.std(own, ddof=1) / np.sqrt(TEXTS), rel=1e-12)
    assert np.isnan(running(own[None, :1]).standard_error).all()
    with pytest.raises(DataError, match=r"quantiles are of the values of each text.*each_text=True"):
        to_table(found, quantiles=(0.5,))
    names = {row["quantity"]: row["head"] is not None for row in to_table(found).to_pylist()}
    shapes = {name: (LAYERS, HEADS, 2) if of_heads else (LAYERS + 1, 2) for name, of_heads in names.items()}
    every = {name: np.broadcast_to([1.0, 2.0], shape) for name, shape in shapes.items()}
    whole = dataclasses.replace(found, each=dataclasses.replace(kept(True), values={"": every}))
    rows = to_table(whole, quantiles=(0.05, 0.5)).to_pylist()
    assert {(row["q0.05"], row["q0.5"]) for row in rows} == {(1.05, 1.5)}


def test_both_sides_of_every_theorem(tmp_path):
    sides = {"lhs": np.array([[1.0, 2.0, np.nan]]), "rhs": np.array([[2.0, 8.0, np.nan]]), "verdict": [[0, 1, 3]]}
    sides = {name: np.asarray(array) for name, array in sides.items()}
    for choice in (True, tmp_path / "texts.parquet"):
        with TextKeeper(choice, THEOREM) as keeper:
            keeper.add({"lemma": sides}, np.arange(3))
        each = keeper.found()
        assert each.table().to_pylist()[1] == {
            "theorem": "lemma",
            "text": 1,
            "layer": 1,
            "head": None,
            "lhs": 2.0,
            "rhs": 8.0,
            "verdict": "VIOLATED",
        }
        assert each.of("verdict", "lemma").tolist() == [[0, 1, 3]]
        found = verification(diagnosed().model, diagnosed().data)
        check = dataclasses.replace(found.checks[0], theorem="lemma", head=None)
        found = dataclasses.replace(found, checks=(check,), each=each)
        assert to_table(found, quantiles=(0.5,)).to_pylist()[0]["q0.5"] == 3.0


def test_results_with_texts_come_back(tmp_path):
    found = diagnosed(each=kept(True))
    again = type(found).load(found.save(tmp_path / "found.safetensors"))
    assert texts_table(again).equals(texts_table(found))
    assert load_result(tmp_path / "found.safetensors").each.read == TEXTS
    with pytest.raises(DataError, match="holds a Diagnosis; expected a Verification"):
        Verification.load(tmp_path / "found.safetensors")


def test_a_data_frame_asks_for_pandas(monkeypatch):
    pandas = pytest.importorskip("pandas") if "pandas" in sys.modules else None
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(DataError, match=r"needs pandas.*pip install pandas.*to_table\(\) gives the same"):
        diagnosed().to_pandas()
    assert pandas is None or pandas


def test_remedies_are_paired_with_none():
    found = comparison(diagnosed().model, diagnosed().data)
    other = found.entries[1].label
    rows = paired(dataclasses.replace(found, each=kept(True, "remedy", ("none", other)))).to_pylist()
    assert {row["remedy"] for row in rows} == {other}
    own = next(row for row in rows if row["quantity"] == "actual" and row["layer"] == 3)
    assert (own["texts"], own["mean"], own["higher"], own["lower"]) == (TEXTS - 1, pytest.approx(1), TEXTS - 1, 0)
    assert own["p_value"] == pytest.approx(2 / 2 ** (TEXTS - 1))
    assert isinstance(found, Comparison)


def test_two_results_are_paired(tmp_path):
    shuffled = {name: np.flip(array, axis=1) for name, array in VALUES.items()}
    with TextKeeper(tmp_path / "texts.parquet") as keeper:
        keeper.add({"": shuffled}, np.arange(TEXTS))
    one, two = diagnosed(each=kept(True)), diagnosed(each=keeper.found())
    rows = paired(one, two).to_pylist()
    assert len(rows) == LAYERS + LAYERS + 1 + LAYERS * HEADS + 1
    own = next(row for row in rows if row["quantity"] == "mixing_rate" and (row["layer"], row["head"]) == (2, 1))
    expected = paired_difference(VALUES["mixing_rate"][1, :, 1], shuffled["mixing_rate"][1, :, 1])
    assert own["median_low"] == expected.median_low
    with pytest.raises(DataError, match="one result alone must be a Comparison"):
        paired(one)
    with pytest.raises(DataError, match="holds no numbers of each text"):
        paired(one, diagnosed())
    with pytest.raises(DataError, match="hold the same texts in the same order; one holds 10 of 10, the other 3 of 10"):
        paired(one, diagnosed(each=kept(3)))
