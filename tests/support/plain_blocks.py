"""A post-LN encoder's blocks in numpy and scipy, written apart from the library's: what certificates are tested on."""

import dataclasses
from collections.abc import Callable
from types import ModuleType

import jax
import jax.numpy as jnp
import numpy as np
from scipy.special import erf, softmax


@dataclasses.dataclass(frozen=True)
class Plain:
    """The real map, in numpy and scipy: blocks applied in turn to sentences [B T D] without padding."""

    blocks: list[dict[str, np.ndarray]]
    eps: float
    std: float | None
    xp: ModuleType = np
    erf: Callable = erf
    softmax: Callable = softmax

    def compiled(self) -> Callable[[jax.Array], jax.Array]:
        """`once` under jax.jit, for many starts; to be made and called in double precision."""
        whole = [{key: jnp.asarray(value) for key, value in w.items()} for w in self.blocks]
        jitted = dataclasses.replace(self, blocks=whole, xp=jnp, erf=jax.scipy.special.erf, softmax=jax.nn.softmax)
        return jax.jit(jitted.once)

    @staticmethod
    def of(model, layer: int | None, std: float | None) -> "Plain":
        def leaf(array) -> np.ndarray:
            return np.asarray(array, np.float64)

        b = model.blocks
        names = {"q": b.attn.query, "k": b.attn.key, "v": b.attn.value, "o": b.attn.output, "up": b.up, "down": b.down}
        whole = {
            f"{name}{part}": leaf(getattr(map_, part)) for name, map_ in names.items() for part in ("kernel", "bias")
        }
        for name, norm in (("n1", b.norm_attn), ("n2", b.norm_mlp)):
            whole[f"{name}scale"], whole[f"{name}bias"] = leaf(norm.scale), leaf(norm.bias)
        places = range(model.config.layers) if layer is None else [layer - 1]
        return Plain([{key: value[k] for key, value in whole.items()} for k in places], model.config.eps, std)

    def norm(self, u: np.ndarray, scale: np.ndarray, bias: np.ndarray) -> np.ndarray:
        centred = u - u.mean(axis=-1, keepdims=True)
        std = self.xp.sqrt((centred**2).mean(axis=-1, keepdims=True) + self.eps) if self.std is None else self.std
        return centred / std * scale + bias

    def block(self, w: dict[str, np.ndarray], x: np.ndarray) -> np.ndarray:
        shape = (len(x), x.shape[1], *w["qkernel"].shape[1:])
        width = x.shape[-1]
        q, k, v = (
            (x @ w[f"{s}kernel"].reshape(width, -1)).reshape(shape).swapaxes(1, 2) + w[f"{s}bias"][:, None]
            for s in "qkv"
        )
        attn = self.softmax(q @ k.swapaxes(2, 3) / shape[-1] ** 0.5, axis=-1)
        mixed = (attn @ v).swapaxes(1, 2).reshape(*x.shape[:2], -1) @ w["okernel"].reshape(-1, width) + w["obias"]
        y = self.norm(x + mixed, w["n1scale"], w["n1bias"])
        pre = y @ w["upkernel"] + w["upbias"]
        z = y + (0.5 * pre * (1 + self.erf(pre / 2**0.5))) @ w["downkernel"] + w["downbias"]
        return self.norm(z, w["n2scale"], w["n2bias"])

    def once(self, x: np.ndarray) -> np.ndarray:
        """One pass."""
        for w in self.blocks:
            x = self.block(w, x)
        return x
