"""The answer in words, on synthetic diagnoses: every rule, and the numbers that the sentences quote."""

import dataclasses

import numpy as np
import pytest
from support.report import blank, rates, spread, synthetic

from jaxsmooth.mitigations.parse import parse_remedies
from jaxsmooth.report import headline
from jaxsmooth.report.format import digits
from jaxsmooth.report.sections.next_step import AGAINST
from jaxsmooth.report.wording import VERDICTS, rank_words, sink_words
from jaxsmooth.results.spread import Spread


def with_rates(**rows):
    return synthetic(rates={**rates(6), **{name: spread(np.asarray(row, float), 0.0) for name, row in rows.items()}})


@pytest.mark.parametrize(
    ("cosine", "level"),
    [
        (np.linspace(0.1, 0.8, 7), "strong"),
        (np.linspace(0.1, 0.7999, 7), "moderate"),
        (np.linspace(0.06, 0.44, 7), "moderate"),
        (np.linspace(0.3, 0.49, 7), "little"),
        (np.linspace(0.5, 0.2, 7), "little"),
        ([np.nan] * 6 + [0.9], "strong"),
        ([np.nan] * 6 + [0.7], "little"),
        ([0.1] * 6 + [np.nan], "undefined"),
    ],
)
def test_level_follows_the_stated_rule(cosine, level):
    assert headline(synthetic(cosine=cosine)).level == level


def test_a_real_small_encoder_is_called_vacuous_with_its_numbers():
    found = headline(synthetic())
    assert found.theory == "vacuous"
    ladder = rates(6)
    expected = np.median(ladder["L1"].mean / ladder["actual"].mean)
    assert found.findings.L1_over_actual == pytest.approx(expected, rel=1e-12)
    assert digits(expected) in found.explanation
    assert "none is below 1" in found.explanation
    assert found.findings.smallest_bound == pytest.approx(ladder["L5"].min[0])
    assert "0.060" in found.smoothing
    assert "0.440" in found.smoothing
    # The tightest bound is within three times the rates: the answer says so, and what that bound was told.
    tightest = np.median(ladder["L5"].mean / ladder["actual"].mean)
    assert (found.findings.tightest, found.findings.tightest_over_actual) == ("L5", pytest.approx(tightest))
    assert tightest > 1.5
    assert f"the theory, told this text, is {digits(tightest)} times the rates and promises nothing" in found.headline
    near = headline(with_rates(actual=[1.0] * 6, L5=[1.012] * 6)).headline
    assert "is 1 % above the rates and promises nothing" in near
    nearer = headline(with_rates(actual=[1.0] * 6, L5=[1.004] * 6))
    assert "is less than 1 % above the rates" in nearer.headline
    assert "the tightest bound (L5) less than 1 % above" in nearer.explanation
    assert "the theory, told this text, predicts it" in headline(with_rates(actual=[0.5] * 6, L5=[0.9] * 6)).headline
    assert "L5 knows also the MLP's inputs" in found.explanation
    loose = headline(with_rates(L5=[40.0] * 6))
    assert "too loose" in loose.headline


def test_where_names_the_steps_and_the_contracting_layers():
    diagnosis = dataclasses.replace(
        with_rates(actual=[0.9, 1.1, 0.7, 1.2, 1.3, 0.99]),
        cosine_similarity=spread([0.0, 0.0, 0.5, 0.45, 0.5, 0.55, 0.6]),
    )
    found = headline(diagnosis)
    assert list(found.findings.rising_layers) == [2]
    assert found.findings.contracting_layers == (1, 3, 6)
    assert "layers 1, 3 and 6 only" in found.where


