"""Over-smoothing of a model while it is trained, layer by layer, and how much each layer counts in a fusion."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
from jaxtyping import Array

from ..bert.encoder import embed, encode
from ..bert.fusion import GateFusion, WeightedFusion, fuse
from ..metrics import token_cosine_similarity
from ..theory import relative_distance
from ..types import Batch, BlockTrace
from .model import TaskModel
from .step import Trainer


@dataclasses.dataclass(frozen=True)
class Probe:
    """Measures over-smoothing on sentences that stay the same for the whole run.

    Attributes:
      trainer: whose remedy and shared attention act while measuring; dropout does not.
      batch: the sentences.
    """

    trainer: Trainer
    batch: Batch

    def measure(self, model: TaskModel) -> dict[str, list[float]]:
        """Mean relative distance to consensus and mean token cosine, of the embedding and after each block.

        Of a fusion by weights or gates also the importance of each layer: its mean gate over all real tokens.

        Args:
          model: the parameters at this step.

        Returns:
          "probe/relative_distance" and "probe/cosine_similarity", L + 1 numbers each; "probe/layer_importance", one for
          every fused layer in ascending order (Shi et al. 2022, figure 7).
        """
        found = _smoothness(self.trainer, model, self.batch)
        return {f"probe/{name}": [float(x) for x in values] for name, values in found.items()}


@functools.partial(jax.jit, static_argnums=0)
def _smoothness(trainer: Trainer, model: TaskModel, batch: Batch) -> dict[str, Array]:
    def numbers(hidden: Array) -> dict[str, Array]:
        return {
            "relative_distance": relative_distance(hidden, batch.mask).mean(),
            "cosine_similarity": token_cosine_similarity(hidden, batch.mask).mean(),
        }

    fused = isinstance(model.fusion, (WeightedFusion, GateFusion))

    def collect(trace: BlockTrace) -> tuple[dict[str, Array], Array | None]:
        return numbers(trace.hidden), trace.hidden if fused else None

    edits = trainer.edits(model.encoder, batch)
    _, (layers, stacked) = encode(model.encoder, batch, edits=edits, collect=collect)
    first = numbers(embed(model.encoder, batch))
    found = {name: jnp.concatenate([first[name][None], layers[name]]) for name in first}
    if model.fusion is None or stacked is None:
        return found
    _, weights = fuse(model.fusion, stacked)
    assert weights is not None  # these two kinds of fusion have them
    return found | {"layer_importance": jnp.mean(weights, axis=(1, 2), where=batch.mask[None])}
