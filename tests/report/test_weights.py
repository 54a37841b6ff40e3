"""The weights' section: what is said, and what stands in report.json."""

import dataclasses
import json

import numpy as np
from support.report import blank, spread, synthetic, weights

from jaxsmooth.files import dumps_strict
from jaxsmooth.report import to_json
from jaxsmooth.report.sections.weights import principal_words, weight_rows, weights_section, weights_words


def test_words_count_what_stands_in_the_table():
    found = weights(3)
    words = weights_words(found)
    # 2.5 to 3.5 in three matrices, 6.5 to 7.5 in one; tails 70, 55, 40 and 25.
    assert "from 2.50 to 7.50, in 9 of 12 matrices between 2 and 6" in words
    assert "0.060 in the median; 6 of 12 tails have fewer than 50" in words
    rows = weight_rows(found)
    assert len(rows) == 12
    assert rows[0] == ("1", "W_Q W_Kᵀ", "10.0", "9.00 7.00 5.00 4.00 3.00", "2.50 ± 0.100", "0.060", "70 of 384")


def test_the_gate_has_rows_where_there_is_one():
    assert [row[1] for row in weight_rows(weights(1, gate=True))][2:] == ["MLP up", "MLP gate", "MLP down"]


def test_words_of_the_principal_direction():
    words = principal_words(synthetic(3, principal_alignment=spread([0.03, 0.2, 0.1])))
    assert "from 0.030 in the first layer to 0.100 in the last; it is largest in layer 2, 0.200" in words
    assert "0.041" in words
    assert "above chance in 2 of 3 layers" in words
    assert "In 1 the eigenvalue" in words
    assert "No layer has" in principal_words(blank())
    assert "No layer has" in principal_words(synthetic(weights=None))


def test_in_report_json():
    report = json.loads(dumps_strict(to_json(synthetic(3))))
    assert report["layers"][1]["principal_alignment"] == 0.05
    assert report["weights"]["matrices"]["down"]["alpha"] == [6.5, 7.0, 7.5]
    assert report["weights"]["matrices"]["up"]["singular_values"][0] == [11.0, 9.0, 7.0, 6.0, 5.0]
    assert report["weights"]["principal"]["eigenvalue_imag"] == [0, 0.5, 0]
    assert "weights" not in to_json(synthetic(weights=None))


def test_without_values_the_section_stands():
    empty = weights(2)
    none = {name: np.full(2, np.nan) for name in ("stable_rank", "alpha", "error", "distance")}
    bare = dataclasses.replace(
        empty, matrices={name: dataclasses.replace(one, **none) for name, one in empty.matrices.items()}
    )
    section = weights_section(dataclasses.replace(blank(), weights=bare))
    assert section["spectra"] == "No matrix has a spectrum with a tail to fit."
    assert section["rows"][0][2:] == ("n/a", "9.00 7.00 5.00 4.00 3.00", "n/a ± n/a", "n/a", "70 of 384")
    assert weights_section(synthetic(weights=None))["rows"] == []