@pytest.mark.parametrize(
    ("rows", "theory"),
    [
        ({"actual": [0.5] * 6, "L4": [0.9] * 6}, "explains"),
        ({"actual": [0.5] * 3 + [1.5] * 3, "L4": [0.9] * 3 + [2.0] * 3}, "explains"),
        ({"actual": [0.5] * 6, "L4": [0.9] + [2.0] * 5}, "partial"),
        ({"actual": [0.5] * 6, "L4": [1.0] * 6}, "vacuous"),
        ({"actual": [2.0] * 6, "L4": [1.9] * 6}, "contradicted"),
        ({"actual": [2.0] * 6, "L4": [1.9999] * 6, "L5": [1.9999] * 6}, "vacuous"),
        ({"actual": [np.nan] * 6}, "undefined"),
        ({"L0": [np.inf] * 6}, "vacuous"),
    ],
)
def test_theory_follows_the_stated_rule(rows, theory):
    assert headline(with_rates(**rows)).theory == theory


def test_a_bound_below_one_for_some_sentence_only_is_not_vacuous():
    low = Spread(np.full(6, 1.4), np.full(6, 0.2), np.full(6, 0.95), np.full(6, 2.0), np.full(6, 9))
    found = headline(synthetic(rates={**rates(6), "L4": low}))
    assert found.theory == "hardly"
    assert "for some sentence" in found.explanation


@pytest.mark.parametrize("theory", VERDICTS)
def test_headline_and_text_give_one_verdict(theory):
    """What the first sentence says and how the answer to the question begins come from one entry."""
    some = Spread(np.full(6, 1.4), np.full(6, 0.2), np.full(6, 0.95), np.full(6, 2.0), np.full(6, 9))
    departures = ("RMSNorm",)
    diagnosis = {
        "explains": with_rates(actual=[0.5] * 6, L4=[0.9] * 6),
        "partial": with_rates(actual=[0.5] * 6, L4=[0.9] + [2.0] * 5),
        "hardly": synthetic(rates={**rates(6), "L4": some}),
        "vacuous": with_rates(L5=[40.0] * 6),
        "contradicted": with_rates(actual=[2.0] * 6, L4=[1.9] * 6),
        "inapplicable": synthetic(
            model=dataclasses.replace(synthetic().model, departures=departures, rungs=()), rates=rates(6)
        ),
        "undefined": blank(),
    }[theory]
    found, verdict = headline(diagnosis), VERDICTS[theory]
    assert found.theory == theory
    assert (verdict.near.format(far="") or verdict.headline) in found.headline or verdict.headline in found.headline
    assert found.explanation.startswith(verdict.answer)
    others = [one for name, one in VERDICTS.items() if name != theory]
    assert not any(f"{one.headline}." in found.headline for one in others)


def test_threshold_met():
    diagnosis = synthetic(std_product=spread(np.full(6, 9.0)), threshold=spread([10.0, 8.0, 10, 10, 10, 10]))
    assert headline(diagnosis).findings.threshold_met_layers == (2,)
    assert "exceeds the theorem's threshold in layer 2." in headline(diagnosis).explanation


def test_disagreeing_measures_are_called_out():
    diagnosis = synthetic(relative_distance=spread(np.linspace(0.5, 0.9, 7)))
    assert "disagrees" in headline(diagnosis).measures
    assert "agrees with the cosine in direction" in headline(synthetic()).measures


def test_similarity_from_the_embedding_is_not_blamed_on_the_layers():
    found = headline(synthetic(cosine=np.linspace(0.85, 0.9, 7)))
    assert found.level == "strong"
    assert "layers add little" in found.smoothing


def test_a_peak_in_the_middle_is_reported():
    assert "highest, 0.900, in layer 3" in headline(synthetic(cosine=[0.1, 0.2, 0.5, 0.9, 0.8, 0.7, 0.6])).smoothing


def test_why_names_the_part_and_its_layer():
    found = headline(synthetic())
    sums = synthetic().attribution.mean.sum(axis=0)
    assert list(found.findings.attribution.values()) == sums.tolist()
    assert f"the LayerNorm after attention −{digits(-sums[1])}" in found.why
    assert (
        "What brings tokens together most is the LayerNorm after attention, most of all in layer 6 (−0.160)"
        in found.why
    )
    assert "the MLP drives them apart" in found.why
    assert "nothing is said" in headline(blank()).why


