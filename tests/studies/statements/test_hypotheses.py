"""What `verify` decides about a model: crafted blocks with known truth on both sides, padding, the whole pipeline."""

import io
import json

import numpy as np
import pytest
from rich.console import Console
from support.hypotheses import PATTERN, bare_block, checks, scaled_patterns

import jaxsmooth
from jaxsmooth import report
from jaxsmooth.errors import OptionError
from jaxsmooth.results.verification import TRUTHS
from jaxsmooth.studies.statements.hypotheses import Found, HypothesisTally, chosen_hypotheses
from jaxsmooth.theory.hypotheses.asked import ASKED, Truth

RATES = [name for name in ASKED if name.startswith("rate_below_1_")]
BLOCK = ("stds_above_threshold", *RATES)
CHEAP = ("open_hemisphere", "rooted_mask", "attention_sink")
TEXTS = ["a film worth"]


@pytest.fixture(scope="module")
def found():
    model, tokenizer = jaxsmooth.load("tiny")
    return jaxsmooth.verify(model, tokenizer, TEXTS, hypotheses=list(ASKED))


@pytest.mark.parametrize(("gain", "verdict"), [(1.5, "HOLDS"), (2.5, "FAILS")])
def test_rates_and_thresholds_of_a_bare_block(gain, verdict):
    """All stds are 2 in front of the first LayerNorm and 1 in front of the second: every rung is gain / 2."""
    own = checks(bare_block(gain), scaled_patterns([2.0, 2.0, 2.0]), names=BLOCK)
    for name in RATES:
        check = own[name, 1, None]
        assert check.verdict == verdict, name
        assert check.least <= gain / 2 + 1e-9
        assert check.largest >= gain / 2 - 1e-9
    assert own["stds_above_threshold", 1, None].verdict == verdict
    assert own["stds_above_threshold", 1, None].least == pytest.approx(2 / gain, rel=1e-9)


def test_a_rate_of_exactly_1_is_left_open():
    own = checks(bare_block(2.0), scaled_patterns([2.0, 2.0]), names=BLOCK)
    assert {check.verdict for check in own.values()} == {"UNDECIDED"}


def test_rungs_differ_where_they_must():
    """One token of a small std spoils the rungs that look at the smallest std, and not the finer ones."""
    own = checks(bare_block(1.2), scaled_patterns([1.0] + [4.0] * 7), names=BLOCK)
    assert own["rate_below_1_L1", 1, None].verdict == own["stds_above_threshold", 1, None].verdict == "FAILS"
    assert own["rate_below_1_L2", 1, None].verdict == own["rate_below_1_L4", 1, None].verdict == "HOLDS"


@pytest.mark.parametrize(
    ("mixer", "shift", "verdict"), [(0.0, 0.5, "HOLDS"), (-0.5, 0.5, "FAILS"), (-0.5, 1.0, "UNDECIDED")]
)
def test_consensus_of_a_bare_block(mixer, shift, verdict):
    own = checks(bare_block(shift=shift, mixer=mixer), scaled_patterns([1.0, 2.0]), names=("consensus_attracts",))
    assert {key[1]: check.verdict for key, check in own.items()} == {1: verdict, None: verdict}


def test_attention_and_tokens_of_a_crafted_sentence():
    tokens = np.stack([PATTERN, 2 * PATTERN, -PATTERN, PATTERN])
    sink = np.array([[0.4, 0.2, 0.2, 0.2]] * 4)
    own = checks(bare_block(), tokens, sink[None], names=CHEAP)
    assert own["open_hemisphere", 1, None].verdict == "FAILS"
    assert (own["rooted_mask", 1, None].verdict, own["rooted_mask", 1, None].largest) == ("HOLDS", 1)
    assert own["attention_sink", 1, 0].verdict == "HOLDS"
    assert checks(bare_block(), tokens, names=CHEAP)["attention_sink", 1, 0].verdict == "FAILS"
    apart = np.kron(np.eye(2), np.full((1, 2, 2), 0.5))
    assert checks(bare_block(), tokens, apart, names=("rooted_mask",))["rooted_mask", 1, None].verdict == "FAILS"


def test_padding_changes_nothing():
    tokens, block = scaled_patterns([1.0, 3.0, 2.0, 5.0]), bare_block(1.2, 0.5, -0.25)
    assert checks(block, tokens) == checks(block, tokens, padding=3)


