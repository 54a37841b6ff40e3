"""What the layers of every model do to every text: the numbers that the experiments of this folder share.

    python -m experiments.paper.observed                      # what results/paper/observed.json lacks

Of each text and layer: mean token cosine, d_M/‖H‖, the rate d_M(H')/d_M(X) of the block, the cosine of successive
layers' attention (three ways), and sigma1 sigma2, the product of the least stds at the block's two LayerNorms. Trained
weights, and the same architecture at random initialisation (normal of std 0.02, truncated at two, one draw).

Hardware and time: 2 shared cores of an Intel Xeon; about 9 minutes of processor time, each entry's
seconds are in the file. Expect what figure_1a.py and figure_3.py say. The other experiments of this
folder call it by themselves. Texts are cut to 128 tokens, the length that Shi et al. trained with; they are drawn at
random from each corpus. None of the corpora is WikiBio: the nearest are sentences of Wikipedia (vitaminc) and
paragraphs of it (squad-wiki).
"""

import dataclasses
import functools
from collections.abc import Callable, Iterator
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import tyro
from jax import Array
from numpy.typing import NDArray

import jaxsmooth
from jaxsmooth import Batch, BlockTrace, Encoder, Tokenizer, encode, metrics
from jaxsmooth.assets.texts import sample_texts
from jaxsmooth.theory.block.ladder import actual_rate
from jaxsmooth.training.data.catalogue import read_task
from jaxsmooth.training.data.splits import sample

from .. import keeping
from ..readings import ANTIBODIES

RESULTS = keeping.RESULTS / "paper"
LENGTH = 128
"""Most tokens of a text, as in the paper."""
MODELS = ("minilm-l3", "minilm-l6", "e5-small-q4", "mpnet-base", "antiberty")
CORPORA = ("movie-reviews", "nyt-editorials", "newsgroups", "reuters-r8", "vitaminc", "squad-wiki")
LABELS = {"e5-small-q4": "e5-small-q4 (4-bit)", "antiberty": "antiberty (antibodies)"}
"""What a table calls a model whose weights, or texts, are not the plain ones."""
WEIGHTS = ("trained", "random")
MEASURES = ("cosine", "distance", "rate", "similarity", "similarity_heads", "similarity_centred", "std_product")


@dataclasses.dataclass(frozen=True)
class Args:
    """What to look at."""

    models: tuple[str, ...] = MODELS
    """Model assets."""
    corpora: tuple[str, ...] = CORPORA
    """Text assets, and tasks whose passages are read; of antiberty always its own sequences."""
    limit: int = 40
    """Texts of each corpus."""
    out: Path = RESULTS
    """Where the results go."""


def label(model: str) -> str:
    return LABELS.get(model, model)


def corpora_of(args: Args, model: str) -> tuple[str, ...]:
    return ("antibodies",) if model == "antiberty" else args.corpora


def texts_of(corpus: str, limit: int, seed: int = 0) -> list[str]:
    """Texts drawn at random from a corpus: all different, in its order."""
    if corpus == "antibodies":
        return list(ANTIBODIES[:limit])
    if corpus not in ("vitaminc", "squad-wiki"):
        return sample_texts(corpus, limit, seed)
    examples = read_task(corpus)[1].splits["test"]
    passages = list(dict.fromkeys(example.context if corpus == "squad-wiki" else example.text for example in examples))
    return sample(passages, limit)


@functools.lru_cache(maxsize=1)
def loaded(model: str, weights: str = "trained", seed: int = 0) -> tuple[Encoder, Tokenizer]:
    """A model with its trained weights or random ones, and a tokenizer that cuts at `LENGTH`."""
    encoder, tokenizer = jaxsmooth.load(model)
    own = encoder.config
    if weights == "random":
        encoder = jaxsmooth.init_encoder(dataclasses.replace(own, std_init=0.02), jax.random.key(seed), pooler=False)
    # One structure for both kinds of weights: they share their programs.
    return dataclasses.replace(encoder, pooler=None, config=own), tokenizer.adapted(max_length=LENGTH, lower_case=False)


def short_reviews(tokenizer: Tokenizer, count: int) -> list[str]:
    """Film reviews of 17 to 32 tokens, drawn at random: batches of one shape."""
    texts = texts_of("movie-reviews", 10 * count)
    kept = [text for text in texts if 17 <= int(tokenizer([text]).mask.sum()) <= 32]
    return kept[:count]


