"""What users have in the place of a Batch: read as transformers would, or a ShapeError that says what and why."""

from collections import UserDict

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support.models import random_model

import jaxsmooth
from jaxsmooth.bert.checks import check_arguments
from jaxsmooth.errors import ShapeError
from jaxsmooth.types import Batch, ImageBatch

MODEL = random_model(dtype=jnp.float32)
IDS = np.array([[2, 5, 9, 3], [2, 7, 3, 0]], np.int32)
NONE = np.zeros_like(IDS)
MASK = np.array([[1, 1, 1, 1], [1, 1, 1, 0]])
REAL = MASK.astype(bool)
VISION = random_model(
    jaxsmooth.family_config("vit", image_size=4, patch_size=2, width=6, layers=1, heads=2, mlp_width=5)
)


class Tensor:
    """Behaves as a tensor of torch: dtypes of its own, and numpy's `__array__`, or a reason against it."""

    dtype = "torch.something"

    def __init__(self, values: np.ndarray, against: Exception | None = None) -> None:
        self.values, self.against, self.shape, self.ndim = values, against, values.shape, values.ndim

    def __array__(self, dtype=None, copy=None) -> np.ndarray:
        if self.against:
            raise self.against
        return self.values if dtype is None else self.values.astype(dtype)

    def __len__(self) -> int:
        return len(self.values)


class Encoding(UserDict):
    """transformers' BatchEncoding is one of these."""


def fed(**changes) -> Batch:
    return Batch(**{"tokens": IDS, "segments": NONE, "mask": REAL, **changes})


READ = {
    "tensors": lambda: Batch(tokens=Tensor(IDS.astype(np.int64)), segments=Tensor(NONE), mask=Tensor(REAL)),
    "lists": lambda: Batch(tokens=IDS.tolist(), segments=NONE.tolist(), mask=REAL.tolist()),
    "int64": lambda: fed(tokens=IDS.astype(np.int64), segments=NONE.astype(np.int64)),
    "uint16": lambda: fed(tokens=IDS.astype(np.uint16), segments=NONE.astype(np.uint8)),
    "no segments": lambda: Batch(tokens=IDS, mask=REAL),
    "an encoding of numpy": lambda: Encoding(input_ids=IDS, attention_mask=MASK, token_type_ids=NONE),
    "an encoding of tensors": lambda: Encoding(input_ids=Tensor(IDS), attention_mask=Tensor(MASK)),
    "an encoding of lists": lambda: {"input_ids": IDS.tolist(), "attention_mask": MASK.tolist()},
    "a mask of floats": lambda: {"input_ids": IDS, "attention_mask": MASK.astype(np.float32)},
    "a mask of bytes": lambda: {"input_ids": IDS, "attention_mask": MASK.astype(np.uint8)},
}


@pytest.mark.compatibility("rule", "a Batch of torch tensors on the CPU", "read", was=4)
@pytest.mark.compatibility("rule", "a Batch of lists", "read", was=4)
@pytest.mark.compatibility("rule", "a Batch without segments", "all tokens are of segment 0", was=4)
@pytest.mark.compatibility("rule", "a BatchEncoding or dict of transformers passed to encode", "read", was=3)
@pytest.mark.parametrize("case", READ)
def test_what_can_be_read_as_a_batch_is(case):
    expected = jaxsmooth.encode(MODEL, fed(), collect=jaxsmooth.keep_nothing)[0]
    found = jaxsmooth.encode(MODEL, READ[case](), collect=jaxsmooth.keep_nothing)[0]
    np.testing.assert_allclose(found, expected, rtol=0, atol=2e-6)
    np.testing.assert_allclose(jaxsmooth.embed(MODEL, READ[case]()), jaxsmooth.embed(MODEL, fed()), rtol=0, atol=1e-6)


@pytest.mark.compatibility(
    "rule", "a BatchEncoding without attention_mask", "every token is real, as in transformers", was=3
)
def test_without_an_attention_mask_every_token_is_real():
    whole = jaxsmooth.encode(MODEL, fed(mask=np.ones_like(REAL)), collect=jaxsmooth.keep_nothing)[0]
    found = jaxsmooth.encode(MODEL, {"input_ids": IDS}, collect=jaxsmooth.keep_nothing)[0]
    np.testing.assert_array_equal(found, whole)


@pytest.mark.compatibility("rule", "a BatchFeature of an image processor passed to encode", "read", was=3)
def test_pixel_values_are_read_by_a_vision_encoder():
    pixels = jnp.asarray(np.random.default_rng(0).standard_normal((1, 3, 4, 4)))
    expected = jaxsmooth.embed(VISION, jaxsmooth.image_batch(VISION.config, pixels))
    for given in ({"pixel_values": pixels}, ImageBatch(pixels=Tensor(np.asarray(pixels)), mask=np.ones((1, 5), bool))):
        np.testing.assert_array_equal(jaxsmooth.embed(VISION, given), expected)


def test_a_mapping_is_read_under_the_callers_jit():
    fields = {"input_ids": jnp.asarray(IDS), "attention_mask": jnp.asarray(MASK)}
    expected = jaxsmooth.embed(MODEL, fed())
    np.testing.assert_allclose(jax.jit(jaxsmooth.embed)(MODEL, fields), expected, rtol=0, atol=1e-6)


