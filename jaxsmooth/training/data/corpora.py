"""Readers of the pinned corpora. They are substitutes for the field's benchmarks and go by their own names.

None but the topic corpora comes with official splits; the others are split by hash (see `splits`), by what must
not be on two sides: the sentence, the passage and its page, the article, the goal, the sentence's template.
"""

from pathlib import Path
from typing import Any

from ...assets import fetch, read_rows
from ...errors import DataError
from ...json_reading import loads
from .official_files import read_squad_file
from .splits import Parts, keep_test, normalise, split_by_hash
from .tasks import Choice, Example, Sentence

SENTIMENTS = ("negative", "positive")
CLAIM_LABELS = ("False", "Neither", "True")
AGREEMENT = ("wrong", "right")
TOPICS: dict[str, tuple[str, ...]] = {
    "newsgroups": (
        *("alt.atheism", "comp.graphics", "comp.os.ms-windows.misc", "comp.sys.ibm.pc.hardware"),
        *("comp.sys.mac.hardware", "comp.windows.x", "misc.forsale", "rec.autos", "rec.motorcycles"),
        *("rec.sport.baseball", "rec.sport.hockey", "sci.crypt", "sci.electronics", "sci.med", "sci.space"),
        *("soc.religion.christian", "talk.politics.guns", "talk.politics.mideast", "talk.politics.misc"),
        "talk.religion.misc",
    ),
    "reuters-r8": (*("acq", "crude", "earn", "grain", "interest", "money-fx", "ship", "trade"),),
    "reuters-r52": (
        *("acq", "alum", "bop", "carcass", "cocoa", "coffee", "copper", "cotton", "cpi", "cpu", "crude"),
        *("dlr", "earn", "fuel", "gas", "gnp", "gold", "grain", "heat", "housing", "income", "instal-debt"),
        *("interest", "ipi", "iron-steel", "jet", "jobs", "lead", "lei", "livestock", "lumber", "meal-feed"),
        *("money-fx", "money-supply", "nat-gas", "nickel", "orange", "pet-chem", "platinum", "potato"),
        *("reserves", "retail", "rubber", "ship", "strategic-metal", "sugar", "tea", "tin", "trade"),
        *("veg-oil", "wpi", "zinc"),
    ),
}
"""Asset -> the names of its classes."""


def read_sentiment(name: str) -> Parts:
    """Sentences with a mean score of human raters, as positive (above 0) or negative; those at 0 are left out.

    Args:
      name: of the asset, as in all readers here; each raises AssetError where it cannot be fetched.
    """
    rows = [(text, float(score), number) for number, score, text in read_rows(name)]
    kept = [Sentence(text, label=int(score > 0), id=number) for text, score, number in rows if score]
    return Parts(_by_text(kept), _notes((len(rows) - len(kept), "sentences with the score 0, neither side")))


def read_scores(name: str) -> Parts:
    """The same sentences with the score itself, from -4 to 4."""
    rows = read_rows(name)
    return Parts(_by_text([Sentence(text, label=float(score), id=number) for number, score, text in rows]))


def read_plain(name: str) -> Parts:
    """The texts of a corpus alone, for masked LM."""
    return Parts(_by_text([Sentence(row[-1], id=str(place)) for place, row in enumerate(read_rows(name))]))


def read_topics(name: str, classes: tuple[str, ...], labelled: bool = True) -> Parts:
    """Documents with a topic; the official test split stays, validation is taken from the training split.

    Args:
      name: of the asset.
      classes: all topics, sorted.
      labelled: with their topics; without, for masked LM.

    Raises:
      DataError: a topic that is not among the classes.
    """
    train, test = (_topics(name, part, classes, labelled) for part in (0, 1))
    splits, dropped = keep_test(train, test, [normalise(e.text) for e in train], [normalise(e.text) for e in test])
    return Parts(splits, _notes((dropped, "training documents that the official test split repeats")))


def read_squad(name: str) -> Parts:
    """Questions on a passage. Split by article, or by passage where a file has one article for all."""
    questions, notes = read_squad_file(_file(name))
    titles = {title for title, _ in questions}
    keys = [
        [f"passage {normalise(question.context)}", *([f"article {title}"] if len(titles) > 1 else [])]
        for title, question in questions
    ]
    return Parts(split_by_hash([question for _, question in questions], keys), notes)