@jax.jit
def measures(model: Encoder, batch: Batch) -> dict[str, Array]:
    """`MEASURES` of a batch: of hidden states [L+1 B], of blocks [L B]."""
    mask = batch.mask

    def smooth(hidden: Array) -> dict[str, Array]:
        found = {"cosine": metrics.token_cosine_similarity, "distance": metrics.relative_distance}
        return {name: measure(hidden, mask) for name, measure in found.items()}

    def collect(trace: BlockTrace) -> tuple:
        least = [metrics.std_range(std, mask)[0] for std in (trace.std_attn, trace.std_mlp)]
        block = {"rate": actual_rate(trace.input, trace.hidden, mask), "std_product": least[0] * least[1]}
        return smooth(trace.input), smooth(trace.hidden), block | similarities(trace.attn, trace.attn_before, mask)

    before, after, blocks = encode(model, batch, collect=collect, successive=True)[1]
    states = {name: jnp.concatenate([before[name][:1], after[name]]) for name in after}
    first = {name: value.at[0].set(jnp.nan) for name, value in blocks.items() if name.startswith("similarity")}
    return states | blocks | first


def similarities(attn: Array, before: Array, mask: Array) -> dict[str, Array]:
    """Cosine of two layers' flattened attention, [B]: heads averaged; head by head; averaged, less the uniform 1/n."""
    alike = metrics.attention_similarity
    uniform = 1 / jnp.maximum(mask.sum(axis=-1), 1).astype(attn.dtype)[:, None, None, None]
    one, two = (jnp.moveaxis(each, 1, 0)[:, :, None] for each in (attn, before))
    by_head = alike(one, two, jnp.broadcast_to(mask, (len(one), *mask.shape)))
    return {
        "similarity": alike(attn, before, mask),
        "similarity_heads": by_head.mean(axis=0),
        "similarity_centred": alike(attn - uniform, before - uniform, mask),
    }


def by_text(
    tokenizer: Tokenizer, texts: list[str], measure: Callable[[Batch], dict[str, Array]], tokens: int = 1024
) -> dict[str, NDArray[np.float64]]:
    """What `measure` finds of every batch of so many tokens, [... B], put in the order of the texts, [... texts]."""
    found: dict[str, NDArray] = {}
    for encoded in tokenizer.batches(texts, tokens_per_batch=tokens):
        for name, value in measure(encoded.batch).items():
            part = np.asarray(value)
            whole = found.setdefault(name, np.empty((*part.shape[:-1], len(texts))))
            whole[..., encoded.indices] = part[..., : len(encoded.indices)]
    return found


def measured(model: Encoder, tokenizer: Tokenizer, texts: list[str]) -> dict[str, NDArray]:
    """`MEASURES` text by text, [L+1 texts] or [L texts], and the number of tokens, [texts]."""
    return by_text(tokenizer, texts, lambda batch: {**measures(model, batch), "tokens": batch.mask.sum(axis=-1)})


def observe(args: Args) -> Iterator[tuple[str, str, str, dict[str, NDArray]]]:
    """Model, weights, corpus and `measured`, of all that is asked for; what the file lacks is measured."""
    cases = [(m, w, c) for m in args.models for w in WEIGHTS for c in corpora_of(args, m)]

    def work(model: str, weights: str, corpus: str) -> dict:
        found = measured(*loaded(model, weights), texts_of(corpus, args.limit))
        return {name: keeping.rounded(values) for name, values in found.items()}

    names = [f"{m}, {w}, {args.limit} of {c}" for m, w, c in cases]
    wanted = {name: functools.partial(work, *case) for name, case in zip(names, cases, strict=True)}
    entries = keeping.kept(args.out / "observed.json", wanted, doing="observing layers")
    for case, entry in zip(cases, entries.values(), strict=True):
        yield *case, {name: keeping.numbers(entry[name]) for name in (*MEASURES, "tokens")}


if __name__ == "__main__":
    for model, weights, corpus, found in observe(tyro.cli(Args)):
        print(f"{model:14} {weights:8} {corpus:15}", " ".join(f"{x:.3f}" for x in np.nanmean(found["cosine"], axis=1)))
