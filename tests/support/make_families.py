"""Write frozen/families: what torch transformers computes in float64 for a small random model of every family.

    python tests/support/make_families.py

needs the `parity` extra. Also the home of the torch side of test_parity_families.py. torch is imported late, so that
collecting tests needs none.
"""

import contextlib
import json
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

FROZEN = Path(__file__).parent / "frozen" / "families"
PIXELS = {"image_size": 12, "patch_size": 4}
NORM_PATHS = {
    "albert": ("attention.LayerNorm", "full_layer_layer_norm"),
    "distilbert": ("sa_layer_norm", "output_layer_norm"),
    "mpnet": ("attention.LayerNorm", "output.LayerNorm"),
    "modernbert": ("attn_norm", "mlp_norm"),
    "vit": ("layernorm_before", "layernorm_after"),
    "deit": ("layernorm_before", "layernorm_after"),
    "gpt2": ("ln_1", "ln_2"),
}
BLOCKS = {
    "albert": "encoder.albert_layer_groups",
    "distilbert": "transformer.layer",
    "modernbert": "layers",
    "vit": "layers",
    "deit": "layers",
    "gpt2": "h",
}
BERT_LIKE = {
    "vocab_size": 40,
    "hidden_size": 12,
    "num_hidden_layers": 2,
    "num_attention_heads": 3,
    "intermediate_size": 20,
    "max_position_embeddings": 30,
}
MODERN = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "cls_token_id": 1, "sep_token_id": 2}
GPT2 = {"vocab_size": 40, "n_embd": 12, "n_layer": 2, "n_head": 3, "n_positions": 30, "bos_token_id": 0}

# name -> (model_type, configuration). The second of a family turns its switches the other way.
MODELS: dict[str, tuple[str, dict]] = {
    "bert": ("bert", BERT_LIKE),
    "roberta": ("roberta", {**BERT_LIKE, "layer_norm_eps": 1e-5}),
    "roberta-pad-3": ("roberta", {**BERT_LIKE, "pad_token_id": 3, "type_vocab_size": 1, "hidden_act": "silu"}),
    "xlm-roberta": ("xlm-roberta", {**BERT_LIKE, "type_vocab_size": 1}),
    "camembert": ("camembert", {**BERT_LIKE, "type_vocab_size": 1}),
    "albert": ("albert", {**BERT_LIKE, "embedding_size": 8, "num_hidden_layers": 4}),
    "albert-gelu": ("albert", {**BERT_LIKE, "embedding_size": 12, "hidden_act": "gelu"}),
    "distilbert": (
        "distilbert",
        {"vocab_size": 40, "dim": 12, "n_layers": 2, "n_heads": 3, "hidden_dim": 20, "max_position_embeddings": 30},
    ),
    "electra": ("electra", {**BERT_LIKE, "embedding_size": 8}),
    "electra-same-width": ("electra", {**BERT_LIKE, "embedding_size": 12, "hidden_act": "relu"}),
    "mpnet": ("mpnet", {**BERT_LIKE, "layer_norm_eps": 1e-5}),
    "mpnet-far": ("mpnet", {**BERT_LIKE, "max_position_embeddings": 160}),
    "modernbert": (
        "modernbert",
        {**BERT_LIKE, **MODERN, "num_hidden_layers": 5, "local_attention": 6},
    ),
    "modernbert-biases": (
        "modernbert",
        {
            **BERT_LIKE,
            **MODERN,
            "local_attention": 4,
            "layer_types": ["full_attention", "sliding_attention"],
            "attention_bias": True,
            "mlp_bias": True,
            "norm_bias": True,
            "norm_eps": 1e-6,
        },
    ),
    "vit": (
        "vit",
        {**{k: v for k, v in BERT_LIKE.items() if k.startswith(("hidden", "num", "inter"))}, **PIXELS},
    ),
    "deit": (
        "deit",
        {
            **{k: v for k, v in BERT_LIKE.items() if k.startswith(("hidden", "num", "inter"))},
            **PIXELS,
            "num_channels": 1,
            "layer_norm_eps": 1e-6,
            "hidden_act": "gelu_pytorch_tanh",
        },
    ),
    "gpt2": ("gpt2", GPT2),
    "gpt2-inner": ("gpt2", {**GPT2, "n_inner": 20, "activation_function": "relu", "layer_norm_epsilon": 1e-6}),
}
TEXT_HEADS = ("ForSequenceClassification", "ForTokenClassification", "ForQuestionAnswering", "ForMultipleChoice")
HEADS = {
    **dict.fromkeys(("vit", "deit"), ("ForImageClassification",)),
    "gpt2": (*TEXT_HEADS[:3], "DoubleHeadsModel", "LMHeadModel"),
}
"""The classes with a head, where they are not those of BERT: `TEXT_HEADS` and `ForMaskedLM`."""
HEAD_SETTINGS = {
    "gpt2": {"pad_token_id": 1},
    "modernbert-biases": {"classifier_pooling": "mean", "classifier_activation": "relu", "classifier_bias": True},
}
"""What a model's configuration has besides, under a head."""
LONG = {"mpnet-far": (150, 3, 140)}  # beyond the distances that MPNet's buckets tell apart
LENGTHS = (11, 2, 7)
LIVE_ONLY = ("bert", "xlm-roberta", "camembert", *LONG)
"""Not frozen: BERT, which has numbers of its own, RoBERTa under other names, and one whose numbers are many."""

