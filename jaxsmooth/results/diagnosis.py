"""What `diagnose` found: plain numpy numbers, so that a report needs no model and no accelerator.

Arrays over hidden states have L + 1 entries (index 0 is the embedding output, Hugging Face's
`hidden_states[0]`); arrays over blocks have L entries (index l is block l, whose output is hidden state
l + 1).
"""

import dataclasses

import numpy as np
from numpy.typing import NDArray

from .brief import Brief, digits, span
from .each_text import TextValues
from .every_input import EveryInput
from .fate import MapConvergence
from .shown import Shown
from .spread import Spread
from .summaries import DataSummary, ModelSummary
from .texts import TextStatements
from .weights import WeightSpectra


@dataclasses.dataclass(frozen=True, repr=False)
class Exemplar(Brief):
    """One sentence in full.

    Attributes:
      text: the sentence.
      tokens: its T tokens as strings, special tokens included.
      cosine: cosine similarity of every pair of tokens, [L+1 T T].
      attn: attention probabilities, [L N T T].
    """

    text: str
    tokens: tuple[str, ...]
    cosine: NDArray[np.float32]
    attn: NDArray[np.float32]


@dataclasses.dataclass(frozen=True)
class Untrained:
    """The same architecture with weights as before training, on a few of the texts.

    Attributes:
      texts: on how many, those of the first batch.
      seed: of the draw of the weights.
      cosine_similarity: mean over these texts, of every hidden state, [L+1]; NaN where none has a value.
      relative_distance: the same, [L+1].
    """

    texts: int
    seed: int
    cosine_similarity: NDArray[np.float64]
    relative_distance: NDArray[np.float64]


@dataclasses.dataclass(frozen=True, repr=False)
class FusedLayers(Brief):
    """Several layers' outputs fused into one hidden state, measured like a layer.

    Attributes:
      label: which fusion, in words.
      layers: the layers that are fused, from 1.
      measures: name of a field of `Diagnosis` on hidden states, or of a metric of the user's -> its spread, [1].
      gates: the gate of every fused layer, [K]; `mean` and `std` over the sentences' token means, `min` and `max` over
        all tokens of all sentences. None for a fusion without gates.
    """

    label: str
    layers: tuple[int, ...]
    measures: dict[str, Spread]
    gates: Spread | None


@dataclasses.dataclass(frozen=True, repr=False)
class Diagnosis(Shown):
    """Per-layer measurements of over-smoothing, and what the theory says about them.

    Attributes:
      model: which model.
      data: which text.
      cosine_similarity: token cosine similarity of the hidden states, [L+1].
      relative_distance: d_M(H) / ||H||_F, [L+1].
      subspace_distance: d_M(H), [L+1].
      effective_rank: exponential of the entropy of the normalised singular values of H, [L+1].
      stable_rank: ||H||_F^2 / ||H||_2^2, [L+1].
      token_norm: mean Euclidean norm of a token, [L+1].
      std_attn: std at the attention LayerNorm, [L]; `mean` and `std` over the sentences' token means,
        `min` and `max` over all tokens of all sentences (Shi et al.'s sigma_1 is the minimum).
      std_mlp: the same at the MLP LayerNorm (sigma_2), [L].
      std_product: per sentence (min over tokens of std_attn) * (min over tokens of std_mlp), [L].
      threshold: what `std_product` must exceed for the theorem (rung L1) to promise contraction, [L].
      attention_similarity: cosine of a block's attention, mean over heads, with that of the block before, [L]; without
        a value at the first.
      principal_alignment: how much of a token that a block hands out lies along the principal direction of that block's
        own F = sum_h W_V^h W_O^h, mean over tokens of ||P x|| / ||x||, [L]; see `theory.li2026_principal_subspace`.
      mixing_rate: sqrt(lambda) of every head, [L N].
      ergodicity_coefficient: Dobrushin's coefficient of every head, [L N].
      attention_entropy: mean entropy of a head's attention rows, nats, [L N].
      sink_strength: of every head, the attention that its strongest key receives, averaged over queries, [L N].
      first_token_attention: the attention that the first token receives, averaged over queries, [L N].
      rates: for each name in `RATES`, the contraction of a block or an upper bound of it, [L].
      exemplar: one sentence in full, or None when there is none short enough to show.
      versions: package -> version, and the platform's name.
      fused: layers fused into one more hidden state, or None where that was not asked for.
      every_input: bounds over all texts, or None where none are stored for these weights.
      texts: what the texts that were read say of all texts of their kind.
      weights: spectra of the weights, and what `principal_alignment` would be by chance.
      fate: where the tokens go when a map of the model is applied again and again, or None where that was not asked
        for; `dataclasses.replace(diagnosis, fate=jaxsmooth.converge(..., map="stack"))` puts it into the report.
      metrics: of the user's own, by name, [L+1].
      parts: names of a block's parts, in the order of `attribution`; see `jaxsmooth.interventions.attribution`.
      attribution: change of ln(d_M / ||H||_F) over each part of a block, [L 4]; None in results from before it was
        measured.
      anisotropy: mean cosine of two tokens of different texts, over all pairs of texts, [L+1]; NaN of a single text.
      untrained: the same architecture before training, or None where that was not asked for.
      each: every number of each text, where that was asked for; besides the quantities above "contraction", d_M of the
        last layer over that of the embedding output, "tokens", the smallest and largest std of a text's tokens
        (`std_attn_min`), and "own/" and "fused/" before the names of what is the user's or of fused layers.
    """

    model: ModelSummary
    data: DataSummary
    cosine_similarity: Spread
    relative_distance: Spread
    subspace_distance: Spread
    effective_rank: Spread
    stable_rank: Spread
    token_norm: Spread
    std_attn: Spread
    std_mlp: Spread
    std_product: Spread
    threshold: Spread
    attention_similarity: Spread
    principal_alignment: Spread
    mixing_rate: Spread
    ergodicity_coefficient: Spread
    attention_entropy: Spread
    sink_strength: Spread
    first_token_attention: Spread
    rates: dict[str, Spread]
    exemplar: Exemplar | None
    versions: dict[str, str]
    fused: FusedLayers | None = None
    every_input: EveryInput | None = None
    texts: TextStatements | None = None
    weights: WeightSpectra | None = None
    fate: MapConvergence | None = None
    metrics: dict[str, Spread] = dataclasses.field(default_factory=dict)
    parts: tuple[str, ...] = ()
    attribution: Spread | None = None
    anisotropy: NDArray[np.float64] | None = None
    untrained: Untrained | None = None
    each: TextValues | None = None

    def in_short(self) -> str:
        cosine = self.cosine_similarity.mean
        rates = (f"{name} {span(self.rates[name].mean)}" for name in ("actual", "L4", "L1") if name in self.rates)
        first, last = (digits(float(end)) for end in (cosine[0], cosine[-1]))
        return f"cosine similarity {first} to {last}; rates by layer: {', '.join(rates)}"
