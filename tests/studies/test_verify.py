"""`verify` end to end on the tiny model: every theorem holds, a doctored one is caught, and what is written."""

import collections
import dataclasses
import json

import numpy as np
import pytest
from support.models import MLP, with_factor

import jaxsmooth
from jaxsmooth.checkpoints.encoder import TINY
from jaxsmooth.cli.main import main
from jaxsmooth.errors import DivergedError, OptionError, TextError
from jaxsmooth.linalg.intervals import Interval
from jaxsmooth.results.tables import texts_table
from jaxsmooth.results.verification import VERDICTS, Verification
from jaxsmooth.studies import verify, verify_stages
from jaxsmooth.studies.verify_stages import Escalation, crop
from jaxsmooth.studies.verify_tally import BatchVerdicts, Tally
from jaxsmooth.theory.certify.catalogue import CATALOGUE
from jaxsmooth.theory.statement import Statement, Verdict, decide
from jaxsmooth.theory.theorems import THEOREMS

TEXTS = ["a film worth"]
HEADS = {name for name, theorem in THEOREMS.items() if theorem.of_head}


@pytest.fixture(scope="module")
def found() -> Verification:
    model, tokenizer = jaxsmooth.load("tiny")
    return jaxsmooth.verify(model, tokenizer, TEXTS, each_text=True)


def test_every_theorem_holds_everywhere(found):
    totals = {v: sum(row.counts[v] for row in found.theorems) for v in VERDICTS}
    assert totals["VIOLATED"] == totals["UNDECIDED"] == totals["NOT_APPLICABLE"] == 0
    assert not found.violated
    assert sum(found.stages.values()) == totals["CONFIRMED"]
    for row in found.theorems:
        per_layer = TINY.heads if row.theorem in HEADS else 1
        assert row.counts["CONFIRMED"] == TINY.layers * len(TEXTS) * per_layer, row.theorem
        assert 1 <= row.tightness[0] <= row.tightness[1] <= row.tightness[2]
        assert row.source


def test_equality_is_left_undecided_and_never_violated(monkeypatch):
    """Two tokens: there centred tokens fill one dimension, and several bounds are equalities."""
    monkeypatch.setattr(verify_stages, "ARB_ATTEMPTS", 1)
    model, tokenizer = jaxsmooth.load("tiny")
    found = jaxsmooth.verify(model, tokenizer, [""])
    assert not found.violated
    assert {c.theorem for c in found.checks if c.verdict == "UNDECIDED"} <= {
        "shi2022_lemma1_4_mixing",
        "dobrushin1956_diameter",
        "mixing_by_ergodicity",
        "layer_norm_pairs_attn",
        "layer_norm_pairs_mlp",
        "layer_norm_weighted_attn",
        "layer_norm_weighted_mlp",
        "layer_norm_two_smallest_attn",
        "layer_norm_two_smallest_mlp",
    }


def test_a_check_shows_numbers_that_prove_its_verdict(found):
    names = [row.theorem for row in found.theorems]
    assert names == list(THEOREMS)
    assert {(c.theorem, c.layer, c.head) for c in found.checks} == {
        (name, layer, head)
        for name in names
        for layer in range(1, TINY.layers + 1)
        for head in (range(TINY.heads) if name in HEADS else [None])
    }
    for check in found.checks:
        assert check.verdict == "CONFIRMED"
        assert 0 <= check.lhs <= check.rhs
        assert check.sentence in range(len(TEXTS))


def test_each_text_has_both_sides_and_its_verdict(found):
    rows = texts_table(found).to_pylist()
    for check in found.checks:
        own = [r for r in rows if (r["theorem"], r["layer"], r["head"]) == (check.theorem, check.layer, check.head)]
        assert collections.Counter(row["verdict"] for row in own) == {k: n for k, n in check.counts.items() if n}
        if check.sentence is not None:
            worst = next(row for row in own if row["text"] == check.sentence)
            assert (worst["lhs"], worst["rhs"], worst["verdict"]) == (check.lhs, check.rhs, check.verdict)
        assert all((row["lhs"] is None) == (row["verdict"] == "NOT_APPLICABLE") for row in own)


def test_each_text_has_the_verdict_on_every_hypothesis(found):
    rows = found.each_hypothesis.table().to_pylist()
    assert {row["hypothesis"].partition("/")[0] for row in rows} == {row.hypothesis for row in found.hypotheses}
    for check in found.hypothesis_checks:
        name = check.hypothesis if check.layer else f"{check.hypothesis}/stack"
        own = [r for r in rows if (r["hypothesis"], r["layer"], r["head"]) == (name, check.layer, check.head)]
        assert collections.Counter(row["verdict"] for row in own) == {k: n for k, n in check.counts.items() if n}
        known = [row for row in own if row["least"] is not None]
        assert min((row["least"] for row in known), default=None) == check.least
        assert max((row["largest"] for row in known), default=None) == check.largest