def read_vitaminc(name: str) -> Parts:
    """A passage of Wikipedia and a claim: does it follow, is it refuted, or neither?

    The same page is quoted in several versions and the same claim is combined with several passages, so examples
    that share a page, a passage or a claim stay together.

    Raises:
      DataError: an example of another form.
    """
    examples, keys = [], []
    for place, item in enumerate(_items(_file(name))):
        passage, found, claim = item["input"].rpartition("\nClaim: ")
        right = _right(item)
        if not found or right not in CLAIM_LABELS:
            raise DataError(f"{name}, example {place}: expected a passage, a claim and one of {CLAIM_LABELS}.")
        page = passage.partition(": ")[0]
        examples.append(Sentence(passage, pair=claim, label=CLAIM_LABELS.index(right), id=str(place)))
        keys.append([f"page {normalise(page)}", f"passage {normalise(passage)}", f"claim {normalise(claim)}"])
    return Parts(split_by_hash(examples, keys))


def read_agreement(name: str) -> Parts:
    """Sentences whose verb agrees with its subject, and the same sentences where it does not: half and half.

    Most are made from 56 templates by exchanging words. Sentences with the same beginning or the same words after
    the verb stay together, so no template is on two sides.
    """
    examples: list[Example] = []
    keys, skipped = [], 0
    for path in sorted(fetch(name).glob("*_english.json")):
        for place, item in enumerate(_items(path)):
            if sorted(item["target_scores"].values()) != [0, 1]:
                skipped += 1
                continue
            begin = item["input"].strip()
            for end, right in item["target_scores"].items():
                after = normalise(end.partition(" ")[2])
                examples.append(Sentence(f"{begin} {end.strip()}", label=int(right), id=f"{path.stem}/{place}"))
                keys.append([f"begin {normalise(begin)}", *([f"after {after}"] if after else [])])
    return Parts(split_by_hash(examples, keys), _notes((skipped, "pairs that lack a side")))


def read_wikihow(name: str, part: str, choices: int) -> Parts:
    """Multiple choice on wikiHow's goals and steps.

    Args:
      name: of the asset.
      part: "goal_inference", "step_inference" or "step_ordering".
      choices: continuations of each question; others are left out.
    """
    kept: list[Example] = []
    keys, skipped = [], 0
    for place, item in enumerate(_items(fetch(name) / part / "task.json")):
        right = _right(item)
        if right is None or len(item["target_scores"]) != choices:
            skipped += 1
            continue
        options = tuple(item["target_scores"])
        prompt = item["input"].strip()
        kept.append(Choice(prompt, options, options.index(right), id=str(place)))
        quoted = prompt.partition("'")[2].partition("', one can")[0] if part == "step_ordering" else prompt
        others = options if part == "step_ordering" else (right,)
        keys.append([f"prompt {normalise(quoted)}", *(f"choice {normalise(text)}" for text in others)])
    return Parts(split_by_hash(kept, keys), _notes((skipped, f"questions without exactly {choices} choices")))


def _by_text(examples: list[Sentence]) -> dict[Any, list[Example]]:
    return split_by_hash(examples, [[normalise(example.text)] for example in examples])


def _topics(name: str, part: int, classes: tuple[str, ...], labelled: bool) -> list[Sentence]:
    rows = read_rows(name, part)
    unknown = sorted({topic for topic, _ in rows} - set(classes))
    if unknown:
        raise DataError(f"{name}: topics must be among the {len(classes)} known ones; got {unknown}.")
    return [
        Sentence(text, label=classes.index(topic) if labelled else None, id=f"{'test' if part else 'train'}/{place}")
        for place, (topic, text) in enumerate(rows)
    ]


def _file(name: str) -> Path:
    return next(path for path in sorted(fetch(name).glob("*.json")) if not path.name.startswith("."))


def _items(path: Path) -> list[dict[str, Any]]:
    try:
        items = loads(path.read_text(encoding="utf-8"))["examples"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path} must be JSON with a list `examples`; got {error!r}. Is it another file?") from error
    return items


def _right(item: dict[str, Any]) -> str | None:
    right = [text for text, score in item["target_scores"].items() if score]
    return right[0] if len(right) == 1 else None


def _notes(*counted: tuple[int, str]) -> tuple[str, ...]:
    return tuple(f"left out: {count} {what}" for count, what in counted if count)
