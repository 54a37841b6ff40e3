"""A training step against torch: loss, every gradient, parameters after ten AdamW steps. `make parity`."""

import dataclasses
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file
from support.make_frozen import tokenise
from support.parity import minilm_directory
from support.training import to_arrays

import jaxsmooth
from jaxsmooth.assets.texts import read_texts
from jaxsmooth.training.config import FinetuneConfig
from jaxsmooth.training.data.tasks import Task, TrainBatch
from jaxsmooth.training.model import TaskModel, init_task_model
from jaxsmooth.training.optimiser import learning_rate, make_optimiser
from jaxsmooth.training.step import Trainer, compile_step, init_state

pytestmark = pytest.mark.parity

TASK = Task("reviews", "classification", "accuracy", "test", "none", classes=("negative", "positive"))
CONFIG = FinetuneConfig(
    hidden_dropout=0.0, attention_dropout=0.0, head_dropout=0.0, learning_rate=5e-5, warmup=0.2, clip=1.0
)
STEPS = 10


@pytest.fixture(scope="module", autouse=True)
def _torch() -> None:
    pytest.importorskip("torch", reason="torch is not installed: pip install 'jaxsmooth[parity]'")
    pytest.importorskip("transformers", reason="transformers is not installed: pip install 'jaxsmooth[parity]'")


@pytest.fixture(scope="module")
def batch() -> dict[str, np.ndarray]:
    tokens = tokenise(minilm_directory(), read_texts("movie-reviews", 16))
    assert not tokens["mask"].all()
    return {**tokens, "labels": np.arange(16) % 2}


@pytest.fixture(scope="module")
def ours() -> TaskModel:
    encoder, _ = jaxsmooth.load(minilm_directory())
    return init_task_model(encoder, TASK, jax.random.key(0))


def torch_model(ours: TaskModel):
    import torch
    from transformers import BertForSequenceClassification

    model = BertForSequenceClassification.from_pretrained(
        minilm_directory(), num_labels=2, attn_implementation="eager", hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0, dtype=torch.float32,
    )  # fmt: skip
    with torch.no_grad():
        model.classifier.weight.copy_(torch.tensor(np.asarray(ours.head.out.kernel).T))
        model.classifier.bias.copy_(torch.tensor(np.asarray(ours.head.out.bias)))
    return model.train()


def torch_inputs(batch: dict[str, np.ndarray]) -> dict:
    import torch

    names = {"input_ids": "tokens", "token_type_ids": "segments", "attention_mask": "mask", "labels": "labels"}
    return {theirs: torch.tensor(batch[mine]).long() for theirs, mine in names.items()}


def named(model: TaskModel, folder: Path) -> dict[str, np.ndarray]:
    """Our arrays under torch's names, in torch's layout."""
    jaxsmooth.save(model.encoder, folder)
    tensors = {f"bert.{name}": value for name, value in load_file(folder / "model.safetensors").items()}
    head = {
        "classifier.weight": np.asarray(model.head.out.kernel).T,
        "classifier.bias": np.asarray(model.head.out.bias),
    }
    return {**tensors, **head}


def train_batch(batch: dict[str, np.ndarray]) -> TrainBatch:
    fed = jaxsmooth.Batch(**{name: jnp.asarray(batch[name]) for name in ("tokens", "segments", "mask")})
    labels = jnp.asarray(batch["labels"], jnp.int32)
    return TrainBatch(fed, labels, jnp.ones(len(labels), jnp.float32), jnp.arange(len(labels), dtype=jnp.int32))


def trainer(model: TaskModel, config: FinetuneConfig = CONFIG) -> Trainer:
    return Trainer(TASK, config, make_optimiser(config, model, STEPS), learning_rate(config, STEPS))