def test_each_text_goes_to_a_file_for_theorems_and_one_for_hypotheses(tmp_path, found):
    model, tokenizer = jaxsmooth.load("tiny")
    asked = {"theorems": ["shi2022_lemma1_4_mixing"], "hypotheses": ["attention_sink", "rooted_mask"]}
    written = jaxsmooth.verify(model, tokenizer, TEXTS, **asked, each_text=tmp_path / "mine.parquet")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mine-hypotheses.parquet", "mine.parquet"]
    assert texts_table(written).to_pylist() == [
        row for row in texts_table(found).to_pylist() if row["theorem"] in asked["theorems"]
    ]
    for name in asked["hypotheses"]:
        for side in ("least", "largest", "verdict"):
            one, other = written.each_hypothesis.of(side, name), found.each_hypothesis.of(side, name)
            np.testing.assert_array_equal(one, other)


def test_the_ladder_is_ordered_where_it_bounds_the_same_side(found):
    rungs = ("L4", "L3", "L2b", "L2", "L1", "L0")
    named = {c.theorem.rpartition("_")[2]: c.rhs for c in found.checks if c.layer == 1 and "_rate_L" in c.theorem}
    values = [named[rung] for rung in rungs]
    assert values == sorted(values)


def test_a_false_theorem_is_violated_and_ends_with_status_1(monkeypatch, tmp_path, capfd):
    """Lemma 1(2) with its slope halved, on the real pipeline."""

    def halved(q):
        statement = original.statement(q)
        return Statement(statement.lhs, q.c.number(0.1) * statement.rhs)

    name = "shi2022_lemma1_2_activation"
    original = THEOREMS[name]
    monkeypatch.setitem(THEOREMS, name, dataclasses.replace(original, statement=halved))
    text = tmp_path / "text.txt"
    text.write_text("a film worth\n", encoding="utf-8")
    out = tmp_path / "out"
    assert main(["verify", "tiny", "--data", str(text), "--out", str(out), "--theorem", name]) == 1
    rows = json.loads((out / "verify.json").read_text(encoding="utf-8"))["checks"]
    assert [row["layer"] for row in rows] == [1, 2, 3, 4]
    for row in rows:
        assert row["verdict"] == "VIOLATED"
        assert row["lhs"] > row["rhs"]
    printed, _ = capfd.readouterr()
    assert "VIOLATED: shi2022_lemma1_2_activation, layer 1, sentence 0" in printed.replace("\n", " ")


def test_the_command_writes_every_check_and_prints_a_table(found, monkeypatch, tmp_path, capfd):
    monkeypatch.setattr(verify, "verify", lambda *arguments, **options: found)
    out = tmp_path / "out"
    assert main(["verify", "tiny", "--data", "tiny", "--out", str(out)]) == 0
    figure = (f"verify.{suffix}" for suffix in ("html", "json", "pdf", "png", "svg"))
    assert sorted(path.name for path in out.iterdir()) == ["hypotheses.json", "settings.json", *figure]
    rows = json.loads((out / "verify.json").read_text(encoding="utf-8"))["checks"]
    assert len(rows) == len(found.checks)
    for row, check in zip(rows, found.checks, strict=True):
        assert (row["theorem"], row["layer"], row["head"]) == (check.theorem, check.layer, check.head)
        assert (row["lhs"], row["rhs"], row["verdict"]) == (check.lhs, check.rhs, check.verdict)
    printed, _ = capfd.readouterr()
    for name in THEOREMS:
        assert name in printed
    assert str(out / "verify.json") in printed.replace("\n", "")


@pytest.mark.parametrize("texts", ["one string", 3])
def test_what_is_not_a_series_of_texts_is_refused(texts):
    with pytest.raises(TextError, match="series of strings"):
        jaxsmooth.verify(None, None, texts)


def verdicts_of(verdicts: list[str], lhs: list[float], rhs: list[float]) -> BatchVerdicts:
    sides = (Interval(np.array(side), np.array(side)) for side in (lhs, rhs))
    return BatchVerdicts(np.array([VERDICTS.index(v) for v in verdicts], np.int8), *sides)


def test_the_worst_sentence_is_shown():
    tally = Tally(("a",))
    first = verdicts_of(["CONFIRMED", "NOT_APPLICABLE"], [1.0, 0.0], [4.0, 0.0])
    tally.add("a", 1, first, np.array([4, 7]))
    tally.add("a", 1, verdicts_of(["CONFIRMED"], [1.0], [2.0]), np.array([9]))
    (check,) = tally.checks()
    assert (check.verdict, check.sentence, check.lhs, check.rhs) == ("CONFIRMED", 9, 1.0, 2.0)
    assert check.counts == {"CONFIRMED": 2, "VIOLATED": 0, "UNDECIDED": 0, "NOT_APPLICABLE": 1}
    tally.add("a", 1, verdicts_of(["UNDECIDED"], [1.0], [1.0]), np.array([3]))
    assert tally.checks()[0].verdict == "UNDECIDED"
    tally.add("a", 1, verdicts_of(["VIOLATED"], [3.0], [1.0]), np.array([5]))
    assert (tally.checks()[0].verdict, tally.checks()[0].sentence) == ("VIOLATED", 5)
    (row,) = tally.theorems(str)
    assert row.tightness == (pytest.approx(1 / 3), 1.5, 4.0)
    assert tally.stages == {"products": 3, "svd": 0, "arb": 0}