def test_one_token_is_asked_nothing():
    own = checks(bare_block(shift=0.5), scaled_patterns([2.0]))
    assert {check.verdict for check in own.values()} == {"NOT_APPLICABLE"}


def test_exact_consensus():
    """Nothing to stretch, so the rung of the data is not asked; what is about stds and norms is decided."""
    own = checks(bare_block(1.5, 0.5), scaled_patterns([2.0, 2.0]) * 0 + 2 * PATTERN)
    verdicts = {key[0]: check.verdict for key, check in own.items() if key[1]}
    assert verdicts.pop("rate_below_1_L4") == "NOT_APPLICABLE"
    assert verdicts.pop("attention_sink") == "NOT_APPLICABLE"  # two tokens
    assert set(verdicts.values()) == {"HOLDS"}


def test_the_real_pipeline(found):
    assert not found.checks
    assert [row.hypothesis for row in found.hypotheses] == list(ASKED)
    config = jaxsmooth.load("tiny")[0].config
    layers = range(1, config.layers + 1)
    wanted = {(name, layer, None) for name in ASKED for layer in layers if name != "attention_sink"}
    wanted |= {("attention_sink", layer, head) for layer in layers for head in range(config.heads)}
    assert {(c.hypothesis, c.layer, c.head) for c in found.hypothesis_checks} == wanted | {
        ("consensus_attracts", None, None)
    }
    by_name = {row.hypothesis: row for row in found.hypotheses}
    assert by_name["rooted_mask"].holds_in == tuple(layers)
    assert by_name["rate_below_1_L1"].counts["FAILS"] == len(TEXTS) * config.layers
    assert by_name["rate_below_1_L4"].least <= by_name["rate_below_1_L1"].largest


def test_names_choose():
    assert chosen_hypotheses((), everything=True) == tuple(ASKED)
    assert chosen_hypotheses((), everything=False) == ()
    assert chosen_hypotheses(("open_hemisphere", "rate_below_1_L1"), everything=True) == (
        "rate_below_1_L1",
        "open_hemisphere",
    )
    with pytest.raises(OptionError, match="there is no hypothesis 'nonsense'; there are stds_above"):
        jaxsmooth.verify(None, None, TEXTS, hypotheses=["nonsense"])


def test_what_is_written_and_printed(found, tmp_path):
    paths = report.write_verification(found, tmp_path)
    written = json.loads(paths["asked"].read_text(encoding="utf-8"))
    assert list(written) == ["schema", "model", "data", "hypotheses", "checks", "versions"]
    assert len(written["checks"]) == len(found.hypothesis_checks)
    assert json.loads(paths["checks"].read_text(encoding="utf-8"))["checks"] == []
    out = io.StringIO()
    report.print_verification(found, Console(file=out, width=100))
    text = out.getvalue()
    # What is asked stands before the numbers.
    assert text.startswith("Does the theory hold here, and which hypotheses fail? ")
    assert text.index("does some token reach all others") < text.index("hypothesis  ")
    assert "CONFIRMED" not in text  # no theorem was checked
    assert all(name in text for name in ASKED)


def test_a_tally_of_several_batches():
    tally, name, nothing = HypothesisTally(("open_hemisphere",)), "open_hemisphere", (np.nan, np.nan)
    tally.add(name, 1, None, Found.of([Truth.HOLDS, Truth.NOT_APPLICABLE], [nothing] * 2), np.array([4, 7]))
    assert tally.checks()[0].verdict == "HOLDS"
    tally.add(name, 1, None, Found.of([Truth.UNDECIDED], [(0.5, 2.0)]), np.array([3]))
    assert (tally.checks()[0].verdict, tally.checks()[0].sentence) == ("UNDECIDED", 3)
    tally.add(name, 1, None, Found.of([Truth.FAILS] * 2, [(0.1, 0.2), (3.0, 4.0)]), np.array([9, 8]))
    (check,) = tally.checks()
    assert (check.verdict, check.sentence, check.least, check.largest) == ("FAILS", 8, 0.1, 4.0)
    assert check.counts == dict(zip(TRUTHS, (1, 2, 1, 1), strict=True))
    assert tally.summaries()[0].holds_in == ()
