"""Where the norms of a block stand: three ways to wrap a sub-layer f in a residual sum.

Each function takes the residual stream, the sub-layer, its norm, the norm of its output (sandwich only) and the
sum; `PLACEMENT_FUNCTIONS` is indexed by `EncoderConfig.placement`.
"""

from collections.abc import Callable

from jaxtyping import Array

Map = Callable[[Array], Array]
Sum = Callable[[Array, Array], Array]


def post_norm(stream: Array, sublayer: Map, norm: Map, out_norm: Map, add: Sum) -> Array:
    """LN(x + f(x)). Vaswani et al. (2017); BERT. With a scaled stream, DeepNorm (Wang et al. 2022, 2203.00555)."""
    return norm(add(stream, sublayer(stream)))


def pre_norm(stream: Array, sublayer: Map, norm: Map, out_norm: Map, add: Sum) -> Array:
    """x + f(LN(x)). Xiong et al. (2020), arXiv 2002.04745; GPT-2, ViT, ModernBERT."""
    return add(stream, sublayer(norm(stream)))


def sandwich_norm(stream: Array, sublayer: Map, norm: Map, out_norm: Map, add: Sum) -> Array:
    """x + LN(f(LN(x))). Ding et al. (2021), CogView, arXiv 2105.13290."""
    return add(stream, out_norm(sublayer(norm(stream))))


PLACEMENT_FUNCTIONS = {"post": post_norm, "pre": pre_norm, "sandwich": sandwich_norm}