def test_loss_and_every_gradient(ours, batch, tmp_path):
    with jax.enable_x64(False):
        loss, gradient = jax.jit(trainer(ours).gradients)(ours, train_batch(batch))
    theirs = torch_model(ours)
    expected = theirs(**torch_inputs(batch)).loss
    expected.backward()
    assert abs(float(loss) - expected.item()) <= 1e-5
    found = named(gradient, tmp_path)
    grads = {name: p.grad.numpy() for name, p in theirs.named_parameters()}
    assert set(found) == set(grads)
    errors = {name: float(np.abs(found[name] - grads[name]).max()) for name in grads}
    print(
        f"\nloss differs by {abs(float(loss) - expected.item()):.1e}, gradients by at most {max(errors.values()):.1e}"
    )
    assert max(errors.values()) <= 1e-5, max(errors, key=errors.get)
    # Not vacuous: absolute errors say little about small gradients, so also relative to each one's size.
    relative = {name: errors[name] / np.abs(grads[name]).max() for name in grads if not name.endswith("key.bias")}
    print(f"relative to the largest entry of each: {max(relative.values()):.1e}")
    assert max(relative.values()) <= 1e-3, max(relative, key=relative.get)


def test_ten_steps_of_adamw(ours, batch, tmp_path):
    import torch
    from transformers import get_linear_schedule_with_warmup

    with jax.enable_x64(False):
        mine = trainer(ours)
        step, state = compile_step(mine), init_state(jax.tree.map(jnp.copy, ours), mine.optimiser, CONFIG)
        losses = []
        for _ in range(STEPS):
            state, metrics = step(state, train_batch(batch))
            losses.append(float(metrics.loss))
    theirs = torch_model(ours)
    plain = [name for name, _ in theirs.named_parameters() if name.endswith("bias") or "LayerNorm" in name]
    groups = [
        {"params": [p for name, p in theirs.named_parameters() if (name in plain) == undecayed], "weight_decay": decay}
        for undecayed, decay in ((False, CONFIG.weight_decay), (True, 0.0))
    ]
    optimiser = torch.optim.AdamW(groups, lr=CONFIG.learning_rate, eps=CONFIG.adam_eps)
    schedule = get_linear_schedule_with_warmup(optimiser, round(CONFIG.warmup * STEPS), STEPS)
    expected = []
    for _ in range(STEPS):
        loss = theirs(**torch_inputs(batch)).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(theirs.parameters(), CONFIG.clip)
        optimiser.step()
        schedule.step()
        optimiser.zero_grad()
        expected.append(loss.item())
    found = named(state.model, tmp_path)
    errors = {name: float(np.abs(found[name] - p.detach().numpy()).max()) for name, p in theirs.named_parameters()}
    print(f"\nafter {STEPS} steps parameters differ by at most {max(errors.values()):.1e}; losses {losses[-1]:.6f}")
    np.testing.assert_allclose(losses, expected, atol=1e-4)
    assert losses[-1] < 0.9 * losses[0]  # it learns: the comparison is not of standing still
    assert max(errors.values()) <= 1e-4, max(errors, key=errors.get)
    start = to_arrays(ours)
    moved = max(float(np.abs(a - start[name]).max()) for name, a in to_arrays(state.model).items())
    assert moved > 1e-4


