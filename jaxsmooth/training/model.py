"""What is trained: an encoder, a way to fuse its layers, and a head, as one pytree with one forward function."""

from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int, PRNGKeyArray

from ..bert.encoder import encode, keep_nothing
from ..bert.fusion import Fusion, fuse
from ..bert.heads import POOLED, Head, apply_head, init_head, with_pooler
from ..bert.kernels import Kernel
from ..bert.params import Encoder
from ..types import Batch, Block, BlockTrace, Edits
from .data.tasks import Task
from .dropout import drop


@nnx.dataclass
class TaskModel(nnx.Pytree):
    """Encoder, head and the fusion's parameters (None: the head reads the last layer)."""

    encoder: Encoder = nnx.data()
    head: Head = nnx.data()
    fusion: Fusion | None = nnx.data(default=None)


def init_task_model(encoder: Encoder, task: Task, key: PRNGKeyArray, *, fusion: Fusion | None = None) -> TaskModel:
    """The encoder with a fresh head for a task; a pooler is drawn where a sentence-level head needs one.

    Args:
      encoder: pretrained or fresh.
      task: says which head, and of how many outputs.
      key: a `jax.random.key`.
      fusion: of the layers' outputs; None for none.

    Returns:
      The model, its head in the dtype of the encoder.
    """
    head_key, pooler_key = jax.random.split(key)
    dtype = jax.tree.leaves(encoder)[0].dtype
    head = init_head(encoder.config, task.kind, head_key, labels=max(1, task.outputs), dtype=dtype)
    if task.kind in POOLED and head.reads == "pooler":
        encoder = with_pooler(encoder, pooler_key)
    return TaskModel(encoder=encoder, head=head, fusion=fusion)


def keep_hidden(trace: BlockTrace) -> Array:
    """A `collect` for `encode` that keeps the block outputs, for fusion."""
    return trace.hidden


def task_logits(
    model: TaskModel,
    batch: Batch,
    *,
    edits: Edits = Edits(),
    choices: int = 1,
    places: Int[Array, "B K"] | None = None,
    remat: Callable[..., bool] | bool = False,
    key: PRNGKeyArray | None = None,
    head_dropout: float = 0.0,
    attention: Literal["explicit"] | Kernel = "explicit",
    place: Callable[[Block], Block] | None = None,
    unroll: bool = False,
) -> Float[Array, "..."]:
    """From tokens to logits, in the dtype of the parameters.

    Args:
      model: encoder, fusion and head.
      batch: [B T], or [B*C T] for multiple choice.
      edits: dropout, a remedy, both.
      choices: C of multiple choice.
      places: tokens of each row that the head reads, in place of all; for language heads, whose logits are wide.
      remat: as in `encode`.
      key: of the head's dropout; None for none.
      head_dropout: rate of the dropout between pooler and output, as in BertForSequenceClassification.
      attention, place, unroll: as in `encode`.

    Returns:
      As `bert.heads.apply_head`, of `places` if they are given.
    """
    collect = keep_nothing if model.fusion is None else keep_hidden
    options: dict[str, Any] = {"remat": remat, "attention": attention, "place": place, "unroll": unroll}
    hidden, stacked = encode(model.encoder, batch, edits=edits, collect=collect, **options)
    if model.fusion is not None:
        hidden, _ = fuse(model.fusion, stacked)

    if places is not None:
        hidden = jnp.take_along_axis(hidden, places[:, :, None], axis=1)

    def dropped(features: Array) -> Array:
        return features if key is None or not head_dropout else drop(key, head_dropout, features)

    return apply_head(model.head, model.encoder, hidden, batch.mask, choices=choices, drop=dropped)


def cast_floats(tree: Any, dtype: Any) -> Any:
    """The tree with its floating arrays in another dtype.

    Args:
      tree: any pytree of arrays.
      dtype: of the floating arrays; the others keep theirs.
    """
    return jax.tree.map(lambda leaf: leaf.astype(dtype) if jnp.issubdtype(leaf.dtype, jnp.floating) else leaf, tree)
