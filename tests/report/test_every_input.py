"""What the page and report.json say about every input, on made-up bounds."""

import dataclasses
import json

import numpy as np
import pytest
from support.report import synthetic

from jaxsmooth.files import dumps_strict
from jaxsmooth.report import render_page, to_json
from jaxsmooth.report.every_input import every_input_words
from jaxsmooth.results.every_input import EveryInput


def bounded(product, threshold, published=1000.0):
    """A diagnosis of a model of which these bounds are stored."""
    layers = len(product)
    found = EveryInput(
        product=np.array(product, float),
        product_found=0.5 * np.array(product, float),
        threshold=np.array(threshold, float),
        threshold_model=np.full(layers, published),
        threshold_paper=np.full(layers, published + 1),
    )
    return synthetic(layers, every_input=found, exemplar=None)


def departing(words, rungs):
    diagnosis = synthetic(exemplar=None)
    return dataclasses.replace(diagnosis, model=dataclasses.replace(diagnosis.model, departures=words, rungs=rungs))


@pytest.mark.parametrize(
    ("diagnosis", "said"),
    [
        (bounded([40, 50], [80, 60]), ("every layer no token", "holds for no text", "never below 1.20 there")),
        (
            bounded([40, 90, 50], [80, 60, 60]),
            ("in layers 1 and 3 no token", "open", "between 45.0 and 90.0", "least 60.0"),
        ),
        (bounded([90.0], [60.0]), ("For every text: it is open", "between 45.0 and 90.0")),
        (bounded([40.0], [80.0]), ("as published and as L0, fails for every text in every layer",)),
        (synthetic(exemplar=None), ("not known for these weights", "hypothesis_for_every_input")),
        (departing(("pre-LN blocks",), ("L1",)), ("never below 1",)),
        (departing(("pre-LN blocks", "gated MLPs"), ()), ("not proved for blocks like this model's",)),
    ],
)
def test_the_sentence_claims_what_the_bounds_show(diagnosis, said):
    words = every_input_words(diagnosis)
    assert [part for part in said if part not in words] == []


def test_nothing_published_is_claimed_where_the_published_threshold_is_in_reach():
    assert "as published" not in every_input_words(bounded([40.0], [80.0], published=30.0))


def test_page_and_numbers_have_the_bounds():
    diagnosis = bounded([40, 90], [80, 60])
    page, report = render_page(diagnosis), json.loads(dumps_strict(to_json(diagnosis)))
    assert page.count("<td>never</td>") == page.count("<td>open</td>") == 1
    assert report["every_input"]["product"] == [40.0, 90.0]
    assert report["every_input"]["never"] == [True, False]
    assert "every_input" not in to_json(synthetic(exemplar=None))
    assert "Over every input instead of this text" not in render_page(synthetic(exemplar=None))
