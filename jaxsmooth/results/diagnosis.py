"""What `diagnose` and `converge` found: plain numpy numbers, so that a report needs no model and no accelerator.

Arrays over hidden states have L + 1 entries (index 0 is the embedding output, Hugging Face's
`hidden_states[0]`); arrays over blocks have L entries (index l is block l, whose output is hidden state
l + 1).
"""

import dataclasses

import numpy as np
from numpy.typing import NDArray

RATES = ("actual", "L4", "L3", "L2b", "L2", "L1", "L0")
"""The contraction of a block and its upper bounds, tightest first; definitions in `jaxsmooth.theory.block.ladder`."""


@dataclasses.dataclass(frozen=True)
class Spread:
    """How a per-sentence quantity is distributed over the sentences, for every layer (and head) at once.

    Attributes:
      mean: mean over sentences, [K] or [K N], float64.
      std: standard deviation over sentences (divisor: the count), same shape.
      min: smallest value, same shape.
      max: largest value, same shape.
      count: how many sentences have a value, same shape; a quantity that is 0/0 for a sentence (the cosine
        similarity of its one token) leaves that sentence out. With count 0 the other fields are NaN.
    """

    mean: NDArray[np.float64]
    std: NDArray[np.float64]
    min: NDArray[np.float64]
    max: NDArray[np.float64]
    count: NDArray[np.int64]

    @classmethod
    def over_sentences(cls, values: NDArray[np.float64]) -> "Spread":
        """The spread of values over axis 1, the sentences; what is not finite is left out.

        >>> Spread.over_sentences(np.array([[1.0, 3.0, np.inf]])).mean
        array([2.])
        """
        real = np.isfinite(values)
        count = real.sum(axis=1)
        known = np.where(real, values, 0)
        mean = known.sum(axis=1) / np.maximum(count, 1)
        squares = (np.where(real, values - mean[:, None], 0) ** 2).sum(axis=1)
        low, high = np.where(real, values, np.inf).min(axis=1), np.where(real, values, -np.inf).max(axis=1)
        std = np.sqrt(squares / np.maximum(count, 1))
        mean, std, low, high = (np.where(count > 0, part, np.nan) for part in (mean, std, low, high))
        return cls(mean, std, low, high, count)


@dataclasses.dataclass(frozen=True)
class ModelSummary:
    """Which model was diagnosed. `note` warns about weights that are not what they seem ("random weights").

    `departures` says what sets its blocks apart from the post-LN blocks that the ladder of bounds speaks of ("pre-LN
    blocks"); where there are any, the threshold has no value, and of the bounds only `rungs` have one: L1 for pre-LN
    blocks, whose own rate it then is.
    """

    name: str
    family: str
    layers: int
    heads: int
    width: int
    mlp_width: int
    activation: str
    parameters: int
    precision: str
    note: str = ""
    departures: tuple[str, ...] = ()
    rungs: tuple[str, ...] = RATES[1:]

    @property
    def label(self) -> str:
        """The name, with the note if there is one."""
        return f"{self.name} ({self.note})" if self.note else self.name


@dataclasses.dataclass(frozen=True)
class DataSummary:
    """Which text was read: sentences, real tokens (special tokens included), and how many were truncated."""

    name: str
    sentences: int
    tokens: int
    truncated: int


@dataclasses.dataclass(frozen=True)
class Exemplar:
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
class FusedLayers:
    """Several layers' outputs fused into one hidden state, measured like a layer.

    Attributes:
      label: which fusion, in words.
      layers: the layers that are fused, from 1.
      measures: name of a field of `Diagnosis` on hidden states -> its spread, [1].
      gates: the gate of every fused layer, [K]; `mean` and `std` over the sentences' token means, `min` and `max` over
        all tokens of all sentences. None for a fusion without gates.
    """

    label: str
    layers: tuple[int, ...]
    measures: dict[str, Spread]
    gates: Spread | None


@dataclasses.dataclass(frozen=True)
class Diagnosis:
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
      mixing_rate: sqrt(lambda) of every head, [L N].
      ergodicity_coefficient: Dobrushin's coefficient of every head, [L N].
      attention_entropy: mean entropy of a head's attention rows, nats, [L N].
      rates: for each name in `RATES`, the contraction of a block or an upper bound of it, [L].
      exemplar: one sentence in full, or None when there is none short enough to show.
      versions: package -> version, and the platform's name.
      fused: layers fused into one more hidden state, or None where that was not asked for.
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
    mixing_rate: Spread
    ergodicity_coefficient: Spread
    attention_entropy: Spread
    rates: dict[str, Spread]
    exemplar: Exemplar | None
    versions: dict[str, str]
    fused: FusedLayers | None = None


CONVERGENCE = (
    "classes",
    "predicted_rate",
    "ergodicity",
    "birkhoff",
    "mixing_rate",
    "observed_rate",
    "largest_growth",
    "predicted_steps",
    "observed_steps",
    "transient",
    "limit_error",
    "arrived",
    "limit_held",
    "rate_held",
    "steps_held",
    "ergodicity_held",
    "birkhoff_held",
)
"""What is known of each head's iteration; defined in `jaxsmooth.theory.Convergence`. Means of `_held` are shares."""


@dataclasses.dataclass(frozen=True)
class HeadConvergence:
    """Every head iterated as an operator: predicted against observed limit and rate.

    Attributes:
      model: which model.
      data: which text.
      window: tokens in the sliding window.
      steps: applications of each matrix.
      tolerance: relative distance to the limit that counts as having arrived.
      masks: for "full", "causal" and "window", name in `CONVERGENCE` -> spread over sentences, [L N]. A number
        of steps beyond `steps`, predicted or observed, is given as `steps` + 1; a sentence that did not arrive has no
        transient and is left out there.
      versions: package -> version, and the platform's name.
    """

    model: ModelSummary
    data: DataSummary
    window: int
    steps: int
    tolerance: float
    masks: dict[str, dict[str, Spread]]
    versions: dict[str, str]