def test_span_and_masked_lm_losses(ours, batch):
    """The other heads' losses, on the same encoder; nothing padded, for torch lets a span begin on padding."""
    import torch
    from transformers import BertForMaskedLM, BertForQuestionAnswering

    from jaxsmooth.training.data.batches import masked_labels
    from jaxsmooth.training.data.tasks import SpanLabels

    batch = {**batch, "mask": np.ones_like(batch["mask"])}
    inputs = torch_inputs(batch)
    inputs.pop("labels")
    options = {"attn_implementation": "eager", "hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    data = train_batch(batch)
    with jax.enable_x64(False):
        span = Task("s", "span", "f1", "test", "none")
        model = init_task_model(ours.encoder, span, jax.random.key(1))
        ends = SpanLabels(start=jnp.arange(16) % 5, end=jnp.arange(16) % 5 + 1)
        loss = dataclasses.replace(trainer(model), task=span).loss(model, dataclasses.replace(data, labels=ends))
        theirs = BertForQuestionAnswering.from_pretrained(minilm_directory(), **options).eval()
        with torch.no_grad():
            theirs.qa_outputs.weight.copy_(torch.tensor(np.asarray(model.head.out.kernel).T))
            theirs.qa_outputs.bias.copy_(torch.tensor(np.asarray(model.head.out.bias)))
            expected = theirs(
                **inputs, start_positions=torch.arange(16) % 5, end_positions=torch.arange(16) % 5 + 1
            ).loss.item()  # fmt: skip
        assert abs(float(loss) - expected) <= 1e-5

        words = Task("m", "masked_lm", "log_likelihood", "test", "none")
        model = init_task_model(ours.encoder, words, jax.random.key(2))
        labels = np.where(
            (np.arange(batch["tokens"].size).reshape(batch["tokens"].shape) % 7 == 1) & batch["mask"].astype(bool),
            batch["tokens"],
            -1,
        )
        asked = jax.tree.map(jnp.asarray, masked_labels(labels.tolist(), labels.shape[1]))
        loss = dataclasses.replace(trainer(model), task=words).loss(model, dataclasses.replace(data, labels=asked))
        theirs = BertForMaskedLM.from_pretrained(minilm_directory(), **options).eval()
        head = theirs.cls.predictions
        with torch.no_grad():
            head.transform.dense.weight.copy_(torch.tensor(np.asarray(model.head.dense.kernel).T))
            head.transform.dense.bias.zero_()
            head.transform.LayerNorm.weight.fill_(1.0)
            head.transform.LayerNorm.bias.zero_()
            head.bias.zero_()
            expected = theirs(**inputs, labels=torch.tensor(np.where(labels < 0, -100, labels)).long()).loss.item()
        assert abs(float(loss) - expected) <= 1e-5


CLASSES = {
    "classification": "BertForSequenceClassification",
    "regression": "BertForSequenceClassification",
    "span": "BertForQuestionAnswering",
    "masked_lm": "BertForMaskedLM",
}


@pytest.mark.parametrize("kind", CLASSES)
def test_an_exported_model_is_loaded_by_transformers(kind, ours, batch, tmp_path):
    """Whole: no tensor missing, none unexpected, the same logits, and the same tokens of a text."""
    import torch
    import transformers

    from jaxsmooth.training.export import export_model
    from jaxsmooth.training.model import task_logits

    task = dataclasses.replace(TASK, kind=kind, classes=("no", "yes") if kind == "classification" else ())
    _, tokenizer = jaxsmooth.load(minilm_directory())
    with jax.enable_x64(False):
        model = init_task_model(ours.encoder, task, jax.random.key(3))
        logits = np.asarray(task_logits(model, train_batch(batch).batch))
    export_model(model, task, tokenizer, CONFIG, tmp_path)
    theirs, loading = getattr(transformers, CLASSES[kind]).from_pretrained(tmp_path, output_loading_info=True)
    assert not loading["missing_keys"]
    assert not loading["unexpected_keys"]
    inputs = torch_inputs(batch)
    inputs.pop("labels")
    with torch.no_grad():
        found = theirs.eval()(**inputs)
    expected = torch.stack([found.start_logits, found.end_logits], -1) if kind == "span" else found.logits
    real = batch["mask"].astype(bool) if kind in ("span", "masked_lm") else slice(None)
    np.testing.assert_allclose(logits[real], expected.numpy()[real], atol=2e-5)
    if kind == "classification":
        assert theirs.config.id2label == {0: "no", 1: "yes"}
    if kind == "regression":
        assert theirs.config.problem_type == "regression"
    texts = ["A film worth seeing, isn't it?", "Überraschend [MASK] naïve 🙂."]
    read = transformers.AutoTokenizer.from_pretrained(tmp_path)
    assert read(texts)["input_ids"] == [row.ids for row in tokenizer.rows(texts, length=128)]
    assert read.pad_token_id == tokenizer.pad_id
    assert read.mask_token_id == tokenizer.mask_id
