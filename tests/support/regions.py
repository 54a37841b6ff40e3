"""Small random blocks in numpy, written from the definitions, and inputs scattered around an observed one."""

import dataclasses

import numpy as np
import scipy.special

from support.matrices import FAMILIES, Array, lengths_mask, normalised, pad_attention

TOKENS, WIDTH, HIDDEN, HEADS, SENTENCES = 4, 6, 5, 2, 4
PHI = {
    "gelu": lambda x: 0.5 * x * (1 + scipy.special.erf(x / np.sqrt(2))),
    "gelu_tanh": lambda x: 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3))),
    "relu": lambda x: np.maximum(x, 0),
    "silu": lambda x: x * scipy.special.expit(x),
}


@dataclasses.dataclass(frozen=True)
class SmallBlock:
    """Parameters named as in `block_of`."""

    value: Array
    output: Array
    scale_attn: Array
    up: Array
    down: Array
    scale_mlp: Array
    biases: tuple[Array, Array, Array, Array]
    eps: float
    activation: str

    @property
    def weights(self) -> tuple[Array, ...]:
        return self.value, self.output, self.scale_attn, self.up, self.down, self.scale_mlp

    def run(self, attn: Array, x: Array) -> dict[str, Array]:
        """The block on one batch, attention given: attn [B N T T], x [B T D]."""
        b_attn, b_norm, b_up, b_down = self.biases
        mixed = np.einsum("bnts,bsd,dnh,nhe->bte", attn, x, self.value, self.output, optimize=True)
        y, std_attn = normalised(x + mixed + b_attn, self.eps)
        y = y * self.scale_attn + b_norm
        pre = y @ self.up + b_up
        z, std_mlp = normalised(y + PHI[self.activation](pre) @ self.down + b_down, self.eps)
        return {"normed": y, "pre": pre, "std_attn": std_attn, "std_mlp": std_mlp, "less_shift": z * self.scale_mlp}


def small_block(rng: np.random.Generator, activation: str) -> SmallBlock:
    """Scales over two decades, gains of both signs, some zero, biases of any size."""
    scale = 10 ** rng.uniform(-1, 0.7, 9)
    return SmallBlock(
        value=scale[0] * rng.standard_normal((WIDTH, HEADS, 3)),
        output=rng.standard_normal((HEADS, 3, WIDTH)),
        scale_attn=rng.standard_normal(WIDTH) * (rng.uniform(size=WIDTH) < 0.9),
        up=scale[1] * rng.standard_normal((WIDTH, HIDDEN)),
        down=scale[2] * rng.standard_normal((HIDDEN, WIDTH)),
        scale_mlp=rng.standard_normal(WIDTH) * (rng.uniform(size=WIDTH) < 0.9),
        biases=tuple(scale[3 + k] * rng.standard_normal(size) for k, size in enumerate((WIDTH, WIDTH, HIDDEN, WIDTH))),
        eps=float(rng.choice([1e-12, 1e-5, 1e-1])),
        activation=activation,
    )


def small_attention(rng: np.random.Generator) -> tuple[Array, Array]:
    """Attention of every family, padded, [B N T T], and the mask, [B T]."""
    lengths = [TOKENS, 2, *rng.integers(2, TOKENS + 1, SENTENCES - 2)]
    names = list(FAMILIES)
    attn = [
        [pad_attention(rng, FAMILIES[names[rng.integers(len(names))]](rng, n), TOKENS) for _ in range(HEADS)]
        for n in lengths
    ]
    return np.array(attn), lengths_mask(lengths, TOKENS)
