"""What `converge --map` found: where each sentence's tokens go when a map of the model is applied again and again."""

import dataclasses

import numpy as np
from numpy.typing import NDArray

from .brief import Brief
from .shown import Shown
from .summaries import DataSummary, ModelSummary

FATES = ("consensus", "clusters", "cycle", "moving", "diverged")
"""In the order of `jaxsmooth.theory.Fate`."""

SENTENCE_NUMBERS = (
    *("steps", "period", "distance_start", "distance", "change", "growth", "effective_rank", "rank"),
    *("rest_rate", "radius", "radius_residual", "consensus_rate", "consensus_radius", "consensus_residual"),
    *("row_change", "basin_reached", "basin_missed"),
)
"""Numbers of each sentence; NaN where there is none. See `MapFates`."""


@dataclasses.dataclass(frozen=True, repr=False)
class MapFates(Brief):
    """One map, applied again and again to every sentence.

    Attributes:
      layer: which block, from 1; 0 for the stack of all.
      fate: one of `FATES` for each sentence.
      clusters: of each sentence the groups of tokens that have become one, largest first, each the positions of its
        tokens; one group of all tokens at consensus.
      numbers: name of `SENTENCE_NUMBERS` -> one number a sentence, [S]:
        steps after which the fate was decided, or all that were taken; period of a cycle, 1 for a fixed state;
        distance_start and distance, d_M(X) / ||X|| of the first and the last state; change, ||X_k - X_(k-1)|| /
        ||X_k|| at the last step; growth, ln ||X_k|| / ||X_0||; effective_rank and rank of JX, the tokens less their
        mean, singular values below the square root of the tolerance times the largest not counted (rank 0 at
        consensus); rest_rate, by which the change shrank per step on the way to a fixed state, and radius, the
        spectral radius of the map's Jacobian there (of a cycle: per step), below 1 where it attracts;
        consensus_rate, by which d_M shrinks per step next to the consensus reached from the sentence's last mean
        (watched), and consensus_radius, what the local law says of it, rho(M) (see `theory.local_law`; by Arnoldi),
        where the common token moves by at most 0.01 of its length per step;
        radius_residual and consensus_residual, relative residuals of the two; row_change, how much the common token
        still moves per step there; basin_reached and basin_missed, the largest s from which
        mean + s (X - mean) was seen to reach consensus and the smallest from which not.
      distances: d_M(X_k) / ||X_k|| after k steps, [S, K + 1], NaN after the decision.
    """

    layer: int
    fate: tuple[str, ...]
    clusters: tuple[tuple[tuple[int, ...], ...], ...]
    numbers: dict[str, NDArray[np.float64]]
    distances: NDArray[np.float64]

    def share(self, fate: str) -> float:
        """The share of sentences of this fate."""
        return self.fate.count(fate) / len(self.fate)


@dataclasses.dataclass(frozen=True, repr=False)
class StdSweep(Brief):
    """The same map with one std imposed on both LayerNorms of every block, for several of them.

    Attributes:
      layer: which block, from 1; 0 for the stack.
      stds: [M].
      fate: one of `FATES` for each std and sentence.
      rate: by which d_M shrinks per step next to consensus, watched, [M, S].
      paper_threshold: the least std with std^2 > (1 + s^2)(1 + sqrt(lambda) N s), after Shi et al. (2022), Theorem 2:
        s the largest norm of a weight, lambda of the attention of the model's own run on these sentences; NaN where
        blocks are not the theorem's.
      layer_threshold: the least std with which the theorem's per-layer form with gains and the activation's slope (L1)
        promises contraction of every block of the map.
    """

    layer: int
    stds: NDArray[np.float64]
    fate: tuple[tuple[str, ...], ...]
    rate: NDArray[np.float64]
    paper_threshold: float
    layer_threshold: float


@dataclasses.dataclass(frozen=True, repr=False)
class MapConvergence(Shown):
    """A model's map applied again and again to text, everything in it recomputed each time.

    Attributes:
      model: which model.
      data: which text.
      map: "attention", "attention-values", "layer" or "stack"; see docs/fate.md.
      steps: the most applications.
      tolerance: relative distance, or change, that counts as none.
      std: imposed on both LayerNorms of every block; None for their own.
      tokens: the tokens of each sentence, as the vocabulary spells them.
      maps: one for each layer, or one for the stack.
      sweeps: one for each of `maps` where several stds were imposed, else none.
      versions: package -> version, and the platform's name.
    """

    model: ModelSummary
    data: DataSummary
    map: str
    steps: int
    tolerance: float
    std: float | None
    tokens: tuple[tuple[str, ...], ...]
    maps: tuple[MapFates, ...]
    sweeps: tuple[StdSweep, ...]
    versions: dict[str, str]

    def in_short(self) -> str:
        counts = {fate: sum(one.fate.count(fate) for one in self.maps) for fate in FATES}
        shown = ", ".join(f"{fate} {count:,}" for fate, count in counts.items() if count) or "nothing followed"
        where = "the stack" if self.map == "stack" else f"{len(self.maps)} layers"
        return f"{self.map}, applied up to {self.steps} times; fates over {where} and all sentences: {shown}"