def test_a_theorem_that_never_applies_says_so():
    tally = Tally(("a",))
    tally.add("a", 1, verdicts_of(["NOT_APPLICABLE"], [0.0], [0.0]), np.array([0]))
    (check,) = tally.checks()
    assert (check.verdict, check.lhs, check.rhs, check.sentence) == ("NOT_APPLICABLE", None, None, None)
    assert tally.theorems(str)[0].tightness is None


def test_arb_decides_what_floating_point_cannot(monkeypatch):
    """Every theorem of a real block and head, evaluated in Arb: the same sides as in floating point, far narrower."""
    model, tokenizer = jaxsmooth.load("tiny")
    names = tuple(THEOREMS)
    checker = verify._Checker(model, names)
    checker.escalation.arb_left = len(names)
    seen = []
    monkeypatch.setattr(Tally, "add", lambda self, theorem, layer, found, indices: None)
    monkeypatch.setattr(Escalation, "settle", lambda self, *arguments: seen.append(arguments))
    for encoded in tokenizer.batches(["ab"]):
        checker.check(encoded, checker.observe(encoded)(), Tally(names))
    for theorem, layer, found, data, lengths, first in seen[: len(names)]:
        head = 0 if theorem in HEADS else None
        own = crop(data, layer, 0, lengths[0])
        statement = checker.escalation.attempt("arb", theorem, layer, own, first.mixing_at(layer, 0), head)
        place = (0,) if head is None else (0, 0)
        for side, before in ((statement.lhs, found.lhs), (statement.rhs, found.rhs)):
            assert before.lower[place] <= side.upper, theorem
            assert side.lower <= before.upper[place], theorem
        assert Verdict(int(decide(*statement))) == Verdict.CONFIRMED, theorem


def test_only_the_theorems_that_are_named_are_checked():
    model, tokenizer = jaxsmooth.load("tiny")
    names = ("data_rate_L4", "dobrushin1956_diameter")
    found = jaxsmooth.verify(model, tokenizer, TEXTS, theorems=names)
    assert [row.theorem for row in found.theorems] == [name for name in THEOREMS if name in names]
    assert {check.theorem for check in found.checks} == set(names)
    with pytest.raises(ValueError, match="there is no theorem 'nonsense'"):
        jaxsmooth.verify(model, tokenizer, TEXTS, theorems=["nonsense"])


@pytest.mark.long
def test_the_catalogue_is_measured_on_request():
    """On heads, on the host and on blocks; equalities stay open, and nothing else does."""
    model, tokenizer = jaxsmooth.load("tiny")
    names = [name for name, entry in CATALOGUE.items() if entry.about]
    found = jaxsmooth.verify(model, tokenizer, [*TEXTS, "ab"], theorems=names)
    assert not found.violated
    assert {row.theorem for row in found.theorems} == set(names)
    expected = dict.fromkeys(("ali2023_centring_keeps_distance", "zhao2020_pair_norm"), "UNDECIDED")
    # Those ask for a first token that sees itself alone.
    expected |= dict.fromkeys(("karagodin2024_first_token", "karagodin2024_angle"), "NOT_APPLICABLE")
    # And those that start at acute angles.
    acute = {"geshkovski2023_clustering", "geshkovski2023_discrete_step", "chen2025_clustering"}
    for row in found.theorems:
        rows = 2 * TINY.layers * (1 if CATALOGUE[row.theorem].about == "block" else TINY.heads)
        left_out = row.counts["NOT_APPLICABLE"] if row.theorem in acute else 0
        assert row.counts[expected.get(row.theorem, "CONFIRMED")] == rows - left_out, row
    assert found.stages["measured"] == sum(row.counts["CONFIRMED"] for row in found.theorems)


def test_what_a_model_does_not_provide_is_refused():
    with pytest.raises(OptionError, match="fusion_gate needs hidden, gates, mask, which verify does not take"):
        jaxsmooth.verify(None, None, TEXTS, theorems=["fusion_gate"])


@pytest.mark.compatibility("long", "verify of a model that has diverged", "the first layer and array is named", was=2)
@pytest.mark.parametrize(
    ("names", "factor", "message"),
    [
        (MLP, 1e25, r"^layer 2, mlp is not finite for sentence 1; what is computed before it is\. The largest"),
        ("blocks.down.kernel", 1e30, "^layer 2, std_mlp is not finite for sentence 1; "),
        ("blocks.down.kernel", np.nan, r"^parameter blocks\.down\.kernel of layer 2 is not finite"),
    ],
)
def test_a_diverged_model_is_refused_by_its_first_array(names, factor, message):
    model, tokenizer = jaxsmooth.load("tiny")
    with pytest.raises(DivergedError, match=message):
        jaxsmooth.verify(with_factor(model, names, 1, factor), tokenizer, TEXTS)
