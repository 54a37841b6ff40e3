"""Attention by one kernel of the device, which never holds the probabilities, where nobody reads or edits them."""

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp
from jax.extend.backend import get_backend
from jax.sharding import Mesh, PartitionSpec
from jaxtyping import Array, Bool, Float, Int

from ..errors import ShapeError
from ..types import BlockTrace, Edits, named_leaves
from .config import EncoderConfig
from .positions import is_local

PROBABILITIES = ("attn_logits", "attn_probs", "attn")
"""The sites that a kernel passes over."""
LANES = 128
"""Splash attention takes sentences of multiples of so many tokens; shorter ones are filled up."""
BLOCK = 512
"""The most queries, and keys, that splash attention works on at once."""

Attend = Callable[[Int[Array, ""], Array, Array, Array], Array]


@dataclasses.dataclass(frozen=True)
class Kernel:
    """Which kernel computes the context of attention, and where its arguments lie.

    Attributes:
      name: "cudnn", flash attention of cuDNN on NVIDIA's GPUs; "splash", jax's Pallas kernel for TPUs; "xla", the
        same function as "cudnn" in plain jax, on any device.
      required: whether what no kernel can do is refused, and not computed explicitly.
      mesh: the devices over which "splash" is cut; the compiler cuts the others by itself. None: one device.
      rows: axes of the mesh that cut sentences.
      heads: axes of the mesh that cut heads.
      interpret: run "splash" on a CPU, step by step: for tests.

    References: Dao (2023), FlashAttention-2, arXiv 2307.08691; `jax.nn.dot_product_attention`;
      `jax.experimental.pallas.ops.tpu.splash_attention`.
    """

    name: Literal["cudnn", "splash", "xla"]
    required: bool = False
    mesh: Mesh | None = None
    rows: tuple[str, ...] = ()
    heads: tuple[str, ...] = ()
    interpret: bool = False


def find_kernel(attention: str | Kernel, platform: str = "") -> Kernel | None:
    """The kernel that a setting stands for; None for explicit attention.

    Args:
      attention: "explicit"; "auto", the kernel of an accelerator where one can be used, explicit on a CPU; "fused", the
        same but required, on a CPU "xla"; or a `Kernel`.
      platform: "cpu", "cuda", "tpu" or another; "" for that of jax's default device.

    Raises:
      ShapeError: another setting.

    >>> find_kernel("explicit"), find_kernel("auto", "cpu"), find_kernel("auto", "tpu").name
    (None, None, 'splash')
    """
    if isinstance(attention, Kernel):
        return attention
    if not isinstance(attention, str) or attention not in ("explicit", "auto", "fused"):
        raise ShapeError(f"attention must be 'explicit', 'auto', 'fused' or a Kernel; got {attention!r}.")
    if attention == "explicit":
        return None
    required = attention == "fused"
    kernels: dict[str, Any] = {"tpu": "splash", "cuda": "cudnn"}
    kernel = kernels.get(platform or _platform(), "xla" if required else "")
    return Kernel(kernel, required=required) if kernel else None


def _platform() -> str:
    backend = get_backend()
    return "cuda" if "cuda" in backend.platform_version else backend.platform


def why_explicit(kernel: Kernel, config: EncoderConfig, edits: Edits, dtype: Any) -> str:
    """Why the kernel cannot compute an encoder's attention, whatever is collected; "" if it can.

    Args:
      kernel: which.
      config: the encoder's.
      edits: as given to `encode`.
      dtype: of queries, keys and values.

    >>> why_explicit(Kernel("cudnn"), EncoderConfig(), Edits(), jnp.float32)
    'kernels multiply in bfloat16 or float16, not with all digits of float32'
    """
    edited = [site for site in PROBABILITIES if getattr(edits, site, None) is not None]
    width, narrow = config.head_width, jnp.finfo(dtype).bits == 16
    reasons = {
        f"the edit of {', '.join(edited)} acts on what a kernel does not hold": bool(edited),
        "blocks that share attention need its probabilities": edits.shared_attn is not None,
        "a learned bias of relative positions is added to the logits": config.relative_buckets > 0,
    }
    if kernel.name != "xla" and not kernel.interpret:
        reasons[f"kernels multiply in bfloat16 or float16, not with all digits of {jnp.dtype(dtype).name}"] = not narrow
    if kernel.name == "splash" and not kernel.interpret:
        reasons["splash attention does not compile while jax_enable_x64 is on"] = jax.config.read("jax_enable_x64")
    if kernel.name == "cudnn":
        reasons |= {
            f"cuDNN takes heads whose width is a multiple of 8 up to 128, not {width}": width % 8 > 0 or width > 128,
            "cuDNN has no window to both sides": config.window > 0,
        }
    return next((reason for reason, holds in reasons.items() if holds), "")


def sites_read(collect: Callable[[BlockTrace], Any], trace: BlockTrace) -> set[str]:
    """The values of a trace that a `collect` makes anything of.

    Args:
      collect: as given to `encode`.
      trace: of one block, or its shapes.

    Returns:
      Names of fields.

    >>> value = jnp.ones(2)
    >>> trace = BlockTrace(*[value] * 18)
    >>> sites_read(lambda trace: trace.attn.sum() + trace.std_mlp.shape[0], trace)
    {'attn'}
    """
    program = jax.make_jaxpr(collect)(trace).jaxpr
    live = {id(var) for var in program.outvars}
    for equation in reversed(program.eqns):
        if equation.effects or any(id(var) in live for var in equation.outvars):
            live |= {id(var) for var in equation.invars}
    names = named_leaves(trace)
    return {name.split(".")[0] for name, var in zip(names, program.invars, strict=True) if id(var) in live}


