"""What `verify` writes and says: the answer, the page, verify.json, and no word of proof about a user's own theorem."""

import dataclasses
import json
from xml.etree import ElementTree

import pytest
from support.report import HOSTILE, synthetic, verification

from jaxsmooth.report import write_verification
from jaxsmooth.report.sections.verdict import verdict_parts, verdict_words, verification_figure
from jaxsmooth.report.verify import said, verification_page
from jaxsmooth.results.verification import TRUTHS, VERDICTS, HypothesisCheck, HypothesisSummary, TheoremSummary

MODEL, DATA = synthetic(2, 2).model, synthetic(2, 2).data
EMPTY = dataclasses.replace(verification(MODEL, DATA), checks=(), theorems=(), stages={"products": 3})


def theorem(name, yes=0, no=0, left=0, none=0, *, proved=True):
    counts = dict(zip(VERDICTS, (yes, no, left, none), strict=True))
    return TheoremSummary(name, f"source of {name}", counts, (1.0, 2.0, 30.0) if yes + no else None, proved)


def hypothesis(name, yes=0, no=0, left=0, none=0):
    return HypothesisSummary(
        name,
        f"does {name} hold?",
        "v",
        "< 1",
        "me",
        dict(zip(TRUTHS, (yes, no, left, none), strict=True)),
        0.5,
        2.0,
        (),
    )


def found(theorems=(), hypotheses=()):
    checks = [
        HypothesisCheck(row.hypothesis, layer, head, "HOLDS", 0.5, 2.0, 0, row.counts)
        for row in hypotheses
        for layer, head in ((1, 0), (1, 1), (2, 0), (None, None))
    ]
    return dataclasses.replace(
        EMPTY, theorems=tuple(theorems), hypotheses=tuple(hypotheses), hypothesis_checks=tuple(checks)
    )


@pytest.mark.parametrize(
    ("theorems", "words"),
    [
        ([theorem("a", 5), theorem("b", 6)], "The theory holds: none of 11 checks of all 2 theorems is violated."),
        ([theorem("a", 5, left=2)], "none of 7 checks of the theorem a is violated; 2 stay open"),
        ([theorem("a", 5), theorem("b", 6, no=3)], "No: 3 checks contradict a proved theorem (b)."),
        ([theorem("a", none=4)], "None of the theorems could be decided"),
        ([], "Nothing was asked."),
    ],
)
def test_the_answer_of_theorems(theorems, words):
    assert words in verdict_words(found(theorems))


def test_the_answer_of_hypotheses():
    rows = [
        hypothesis("h", 4),
        hypothesis("f", no=4),
        hypothesis("g", no=9),
        hypothesis("p", 3, 1),
        hypothesis("o", left=2),
    ]
    words = verdict_words(found(hypotheses=rows))
    assert "f and g fail everywhere, so theorems that assume them promise nothing here" in words
    assert "p (3 of 4 checks) holds only in part; o is open; h holds everywhere." in words


@pytest.mark.parametrize("own", [theorem("mine", 5, proved=False), theorem("mine", 5, left=1, proved=False)])
def test_nothing_is_called_proved_of_a_theorem_that_was_only_evaluated(own):
    alone = found([own])
    for words in (verdict_words(alone), said(alone)):
        assert "evaluated" in words
        assert not any(claim in words for claim in ("are proved", "theory holds", "a proved"))
    assert "does not prove it" in verdict_words(alone)
    assert "are proved" in said(found([own, theorem("theirs", 1)]))
    false = verdict_words(found([theorem("mine", 5, no=2, proved=False)]))
    assert false == "Your own mine is false: violated in 2 of 7 checks."


def test_what_is_written(tmp_path):
    result = dataclasses.replace(
        found([theorem("a", 5, 1)], [hypothesis("h", 4), hypothesis("p", 1, 1)]),
        checks=verification(MODEL, DATA).checks,
    )
    paths = write_verification(result, tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {
        *("verify.html", "verify.json", "hypotheses.json", "verify.png", "verify.svg", "verify.pdf")
    }
    content = json.loads(paths["checks"].read_text(encoding="utf-8"), parse_constant=pytest.fail)
    assert list(content) == ["schema", "model", "data", "answer", "theorems", "stages", "versions", "checks"]
    assert content["schema"] == 1
    assert content["answer"] == verdict_words(result)
    assert content["checks"] == [dataclasses.asdict(check) for check in result.checks]
    words = "".join(ElementTree.parse(tmp_path / "verify.svg").getroot().itertext())
    assert "Where do the hypotheses hold?" in words
    assert "How tight are the theorems?" in words
    page = paths["report"].read_text(encoding="utf-8")
    assert all(part in page for part in verdict_parts(result))
    assert "VIOLATED: " in page


def test_nothing_asked_is_written_too(tmp_path):
    assert verification_figure(EMPTY) is None
    paths = write_verification(EMPTY, tmp_path)
    assert sorted(paths) == ["checks", "report"]
    assert json.loads(paths["checks"].read_text(encoding="utf-8"))["checks"] == []


@pytest.mark.parametrize("text", HOSTILE)
def test_text_stays_text(text):
    model, data = dataclasses.replace(MODEL, name=text, note=text), dataclasses.replace(DATA, name=text)
    result = dataclasses.replace(found([theorem(text, 5, 1)], [hypothesis(text, 4)]), model=model, data=data)
    page = verification_page(dataclasses.replace(result, versions={text: text}))
    assert page.count("<img") == 1  # the figure
    assert "<script" not in page
    assert "onerror=alert" not in page.replace("&lt;img src=x onerror=alert(1)&gt;", "")
