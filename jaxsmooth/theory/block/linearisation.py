"""The exact law of a post-LN block next to consensus: which deviations grow, which shrink.

At X = 1 x^T every query sees equal tokens, so attention is whatever the mask makes of equal logits, and a change of
the logits moves nothing. To first order J block(X) = J (X + sum_h A_0 X W_h) M, with A_0 uniform over the keys that
each query may see. With one mask for all queries J A_0 = 0: attention drops out, and collapse is stable or not by the
two stds and the MLP's Jacobian alone. With a causal mask A_0 is the uniform-prefix matrix, whose eigenvalues
are 1, 1/2, ..., 1/n.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from ...linalg.gelfand import log_spectral_radius, unit_norm
from ...linalg.norms import norm
from ...linalg.precision import at_least_float32, einsum, matmul
from ...linalg.rows import centre_features, row_std
from ...types import Block, LayerNorm
from ..consensus import centre_tokens
from ..theorems.parameters import bias_of, heads_of


class LocalLaw(NamedTuple):
    """What one block does at and next to consensus.

    Attributes:
      row: the common token after the block, [D].
      matrix: M, by which a deviation from the mean is multiplied from the right, [D D].
      mixer: sum_h W_h, through which a mask that differs between queries acts, [D D].
      std_attn: the std at the attention LayerNorm, of all tokens.
      std_mlp: likewise at the MLP LayerNorm.
    """

    row: Float[Array, "*L D"]
    matrix: Float[Array, "*L D D"]
    mixer: Float[Array, "*L D D"]
    std_attn: Float[Array, "*L"]
    std_mlp: Float[Array, "*L"]


@at_least_float32
def local_law(block: Block, row: Float[Array, " D"], activation: Callable[[Array], Array], eps: float) -> LocalLaw:
    """M at the collapsed state X = 1 x^T, exact: J block(X + E) = J (E + sum_h A_0 E W_h) M + O(||E||^2).

    M = (1/s_1)(C - u u^T / (d s_1^2)) Gamma_1 (I + W_1 diag(phi') W_2) (1/s_2)(C - w w^T / (d s_2^2)) Gamma_2, with
    u = C x^+ and x^+ = x + sum_h x W_h + b the row before the first LayerNorm, w = C z and z the one before the second.

    Args:
      block: the parameters, unstacked.
      row: x, [D].
      activation: phi, elementwise.
      eps: LayerNorm's epsilon.

    Returns:
      A `LocalLaw`, unstacked.

    >>> import jax.numpy as jnp
    >>> eye, one = jnp.eye(3), jnp.ones(3)
    >>> from jaxsmooth.theory import block_of
    >>> mlp_off = block_of(0 * eye[:, None], eye[None], one, 0 * eye, eye, one)
    >>> law = local_law(mlp_off, jnp.array([2.0, -2.0, 0.0]), jax.nn.relu, 0.0)
    >>> deviation = jnp.array([1.0, 1.0, -2.0])  # across x: divided by the std, 1.633
    >>> (deviation @ law.matrix).round(4)
    Array([ 0.6124,  0.6124, -1.2247], dtype=float32)

    References: docs/lemmas.md.
    """
    attn, output = block.attn, block.attn.output.kernel
    mixer = einsum("dnh,nhe->de", attn.value.kernel, output)
    bias = einsum("nh,nhd->d", bias_of(heads_of(attn).value)[:, 0], output) + bias_of(attn.output)
    normed, first, std_attn = _norm_row(row + matmul(row, mixer) + bias, block.norm_attn, eps)
    argument = matmul(normed, block.up.kernel) + bias_of(block.up)
    wide, slopes = jax.jvp(activation, (argument,), (jnp.ones_like(argument),))
    summed = normed + matmul(wide, block.down.kernel) + bias_of(block.down)
    after, second, std_mlp = _norm_row(summed, block.norm_mlp, eps)
    mlp = jnp.eye(row.size, dtype=row.dtype) + matmul(block.up.kernel * slopes[None], block.down.kernel)
    return LocalLaw(after, matmul(matmul(first, mlp), second), mixer, std_attn, std_mlp)


@at_least_float32
def local_laws(blocks: Block, row: Float[Array, " D"], activation: Callable[[Array], Array], eps: float) -> LocalLaw:
    """`local_law` of every block of an encoder along the path of a collapsed sentence.

    Args:
      blocks: the parameters, stacked on a leading axis L.
      row: the common token that enters the first block, [D].
      activation: phi, elementwise.
      eps: LayerNorm's epsilon.

    Returns:
      A `LocalLaw`, stacked.

    >>> import jax.numpy as jnp
    >>> eye, one = jnp.eye(3), jnp.ones(3)
    >>> from jaxsmooth.theory import block_of
    >>> block = block_of(0 * eye[:, None], eye[None], one, 0 * eye, eye, one)
    >>> two = jax.tree.map(lambda leaf: jnp.stack([leaf, leaf]), block)
    >>> local_laws(two, jnp.arange(3.0), jax.nn.relu, 0.0).row.shape
    (2, 3)
    """

    def step(row: Array, block: Block) -> tuple[Array, LocalLaw]:
        law = local_law(block, row, activation, eps)
        return law.row, law

    return jax.lax.scan(step, row, blocks)[1]


@at_least_float32
def local_step(
    deviation: Float[Array, "T D"], law: LocalLaw, allowed: Bool[Array, "T S"], mask: Bool[Array, " T"]
) -> Float[Array, "T D"]:
    """J (E + sum_h A_0 E W_h) M: the deviation after the block, to first order.

    Args:
      deviation: E, small next to the row at which the law was taken, [T, D].
      law: of one block.
      allowed: which keys each query may see, [T, S]; for one mask for all queries, all True.
      mask: True on real tokens, [T].

    Returns:
      [T, D], zero on padding.

    >>> import jax.numpy as jnp
    >>> eye = jnp.eye(1)
    >>> law = LocalLaw(jnp.zeros(1), 2 * eye, eye, jnp.array(1.0), jnp.array(1.0))
    >>> e, real = jnp.array([[1.0], [-1.0]]), jnp.ones(2, bool)
    >>> full, causal = jnp.ones((2, 2), bool), jnp.tri(2, dtype=bool)
    >>> local_step(e, law, full, real).ravel(), local_step(e, law, causal, real).ravel()
    (Array([ 2., -2.], dtype=float32), Array([ 3., -3.], dtype=float32))
    """
    seen = (allowed & mask[None]).astype(deviation.dtype)
    uniform = seen / jnp.maximum(jnp.sum(seen, axis=-1, keepdims=True), 1)
    return matmul(centre_tokens(deviation + matmul(matmul(uniform, deviation), law.mixer), mask), law.matrix)


@at_least_float32
def local_exponent(laws: LocalLaw, eigenvalue: Float[Array, ""]) -> Float[Array, ""]:
    """Lyapunov exponent per layer, (1/L) log rho(prod_l (I + mu W_l) M_l), of the blocks repeated for ever.

    Deviations along the eigenvalue mu of A_0 on the quotient by consensus follow this product. mu = 0 for one mask
    for all queries, mu = 1/2, ..., 1/n for a causal one. Consensus attracts if every exponent is negative.

    Args:
      laws: of all layers, stacked.
      eigenvalue: mu.

    Returns:
      A scalar; -inf for a nilpotent product.

    >>> import jax.numpy as jnp
    >>> eye = jnp.eye(2)[None]
    >>> laws = LocalLaw(jnp.zeros((1, 2)), 0.5 * eye, eye, jnp.ones(1), jnp.ones(1))
    >>> [round(float(jnp.exp(local_exponent(laws, jnp.array(mu)))), 4) for mu in (0.0, 0.5)]
    [0.5, 0.75]
    """
    product, size = _product(laws, eigenvalue)
    return (size + log_spectral_radius(product)) / laws.matrix.shape[0]


@at_least_float32
def local_growth(laws: LocalLaw, eigenvalue: Float[Array, ""]) -> Float[Array, ""]:
    """log ||prod_l (I + mu W_l) M_l||_F: no deviation grows by more in one pass through the encoder.

    Unlike the exponent it includes the transient growth of non-normal products. Arguments as `local_exponent`.

    >>> import jax.numpy as jnp
    >>> laws = LocalLaw(jnp.zeros((1, 1)), jnp.full((1, 1, 1), 0.5), jnp.ones((1, 1, 1)), jnp.ones(1), jnp.ones(1))
    >>> round(float(jnp.exp(local_growth(laws, jnp.array(0.0)))), 4)
    0.5
    """
    product, size = _product(laws, eigenvalue)
    return size + jnp.log(norm(product, (-2, -1)))


def _product(laws: LocalLaw, eigenvalue: Array) -> tuple[Array, Array]:
    """prod_l (I + mu W_l) M_l as a matrix of norm 1 and the logarithm of its norm."""
    eye = jnp.eye(laws.matrix.shape[-1], dtype=laws.matrix.dtype)

    def step(state: tuple[Array, Array], law: tuple[Array, Array]) -> tuple[tuple[Array, Array], None]:
        product, log = state
        matrix, mixer = law
        product, size = unit_norm(matmul(matmul(product, eye + eigenvalue * mixer), matrix))
        return (product, log + size), None

    return jax.lax.scan(step, (eye, jnp.zeros((), eye.dtype)), (laws.matrix, laws.mixer))[0]


def _norm_row(row: Array, norm: LayerNorm, eps: float) -> tuple[Array, Array, Array]:
    """LayerNorm of one row, its Jacobian (to be multiplied from the right of a row), and the std."""
    width = row.size
    u = centre_features(row)
    std = row_std(u, eps)[0]
    centring = jnp.eye(width, dtype=row.dtype) - 1 / width
    jacobian = (centring - jnp.outer(u, u) / (width * std**2)) / std * norm.scale[None]
    return u / std * norm.scale + bias_of(norm), jacobian, std