def make_attend(kernel: Kernel, config: EncoderConfig, mask: Bool[Array, "B T"]) -> Attend:
    """The kernel as a function (layer, query, key, value) -> context, all [B N T H].

    Args:
      kernel: which.
      config: the encoder's: causal, windows.
      mask: True on real tokens, [B T].

    Returns:
      A function whose values at padded tokens mean nothing; where the query is real it is the explicit one.
    """

    def attend(layer: Array, query: Array, key: Array, value: Array) -> Array:
        def over(window: int) -> Callable[..., Array]:
            if kernel.name == "splash":
                return functools.partial(_splash, kernel, config.causal, window)
            return functools.partial(_dot_product, kernel.name, config.causal, window)

        arguments = query, key, value, mask
        if config.window and config.global_every:
            return jax.lax.cond(is_local(config, layer), over(config.window), over(0), *arguments)
        return over(config.window)(*arguments)

    return attend


def _dot_product(
    name: str, causal: bool, window: int, query: Array, key: Array, value: Array, mask: Array
) -> Float[Array, "B N T H"]:
    """`jax.nn.dot_product_attention`, padding by the number of real keys, which therefore come first."""
    turned = [heads.transpose(0, 2, 1, 3) for heads in (query, key, value)]
    options: dict[str, Any] = {"implementation": name, "is_causal": causal}
    attend: Callable[..., Array] = functools.partial(jax.nn.dot_product_attention, **options)
    if window:
        found = attend(*turned, mask=mask[:, None, None, :], local_window_size=(window, window))
        return found.transpose(0, 2, 1, 3)
    order = jnp.argsort(~mask, axis=1, stable=True)
    # What a query sees does not depend on the order of the keys, unless it is causal: then its own place counts.
    query, key, value = (_rows(heads, order) if causal or k else heads for k, heads in enumerate(turned))
    count = mask.sum(axis=1, dtype=jnp.int32)
    count = jnp.where(count, count, mask.shape[1])  # of a sentence without a real token all, not none: no NaN
    found = attend(query, key, value, key_value_seq_lengths=count)
    return (_rows(found, jnp.argsort(order, axis=1)) if causal else found).transpose(0, 2, 1, 3)


def _rows(heads: Float[Array, "B T N H"], order: Int[Array, "B T"]) -> Float[Array, "B T N H"]:
    sentences = jnp.arange(heads.shape[0])[:, None]
    return heads.at[sentences, order].get(unique_indices=True, mode="promise_in_bounds")


def _splash(
    kernel: Kernel, causal: bool, window: int, query: Array, key: Array, value: Array, mask: Array
) -> Float[Array, "B N T H"]:
    """Splash attention, on every device of the mesh over its own sentences and heads."""
    run = functools.partial(_splash_on_one, kernel.interpret, causal, window)
    if kernel.mesh is None:
        return run(query, key, value, mask)
    heads = PartitionSpec(
        _dividing(kernel.mesh, kernel.rows, query.shape[0]), _dividing(kernel.mesh, kernel.heads, query.shape[1])
    )
    cut: dict[str, Any] = {"in_specs": (heads, heads, heads, PartitionSpec(heads[0])), "out_specs": heads}
    return jax.shard_map(run, mesh=kernel.mesh, check_vma=False, **cut)(query, key, value, mask)


def _dividing(mesh: Mesh, axes: tuple[str, ...], size: int) -> tuple[str, ...] | None:
    return axes if axes and size % math.prod(mesh.shape[axis] for axis in axes) == 0 else None


def _splash_on_one(
    interpret: bool, causal: bool, window: int, query: Array, key: Array, value: Array, mask: Array
) -> Float[Array, "B N T H"]:
    from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_kernel as splash

    _, heads, length, width = query.shape
    extra = -length % (BLOCK if length > BLOCK else LANES)
    query, key, value = (jnp.pad(x, ((0, 0), (0, 0), (0, extra), (0, 0))) for x in (query, key, value))
    real = jnp.pad(mask, ((0, 0), (0, extra))).astype(jnp.int32)
    kernel = splash.make_splash_mha(
        mask=_static_mask(length + extra, causal, window, heads),
        block_sizes=_blocks(min(BLOCK, length + extra)),
        head_shards=1,
        q_seq_shards=1,
        interpret=interpret,
    )
    # Queries and keys see each other within a segment; every query is of that of the real keys.
    segments = splash.SegmentIds(q=jnp.ones_like(real), kv=real)
    query = (query.astype(jnp.float32) / math.sqrt(width)).astype(query.dtype)
    return jax.vmap(kernel)(query, key, value, segments)[:, :, :length]


def _blocks(size: int) -> Any:
    from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_kernel as splash

    names = ("q", "kv", "kv_compute", "q_dkv", "kv_dkv", "kv_dkv_compute", "q_dq", "kv_dq")
    sizes: dict[str, Any] = {f"block_{name}": size for name in names}
    return splash.BlockSizes(**sizes)


def _static_mask(length: int, causal: bool, window: int, heads: int) -> Any:
    from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_mask as masks

    shape = length, length
    if window:
        one: Any = masks.LocalMask(shape, (window, 0 if causal else window), 0)
    else:
        one = masks.CausalMask(shape) if causal else masks.FullMask(shape)
    return masks.MultiHeadMask([one] * heads)