def test_similarity_is_compared_with_other_texts_and_with_before_training():
    words = headline(synthetic()).baseline
    assert "0.440 for two tokens of one text and 0.147 for two of different texts" in words
    assert "0.293 is what a text's own tokens have in common" in words
    assert "More than half" not in words
    assert (
        "drawn at random, 16 texts) the cosine goes from 0.020 to 0.300; the trained model's rises 0.100 more" in words
    )
    apart = headline(synthetic(anisotropy=np.full(7, 0.45))).baseline
    assert "tokens of one text are no more alike than those of different texts" in apart
    assert "-" not in apart
    random = dataclasses.replace(synthetic().model, note="random weights, not a trained model")
    assert "; this model's rises 0.100 more" in headline(synthetic(model=random)).baseline
    shared = synthetic(anisotropy=np.full(7, 0.4))
    assert "More than half of the similarity is shared by all texts" in headline(shared).baseline
    assert "before training" not in headline(synthetic(untrained=None)).baseline
    assert "Two texts are needed" in headline(synthetic(anisotropy=np.full(7, np.nan))).baseline


@pytest.mark.parametrize(
    ("diagnosis", "command"),
    [
        (synthetic(), "jaxsmooth compare synthetic-minilm --data 'synthetic sentences' --with initial-residual,"),
        (synthetic(attribution=None, parts=()), "jaxsmooth compare synthetic-minilm --data 'synthetic sentences'"),
        (synthetic(cosine=np.linspace(0.3, 0.4, 7)), "jaxsmooth converge synthetic-minilm"),
        (with_rates(actual=[0.5] * 6, L4=[0.9] * 6), "jaxsmooth compare"),
        (with_rates(actual=[2.0] * 6, L4=[1.9] * 6), "--precision float64"),
        (blank(), "--data FILE"),
        (synthetic(name="a b; rm -rf /"), "jaxsmooth compare 'a b; rm -rf /'"),
        (synthetic(name="model"), "jaxsmooth compare MODEL"),
    ],
)
def test_one_next_step_that_the_findings_decide(diagnosis, command):
    found = headline(diagnosis)
    assert command in found.next_command
    assert found.next_why


def test_next_reads_the_same_column():
    data = dataclasses.replace(synthetic().data, name="my reviews.csv (column review text)")
    assert " --data 'my reviews.csv' --text-column 'review text'" in headline(synthetic(data=data)).next_command


def test_next_of_random_weights_is_a_trained_model():
    model = dataclasses.replace(synthetic().model, note="random weights, not a trained model")
    assert headline(synthetic(model=model)).next_command.startswith("jaxsmooth diagnose minilm-l6")


def test_every_remedy_of_a_next_step_exists():
    for remedies in AGAINST.values():
        assert [one.label for one in parse_remedies(remedies)] == remedies.split(",")


def test_nothing_defined():
    found = headline(blank())
    assert (found.level, found.theory) == ("undefined", "undefined")
    assert "cannot be told" in found.headline


def test_one_layer():
    assert "In the only layer" in headline(synthetic(1, 1)).where


def test_sinks_in_words():
    """72 heads of strengths from 0.1 to 0.9, evenly: 0.3 is a quarter of the way."""
    words = sink_words(synthetic())
    above = int(np.sum(np.linspace(0.1, 0.9, 72) > 0.3))
    assert words.startswith(f"In {above} of 72 heads the strongest key, a sink, receives more than 0.3")
    assert "layer 6, head 12: 0.900" in words
    assert "The first token receives 0.125" in words
    assert "nothing is said" in sink_words(blank())


def test_ranks_in_words():
    near = synthetic(relative_distance=spread(np.full(7, 0.5), 0.0), stable_rank=spread(np.linspace(4, 1.25, 7)))
    words = rank_words(near)
    assert "goes from 4.00 to 1.25" in words
    assert "goes from 22.0 to 14.0" in words
    assert "at most 0.500 in the last layer, it follows that the numerical rank is at most 1.33" in words
    assert "follows" not in rank_words(synthetic(relative_distance=spread(np.full(7, 1.0), 0.0)))
    assert "nothing is said" in rank_words(blank())
