"""The pinned corpora as tasks: sizes, classes, and that nothing of test is in train. Each needs its asset."""

import functools
import itertools

import numpy as np
import pytest
from support.assets import REAL, REAL_CACHE
from support.tasks import TOKENIZER

from jaxsmooth.assets import asset_path
from jaxsmooth.checkpoints.config_json import config_from_file
from jaxsmooth.inputs.tokenizer import Tokenizer
from jaxsmooth.training.data.catalogue import read_task
from jaxsmooth.training.data.pipeline import make_stream
from jaxsmooth.training.data.splits import normalise
from jaxsmooth.training.data.task_data import TaskData
from jaxsmooth.training.data.tasks import SPLITS, Choice, Question, Sentence
from jaxsmooth.training.evaluate import make_scores

# Task -> asset, and the sizes of train, validation and test.
SIZES = {
    "movie-reviews": ("movie-reviews", 8457, 1039, 1072),
    "movie-reviews-score": ("movie-reviews", 8489, 1042, 1074),
    "movie-reviews-mlm": ("movie-reviews", 8489, 1042, 1074),
    "amazon-reviews": ("amazon-reviews", 2901, 390, 319),
    "tweets": ("tweets", 3313, 465, 418),
    "nyt-editorials": ("nyt-editorials", 3923, 525, 498),
    "newsgroups": ("newsgroups", 10142, 1144, 7528),
    "reuters-r8": ("reuters-r8", 4931, 549, 2189),
    "reuters-r8-mlm": ("reuters-r8", 4931, 549, 2189),
    "reuters-r52": ("reuters-r52", 5859, 665, 2568),
    "vitaminc": ("vitaminc", 43273, 6053, 5342),
    "agreement": ("agreement", 17114, 3794, 2938),
    "wikihow-goals": ("wikihow", 1323, 182, 196),
    "wikihow-steps": ("wikihow", 1827, 211, 212),
    "wikihow-order": ("wikihow", 2491, 304, 305),
    "squad-dev": ("squad-dev", 8007, 1204, 1354),
    "squad-wiki": ("squad-wiki", 6703, 736, 497),
    "squad-nyt": ("squad-nyt", 8001, 1002, 1052),
    "squad-reddit": ("squad-reddit", 7751, 1020, 992),
    "squad-amazon": ("squad-amazon", 7466, 1204, 896),
}
LEFT_OUT = {
    "movie-reviews": ("left out: 37 sentences with the score 0, neither side",),
    "agreement": ("left out: 1 pairs that lack a side",),
    "squad-dev": ("left out: 15 answers that are not at their place",),
    "squad-amazon": (
        "left out: 947 answers that are not at their place",
        "left out: 311 questions, none of whose answers is",
    ),
}


# The big ones wait for `make long`.
BIG = {"newsgroups", "vitaminc", "agreement", "squad-dev", "squad-nyt", "squad-reddit", "squad-amazon"}
ALL = [pytest.param(name, marks=pytest.mark.long) if name in BIG else name for name in SIZES]
read_once = functools.lru_cache(read_task)


@pytest.fixture
def read(monkeypatch):
    def read_real(name):
        asset = SIZES[name][0]
        if not REAL[asset]:
            pytest.skip(f"needs {asset} in the cache: jaxsmooth assets fetch {asset}")
        monkeypatch.setenv("JAXSMOOTH_CACHE", REAL_CACHE)
        return read_once(name)

    return read_real


def never_shared(name: str, example) -> list[str]:
    """What must not be on two sides, worked out from the example as it reaches training."""
    match example:
        case Sentence() if name == "vitaminc":
            page = example.text.partition(": ")[0]
            return [f"page {normalise(page)}", f"text {normalise(example.text)}", f"claim {normalise(example.pair)}"]
        case Sentence():
            return [normalise(example.text)]
        case Question():
            return [normalise(example.context)]
        case Choice():
            return [normalise(example.prompt)]


@pytest.mark.parametrize("name", ALL)
def test_sizes_classes_and_leaks(name, read):
    task, parts = read(name)
    assert [len(parts.splits[split]) for split in SPLITS] == list(SIZES[name][1:])
    if name in LEFT_OUT:
        assert parts.notes == LEFT_OUT[name]
    sides = [{key for example in part for key in never_shared(name, example)} for part in parts.splits.values()]
    assert all(not a & b for a, b in itertools.combinations(sides, 2))
    if task.kind in ("classification", "choice"):
        for part in parts.splits.values():
            assert {e.label for e in part} <= set(range(len(task.classes) or task.choices))
        assert {e.label for e in parts.splits["train"]} == set(range(len(task.classes) or task.choices))
    if task.kind == "span":
        for question in itertools.chain(*parts.splits.values()):
            pairs = zip(question.answers, question.starts, strict=True)
            assert question.answers
            assert all(question.context[start : start + len(text)] == text for text, start in pairs)


@pytest.mark.long
def test_agreement_is_balanced_and_keeps_templates_apart(read):
    _, parts = read("agreement")
    tails = []
    for part in parts.splits.values():
        assert sum(example.label for example in part) * 2 == len(part)
        words = [normalise(example.text).split() for example in part if "nonce" in example.id]
        tails.append({" ".join(own[-5:]) for own in words})
    assert all(not a & b for a, b in itertools.combinations(tails, 2))


def test_a_text_is_on_one_side_whatever_the_task(read):
    sides = {}
    for name in ("movie-reviews", "movie-reviews-score", "movie-reviews-mlm"):
        for split, part in read(name)[1].splits.items():
            for example in part:
                assert sides.setdefault(normalise(example.text), split) == split


def test_every_kind_streams_from_a_real_corpus(read):
    for name in (
        "movie-reviews",
        "movie-reviews-score",
        "movie-reviews-mlm",
        "vitaminc",
        "wikihow-goals",
        "squad-wiki",
    ):
        if not REAL[SIZES[name][0]]:
            continue
        task, parts = read(name)
        data = TaskData(task, "test", parts.splits["test"][:3], TOKENIZER, 64)
        with make_stream(data, batch_size=8, epochs=1) as stream:
            total = sum(int(batch.weights.sum()) for batch in stream)
        assert total == len(data)


@pytest.mark.long
def test_labels_of_real_questions_spell_their_answers(read):
    """Logits that point at the labels give the gold answers, but where a token holds more than the answer ("Can't")."""
    if not REAL["minilm-l6"]:
        pytest.skip("needs minilm-l6 in the cache: jaxsmooth assets fetch minilm-l6")
    task, parts = read("squad-dev")
    config = config_from_file(asset_path("minilm-l6") / "config.json")
    tokenizer = Tokenizer.from_dir(asset_path("minilm-l6"), config)
    data = TaskData(task, "validation", parts.splits["validation"], tokenizer, 384)
    scores = make_scores(data)
    with make_stream(data, batch_size=32, shuffle=False, epochs=1) as stream:
        for batch in stream:
            places = np.arange(batch.batch.tokens.shape[1])
            logits = [np.where(places == p[:, None], 5.0, 0.0) for p in (batch.labels.start, batch.labels.end)]
            scores.update(logits, batch)
    assert len(data) > len(data.examples)
    assert 0.998 < scores.result()["exact_match"] <= scores.result()["f1"]
