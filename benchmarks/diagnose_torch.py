"""The peer of benchmarks/diagnose.py: the numbers of `jaxsmooth diagnose`, by torch eager and batched torch algebra.

What a competent user of transformers would write: BertModel with eager attention, `output_attentions` and
`output_hidden_states`, hooks on the LayerNorm inputs, padded batches of sentences of similar length, and whichever
of torch's routines was faster on these sizes (float64 Gram matrices and `eigvalsh` instead of `svdvals`). L3 has two
solvers: batched power iteration, the usual choice (one scipy Lanczos per sentence and layer is slower still), and a
hand-written batched Lanczos, the strongest that torch allows. It knows the erf GELU only.
"""

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from transformers import AutoTokenizer, BertModel

SLOPE = 1.1289041451851548  # largest slope of the erf GELU
POWER_STEPS, LANCZOS_STEPS, TOLERANCE = 300, 60, 1e-5  # each solver stops at that relative change


@dataclasses.dataclass
class Block:
    """The constants of one block: kernels in [in, out] layout, norms, gains."""

    value: Tensor
    output: Tensor
    head_norms: Tensor
    concatenated: Tensor
    stacked: Tensor
    lipschitz: Tensor  # 1 + L |W1| |W2|
    mlp: Tensor
    gains: Tensor
    top: Tensor  # the block's largest weight norm
    gain: Tensor  # of the second LayerNorm


def norm(matrix: Tensor) -> Tensor:
    return torch.linalg.matrix_norm(matrix, ord=2)


def block_constants(layer: torch.nn.Module, heads: int) -> Block:
    value, output = layer.attention.self.value.weight.T, layer.attention.output.dense.weight.T
    w1, w2 = layer.intermediate.dense.weight.T, layer.output.dense.weight.T
    d = len(value)
    kernels = torch.stack([v @ o for v, o in zip(value.chunk(heads, 1), output.chunk(heads, 0), strict=True)])
    head_norms, norm1, norm2 = norm(kernels), norm(w1), norm(w2)
    gain1, gain2 = (m.LayerNorm.weight for m in (layer.attention.output, layer.output))
    centre = torch.eye(d) - 1.0 / d
    linear = norm(gain1[:, None] * (torch.eye(d) + 0.5 * w1 @ w2) @ centre)
    mean_value = linear + (SLOPE - 0.5) * norm(gain1[:, None] * w1) * norm(w2 @ centre)
    lipschitz = 1.0 + SLOPE * norm1 * norm2
    return Block(
        value=value,
        output=output,
        head_norms=head_norms,
        concatenated=norm(value) * norm(output),
        stacked=norm((kernels @ kernels.mT).sum(0)),
        lipschitz=lipschitz,
        mlp=torch.minimum(mean_value, gain1.abs().max() * lipschitz),
        gains=gain1.abs().max() * gain2.abs().max(),
        top=torch.stack([head_norms.max(), norm1, norm2]).max(),
        gain=gain2.abs().max(),
    )