GRADIENT = RuntimeError("Can't call numpy() on Tensor that requires grad. Use tensor.detach().numpy() instead.")
CUDA = TypeError(
    "can't convert cuda:0 device type tensor to numpy. Use Tensor.cpu() to copy the tensor to host memory."
)
REFUSED = {
    "a tensor with a gradient": (
        lambda: fed(mask=Tensor(REAL, GRADIENT)),
        "batch.mask must be .* got Tensor.*requires grad",
    ),
    "a tensor on a GPU": (lambda: fed(tokens=Tensor(IDS, CUDA)), "batch.tokens must be an array.*cuda:0.*on the CPU"),
    "rows of several lengths": (
        lambda: Batch(tokens=[[1, 2], [3]], mask=REAL),
        "batch.tokens must be .*padded to one length",
    ),
    "an encoding that is not padded": (
        lambda: {"input_ids": [[1, 2], [3]]},
        "input_ids must be .*padded to one length",
    ),
    "text": (
        lambda: fed(tokens=np.array([["a"] * 4] * 2)),
        "batch.tokens must be an array of numbers; got ndarray of <U1",
    ),
    "objects": (lambda: fed(tokens=IDS.astype(object)), "batch.tokens must be an array of numbers; .* of object"),
    "integers for a mask": (lambda: fed(mask=MASK), "batch.mask must be boolean.* got int64.*attention_mask == 1"),
    "numbers for a mask": (lambda: fed(mask=Tensor(MASK * 1.0)), "batch.mask must be boolean.* got float64"),
    "no mask": (lambda: Batch(tokens=IDS), r"batch.mask must have .* got None.*jnp.ones\(tokens.shape, bool\)"),
    "an additive mask": (
        lambda: {"input_ids": IDS, "attention_mask": np.where(MASK, 0, -1e9)},
        "attention_mask must hold zeros and ones; got -1000000000.0 to 0.0",
    ),
    "a mask of four axes": (
        lambda: {"input_ids": IDS, "attention_mask": MASK[:, None, None]},
        r"batch.mask must have the shape of batch.tokens, \(2, 4\); got \(2, 1, 1, 4\)",
    ),
    "fractions": (
        lambda: {"input_ids": IDS * 1.0, "attention_mask": MASK},
        "batch.tokens must hold integers; got float64",
    ),
    "one row": (lambda: Encoding(input_ids=IDS[0].tolist(), attention_mask=[1] * 4), "Did you drop the batch axis"),
    "ids of another vocabulary": (
        lambda: {"input_ids": IDS + 28},
        r"batch.tokens must lie in 0..29; got 28..37. Was the text",
    ),
    "-100 for padding": (
        lambda: {"input_ids": np.where(REAL, IDS, -100)},
        "batch.tokens must lie in 0..29; got -100..9",
    ),
    "too many tokens": (lambda: {"input_ids": np.ones((1, 13), int)}, "12 positions; got sentences of 13 tokens"),
    "positions": (
        lambda: {"input_ids": IDS, "position_ids": NONE},
        "of other keys only .*; got input_ids, position_ids",
    ),
    "embeddings": (lambda: {"inputs_embeds": IDS}, "must have input_ids.*; got inputs_embeds"),
    "images": (lambda: {"pixel_values": np.ones((1, 3, 4, 4))}, "must have input_ids.*; got pixel_values"),
    "ids alone": (lambda: IDS, r"must be a Batch or ImageBatch; got ndarray.*Batch\(tokens=ids, mask=ids != pad\)"),
    "a tensor alone": (lambda: Tensor(IDS), "must be a Batch or ImageBatch; got Tensor"),
    "a tuple": (lambda: (IDS, NONE, REAL), "must be a Batch or ImageBatch; got tuple"),
}


@pytest.mark.compatibility(
    "rule", "a tensor on a GPU or with a gradient, ragged lists", "a ShapeError that says why", was=4
)
@pytest.mark.compatibility(
    "rule", "a mask of integers in a Batch, -100 for padding, ids of no vocabulary", "refused", was=0
)
@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_is_refused_with_the_reason(case):
    make, message = REFUSED[case]
    with pytest.raises(ShapeError, match=message):
        # As `encode` begins; in tests its annotations refuse some of these before it does.
        check_arguments(MODEL, make(), jaxsmooth.Edits(), jaxsmooth.keep_nothing)


@pytest.mark.parity
def test_tensors_of_torch_live():
    torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
    encoding = transformers.BatchEncoding({"input_ids": torch.tensor(IDS).long(), "attention_mask": torch.tensor(MASK)})
    batch = Batch(tokens=torch.tensor(IDS), segments=torch.tensor(NONE), mask=torch.tensor(REAL))
    expected = jaxsmooth.encode(MODEL, fed())[0]
    for given in (encoding, batch):
        np.testing.assert_allclose(jaxsmooth.encode(MODEL, given)[0], expected, rtol=0, atol=2e-6)
    with pytest.raises(ShapeError, match=r"batch.mask must be .* got Tensor.*requires grad"):
        jaxsmooth.encode(MODEL, fed(mask=torch.ones(2, 4, requires_grad=True)))