UNHEADED = ("roberta-pad-3", "albert-gelu", "electra-same-width", "mpnet-far", "gpt2-inner")
"""Compared without a head: their switches are the encoder's."""


def build(name: str, head: str = "Model") -> Any:
    """A random model of transformers, far from its initialisation: gains of both signs, no bias zero."""
    import torch
    import transformers

    family, settings = MODELS[name]
    torch.manual_seed(sum((name + head).encode()))
    settings = settings if head == "Model" else {**settings, **HEAD_SETTINGS.get(name, {})}
    config = transformers.AutoConfig.for_model(family, **settings)
    stem = type(config).__name__.removesuffix("Config")
    model = getattr(transformers, stem + head)._from_config(config, attn_implementation="eager").eval()
    for module in model.modules():
        gain = isinstance(module, torch.nn.LayerNorm)
        for key, value in module.named_parameters(recurse=False):
            if key == "weight" and gain:
                value.data = 1.0 + 0.4 * torch.randn_like(value)
            else:
                value.data = torch.randn_like(value) * (0.3 if value.ndim < 2 else value.shape[-1] ** -0.5)
    return model


def random_batch(name: str, lengths: tuple[int, ...] | None = None) -> dict[str, np.ndarray]:
    """Padded sentences, or images. No real token is the padding: from its id RoBERTa counts positions."""
    family, settings = MODELS[name]
    rng = np.random.default_rng(sum(name.encode()))
    if "image_size" in settings:
        side, classes = settings["image_size"], 2 if family == "deit" else 1
        pixels = rng.standard_normal((3, settings.get("num_channels", 3), side, side))
        tokens = classes + (side // settings["patch_size"]) ** 2
        return {"pixels": pixels.astype(np.float32), "mask": np.ones((3, tokens), bool)}
    lengths = lengths or LONG.get(name, LENGTHS)
    shape = (len(lengths), max(lengths))
    mask = np.arange(shape[1]) < np.array(lengths)[:, None]
    pad = settings.get("pad_token_id", {"modernbert": 0}.get(family, 1))
    tokens = np.where(mask, rng.integers(4, 40, shape), pad)
    pair = settings.get("type_vocab_size", 2) > 1 and family in ("bert", "roberta", "albert", "electra")
    segments = np.where(mask & (np.arange(shape[1]) >= 4), int(pair), 0)
    return {"tokens": tokens.astype(np.int32), "segments": segments.astype(np.int32), "mask": mask}


@contextlib.contextmanager
def in_double() -> Iterator[None]:
    """What transformers casts to float32 whatever the model's dtype stays float64: softmax and rotary angles."""
    import torch
    from transformers.models.modernbert import modeling_modernbert as modern

    kept = torch.nn.functional.softmax, torch.Tensor.float, modern.ModernBertRotaryEmbedding.forward

    def softmax(values, dim=None, dtype=None, **rest):
        return kept[0](values, dim=dim, dtype=values.dtype if values.dtype == torch.float64 else dtype)

    def to_float(tensor, *rest):
        return tensor if tensor.dtype == torch.float64 else kept[1](tensor, *rest)

    def angles(self, x, position_ids, layer_type):
        base = self.config.rope_parameters[layer_type]["rope_theta"]
        width = self.config.hidden_size // self.config.num_attention_heads
        frequencies = base ** -(torch.arange(0, width, 2, dtype=torch.float64) / width)
        turned = position_ids[..., None].double() * frequencies
        doubled = torch.cat((turned, turned), dim=-1)
        return doubled.cos(), doubled.sin()

    torch.nn.functional.softmax, torch.Tensor.float = softmax, to_float
    modern.ModernBertRotaryEmbedding.forward = angles
    try:
        yield
    finally:
        torch.nn.functional.softmax, torch.Tensor.float, modern.ModernBertRotaryEmbedding.forward = kept


def feed(family: str, batch: dict[str, np.ndarray], model: Any) -> dict[str, Any]:
    """The batch under transformers' names."""
    import torch

    if "pixels" in batch:
        return {"pixel_values": torch.from_numpy(batch["pixels"]).to(next(model.parameters()).dtype)}
    fed = {"input_ids": batch["tokens"], "attention_mask": batch["mask"]}
    if family in ("roberta", "albert", "electra", "bert"):
        fed["token_type_ids"] = batch["segments"]
    return {key: torch.from_numpy(np.array(value)).long() for key, value in fed.items()}


def run_torch(name: str, model: Any, batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Embedding, raw outputs of every block, attention, stds at both norms, and the last hidden state.

    Raw outputs and stds are caught by hooks. transformers' own `hidden_states` hold the same numbers, except that in
    ModernBERT and GPT-2 the last one has passed the final norm; both are compared here.
    """
    import torch

    family = MODELS[name][0]
    caught: dict[str, list] = {"embedded": [], "hidden": [], "std_attn": [], "std_mlp": []}
    hooks = []

    def keep_ends(module, args, kwargs, output):
        caught["embedded"].append(args[0] if args else kwargs["hidden_states"])
        caught["hidden"].append(output[0] if isinstance(output, tuple) else output)

    def keep_std(key):
        def keep(module, args):
            variance = args[0].var(dim=-1, unbiased=False, keepdim=True)
            caught[key].append((variance + getattr(module, "eps", model.config.to_dict().get("norm_eps"))).sqrt())

        return keep

    blocks = model.get_submodule(BLOCKS.get(family, "encoder.layer"))
    for block in blocks[0].albert_layers if family == "albert" else blocks:
        hooks.append(block.register_forward_hook(keep_ends, with_kwargs=True))
        paths = NORM_PATHS.get(family, ("attention.output.LayerNorm", "output.LayerNorm"))
        for key, path in zip(("std_attn", "std_mlp"), paths, strict=True):
            hooks.append(block.get_submodule(path).register_forward_pre_hook(keep_std(key)))
    double = next(model.parameters()).dtype == torch.float64
    with torch.no_grad(), in_double() if double else contextlib.nullcontext():
        out = model(**feed(family, batch, model), output_hidden_states=True, output_attentions=True)
    for hook in hooks:
        hook.remove()
    last = out.last_hidden_state
    raw = torch.stack(caught["hidden"])
    theirs = torch.stack(out.hidden_states)
    torch.testing.assert_close(theirs[:-1], torch.cat([caught["embedded"][0][None], raw[:-1]]), rtol=0, atol=0)
    assert torch.equal(theirs[-1], last) or torch.equal(theirs[-1], raw[-1])  # the latter in ViT and DeiT
    kept = {"embedded": theirs[0], "hidden": raw, "attn": torch.stack(out.attentions), "last": last}
    kept |= {key: torch.stack(caught[key]) for key in ("std_attn", "std_mlp")}
    return {key: value.numpy() for key, value in kept.items()}


def write(name: str, directory: Path, head: str = "Model") -> Any:
    """Save a random model as transformers does, and return it."""
    model = build(name, head)
    model.save_pretrained(directory)
    return model


def heads_of(name: str) -> tuple[str, ...]:
    """The classes with a head that a model is compared under."""
    return HEADS.get(MODELS[name][0], (*TEXT_HEADS, "ForMaskedLM"))


def run_head(name: str, head: str, model: Any, batch: dict[str, np.ndarray]) -> np.ndarray:
    """The logits of a model with a head; three sentences are the choices of one question."""
    import torch

    fed = feed(MODELS[name][0], batch, model)
    if head in ("ForMultipleChoice", "DoubleHeadsModel"):
        fed = {key: value[None] for key, value in fed.items()}
    if head == "DoubleHeadsModel":  # reads the token it is told to: the last real one
        fed["mc_token_ids"] = torch.from_numpy(batch["mask"].sum(axis=1)[None] - 1).long()
    double = next(model.parameters()).dtype == torch.float64
    with torch.no_grad(), in_double() if double else contextlib.nullcontext():
        out = model(**fed)
    if head == "ForQuestionAnswering":
        return torch.stack([out.start_logits, out.end_logits], dim=-1).numpy()
    return (out.mc_logits if head == "DoubleHeadsModel" else out.logits).numpy()


def freeze_heads(name: str) -> None:
    """The tensors of every head on top of the frozen encoder, what a checkpoint with it holds, and its logits."""
    from safetensors.numpy import load_file
    from transformers import AutoModel

    encoder = AutoModel.from_pretrained(FROZEN / name).state_dict()
    frozen: dict[str, np.ndarray] = {}
    for head in heads_of(name):
        model = build(name, head)
        model.base_model.load_state_dict({key: encoder[key] for key in model.base_model.state_dict()})
        with tempfile.TemporaryDirectory() as aside:
            model.save_pretrained(aside)
            tensors = load_file(f"{aside}/model.safetensors")
        frozen[f"{head}/names"] = np.array(sorted(tensors))
        own = {key: value for key, value in tensors.items() if not key.startswith(f"{model.base_model_prefix}.")}
        frozen |= {f"{head}/tensors/{key}": value for key, value in own.items()}
        frozen[f"{head}/architecture"] = np.array(type(model).__name__)
        frozen[f"{head}/logits"] = run_head(name, head, model.double(), random_batch(name))
    aside = FROZEN / name / "heads.part.npz"
    np.savez_compressed(aside, **frozen)
    os.replace(aside, FROZEN / name / "heads.npz")


def freeze(name: str) -> None:
    directory = FROZEN / name
    with tempfile.TemporaryDirectory(dir=FROZEN) as aside:
        model = write(name, Path(aside))
        batch = random_batch(name)
        np.savez_compressed(f"{aside}/expected.npz", **batch, **run_torch(name, model.double(), batch))
        config = json.loads(Path(aside, "config.json").read_text())
        Path(aside, "config.json").write_text(json.dumps(config, indent=1) + "\n")
        directory.mkdir(exist_ok=True)
        for file in ("config.json", "model.safetensors", "expected.npz"):
            os.replace(Path(aside) / file, directory / file)


def main() -> None:
    FROZEN.mkdir(exist_ok=True)
    for name in MODELS:
        if name not in LIVE_ONLY:
            freeze(name)
            if name not in UNHEADED:
                freeze_heads(name)


if __name__ == "__main__":
    main()
