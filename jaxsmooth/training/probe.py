"""Over-smoothing of a model while it is trained, layer by layer."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
from jaxtyping import Array

from ..bert.encoder import embed, encode
from ..metrics import token_cosine_similarity
from ..theory import relative_distance
from ..types import Batch, BlockTrace
from .model import TaskModel
from .step import Trainer


@dataclasses.dataclass(frozen=True)
class Probe:
    """Measures over-smoothing on sentences that stay the same for the whole run.

    Attributes:
      trainer: whose remedy acts while measuring; dropout does not.
      batch: the sentences.
    """

    trainer: Trainer
    batch: Batch

    def measure(self, model: TaskModel) -> dict[str, list[float]]:
        """Mean relative distance to consensus and mean token cosine, of the embedding and after each block.

        Args:
          model: the parameters at this step.

        Returns:
          "probe/relative_distance" and "probe/cosine_similarity", L + 1 numbers each.
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

    def collect(trace: BlockTrace) -> dict[str, Array]:
        return numbers(trace.hidden)

    edits = trainer.remedy(model.encoder, batch) if trainer.remedy else None
    options = {} if edits is None else {"edits": edits}
    _, layers = encode(model.encoder, batch, collect=collect, **options)
    first = numbers(embed(model.encoder, batch))
    return {name: jnp.concatenate([first[name][None], layers[name]]) for name in first}