class Peer:
    """Loads the model once; `diagnose(texts)` measures."""

    def __init__(self, directory: Path, batch_size: int, solver: str):
        self.tokenizer = AutoTokenizer.from_pretrained(directory)
        self.model = BertModel.from_pretrained(directory, attn_implementation="eager", add_pooling_layer=False).eval()
        self.batch_size, self.solver = batch_size, solver
        self.caught: list[Tensor] = []
        for layer in self.model.encoder.layer:
            for norm_layer in (layer.attention.output.LayerNorm, layer.output.LayerNorm):
                norm_layer.register_forward_pre_hook(lambda module, args: self.caught.append(args[0]))

    @torch.no_grad()
    def diagnose(self, texts: list[str]) -> dict[str, dict[str, np.ndarray]]:
        """name -> {"mean", "min", "max"} over sentences."""
        heads = self.model.config.num_attention_heads
        blocks = [block_constants(layer, heads) for layer in self.model.encoder.layer]
        encoded = self.tokenizer(texts, truncation=True)
        order = np.argsort([len(ids) for ids in encoded["input_ids"]])
        parts = []
        for start in range(0, len(order), self.batch_size):
            rows = order[start : start + self.batch_size]
            batch = self.tokenizer.pad({k: [v[i] for i in rows] for k, v in encoded.items()}, return_tensors="pt")
            parts.append(self.measure(blocks, batch))
        joined = {name: torch.cat([part[name] for part in parts]).numpy() for name in parts[0]}
        return {name: summarise(joined, name) for name in joined if not name.endswith(("_least", "_most"))}

    def measure(self, blocks: list[Block], batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """Every per-sentence quantity of one padded batch, [B K] or [B L N]."""
        self.caught.clear()
        out = self.model(**batch, output_attentions=True, output_hidden_states=True)
        mask = batch["attention_mask"].bool()
        hidden = [hidden_numbers(x, mask) for x in out.hidden_states]
        heads = [attention_numbers(a, mask) for a in out.attentions]
        rates = torch.stack([h["mixing_rate"] for h in heads])
        top_rate, top_norm = rates.amax((0, 2)), torch.stack([b.top for b in blocks]).max()
        rows = []
        for k, block in enumerate(blocks):
            before, after = hidden[k]["subspace_distance"], hidden[k + 1]["subspace_distance"]
            u, z = self.caught[2 * k : 2 * k + 2]
            rungs = ladder(block, out.attentions[k], rates[k], (u, z), mask, before, (top_rate, top_norm), self.solver)
            rows.append({"actual": after / before, **rungs})
        groups = (hidden, heads, rows)
        return {name: torch.stack([row[name] for row in group], 1) for group in groups for name in group[0]}


def masked_centre(x: Tensor, mask: Tensor) -> Tensor:
    """Rows minus their mean over real tokens; zero on padding. x [... T D], mask broadcastable [... T 1]."""
    count = mask.sum(-2, keepdim=True)
    return torch.where(mask, x - torch.where(mask, x, 0.0).sum(-2, keepdim=True) / count, 0.0)


def hidden_numbers(x: Tensor, mask: Tensor) -> dict[str, Tensor]:
    real, count = mask[..., None], mask.sum(1)
    x = torch.where(real, x, 0.0)
    lengths = x.norm(dim=-1)
    unit = x / lengths.clamp_min(1e-30)[..., None]
    gram = (unit @ unit.mT).sum((1, 2)) - count
    wide = x.double()
    squares = torch.linalg.eigvalsh(wide @ wide.mT).clamp_min(0.0)
    values = squares.sqrt()
    distance = masked_centre(x, real).norm(dim=(1, 2))
    return {
        "cosine_similarity": gram / (count * (count - 1)),
        "relative_distance": distance / x.norm(dim=(1, 2)),
        "subspace_distance": distance,
        "effective_rank": torch.special.entr(values / values.sum(1, keepdim=True)).sum(1).exp(),
        "stable_rank": squares.sum(1) / squares[:, -1],
        "token_norm": lengths.sum(1) / count,
    }


def attention_numbers(attn: Tensor, mask: Tensor) -> dict[str, Tensor]:
    real = mask[:, None, :, None]
    centred = masked_centre(attn, real).double()
    # Padded query rows become copies of the first token's row, which changes no distance's maximum.
    rows = torch.where(real, attn, attn[:, :, :1])
    entropy = torch.special.entr(attn).sum(-1)
    return {
        "mixing_rate": torch.linalg.eigvalsh(centred @ centred.mT)[..., -1].clamp_min(0.0).sqrt().float(),
        "ergodicity_coefficient": 0.5 * torch.cdist(rows, rows, p=1.0).amax((-2, -1)),
        "attention_entropy": torch.where(mask[:, None], entropy, 0.0).sum(-1) / mask.sum(1)[:, None],
    }


def ladder(
    block: Block,
    attn: Tensor,
    rates: Tensor,
    sums: tuple[Tensor, Tensor],
    mask: Tensor,
    before: Tensor,
    tops: tuple[Tensor, Tensor],
    solver: str,
) -> dict[str, Tensor]:
    """The rungs L0 to L4 and the LayerNorm stds of one block, [B] each."""
    (u, _), (top_rate, top_norm) = sums, tops
    stds = [x.var(-1, unbiased=False).add(1e-12).sqrt() for x in sums]
    least = [torch.where(mask, s, torch.inf).topk(2, largest=False).values for s in stds]
    product = least[0][:, 0] * least[1][:, 0]
    per_head = rates @ block.head_norms
    threshold = block.lipschitz * (1.0 + per_head) * block.gains
    everywhere = (1.0 + SLOPE * top_norm**2) * (1.0 + top_rate * rates.shape[1] * top_norm) * block.gains
    centred = masked_centre(attn, mask[:, None, :, None])
    gram = torch.linalg.eigvalsh((centred @ centred.mT).sum(1))[:, -1]
    joint = torch.stack([per_head, rates.amax(1) * block.concatenated, (gram * block.stacked).sqrt()])
    a, f = 1.0 + joint.amin(0), block.mlp * block.gain
    p = torch.where(mask, 1.0 / (stds[0] * stds[1]), 0.0)
    pair = (torch.diag_embed(p) * p.sum(1)[:, None, None] - p[:, :, None] * p[:, None, :]) / mask.sum(1)[:, None, None]
    spread = u - u.mean(-1, keepdim=True)
    count = mask.sum(1)
    named = {
        "L4": f * (spread * (pair @ spread)).sum((1, 2)).sqrt() / before,
        "L3": f * operator_norm(block, torch.where(mask[:, None, :, None], attn, 0.0), pair, solver),
        "L2b": a * f * torch.linalg.eigvalsh(pair)[:, -1].sqrt(),
        "L2": a * f / (least[0].prod(1) * least[1].prod(1)).sqrt(),
        "L1": threshold / product,
        "L0": everywhere / product,
        "std_product": product,
        "threshold": threshold,
    }
    for name, s in zip(("std_attn", "std_mlp"), stds, strict=True):
        named[name] = torch.where(mask, s, 0.0).sum(1) / count
        named[name + "_least"] = torch.where(mask, s, torch.inf).amin(1)
        named[name + "_most"] = torch.where(mask, s, -torch.inf).amax(1)
    return named


def operator_norm(block: Block, attn: Tensor, pair: Tensor, solver: str) -> Tensor:
    """Norm of X -> sqrt(K) (X + sum_h A_h X W_h) C for every sentence, from its Gram operator."""
    b, n, t, _ = attn.shape
    d = len(block.value)

    def heads(x: Tensor) -> Tensor:
        return x.view(b, t, n, d // n).transpose(1, 2)

    def flat(x: Tensor) -> Tensor:
        return x.transpose(1, 2).reshape(b, t, d)

    def gram(x: Tensor) -> Tensor:
        x = x.view(b, t, d)
        y = x + flat(attn @ heads(x @ block.value)) @ block.output
        y = pair @ (y - y.mean(-1, keepdim=True))
        return (y + flat(attn.mT @ heads(y @ block.output.T)) @ block.value.T).view(b, t * d)

    start = torch.randn(b, t * d, generator=torch.Generator().manual_seed(0))
    return {"power": power, "lanczos": lanczos}[solver](gram, start).sqrt()


def power(gram: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    value = x.new_zeros(len(x))
    for _ in range(POWER_STEPS):
        x = gram(x / x.norm(dim=1, keepdim=True))
        value, last = x.norm(dim=1), value
        if ((value - last).abs() <= TOLERANCE * value).all():
            break
    return value


def lanczos(gram: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """Batched Lanczos, the largest Ritz value checked at every fourth step."""
    basis = x.new_empty(len(x), LANCZOS_STEPS + 1, x.shape[1])
    tridiagonal = x.new_zeros(len(x), LANCZOS_STEPS + 1, LANCZOS_STEPS + 1)
    basis[:, 0] = x / x.norm(dim=1, keepdim=True)
    value = x.new_zeros(len(x))
    for k in range(LANCZOS_STEPS):
        y = gram(basis[:, k])
        seen = basis[:, : k + 1]
        tridiagonal[:, k, k] = (y * basis[:, k]).sum(1)
        # Twice: in float32 one pass of classical Gram-Schmidt loses the orthogonality it is there for.
        for _ in range(2):
            y = y - torch.bmm(torch.bmm(seen, y[..., None]).mT, seen)[:, 0]
        length = y.norm(dim=1)
        if k % 4 == 3:
            value, last = torch.linalg.eigvalsh(tridiagonal[:, : k + 1, : k + 1])[:, -1], value
            if ((value - last).abs() <= TOLERANCE * value).all():
                break
        tridiagonal[:, k, k + 1] = tridiagonal[:, k + 1, k] = length
        basis[:, k + 1] = y / length[:, None]
    return value


def summarise(joined: dict[str, np.ndarray], name: str) -> dict[str, np.ndarray]:
    low, high = (joined.get(name + end, joined[name]) for end in ("_least", "_most"))
    return {"mean": joined[name].mean(0, dtype=np.float64), "min": low.min(0), "max": high.max(0)}
