"""Positions are counted as transformers counts them: from ids and not from the mask, and in most families from neither.

The frozen numbers are the first feature of transformers' last hidden states, in float64, of the models of
frozen/families; `make parity` compares all features again, live.
"""

import json
import shutil

import jax.numpy as jnp
import numpy as np
import pytest
from support.make_families import FROZEN, in_double

import jaxsmooth


def batch(pad: int) -> tuple[np.ndarray, np.ndarray]:
    """Padding's id inside a text; padding on the left; masked tokens in the middle; real ids masked out at the end."""
    other = 3 if pad == 1 else 1
    tokens = [[5, pad, 9, 7, pad, pad], [pad, pad, 8, 6, 5, 4], [pad, other, pad, 7, 6, 5], [5, 6, 7, 8, 9, 4]]
    mask = [[1, 1, 1, 1, 0, 0], [0, 0, 1, 1, 1, 1], [0, 1, 1, 0, 1, 1], [1, 1, 1, 1, 0, 0]]
    return np.array(tokens), np.array(mask, bool)


# model -> id that counts as padding, pad_token_id of its configuration, and transformers' numbers
EXPECTED = {
    "roberta": (1, 1, [
        [0.049420958361, -2.244806481972, -1.990647923942, 1.606844237432, -2.244806481972, -2.244806481972],
        [-1.24402618386, -1.24402618386, 1.953046894223, -1.593801948004, 0.13570138997, 1.194779989532],
        [-2.174005177009, -0.059411241641, -2.174005177009, -0.932871945095, -1.673209681095, -1.194550495383],
        [0.899252772319, -1.591833460455, 1.875584805349, 0.937896713532, -0.080822839971, 0.047111750955],
    ]),
    "roberta-pad-3": (3, 3, [
        [0.72922023075, 0.319710733333, 0.66055296701, 0.423808425647, 0.319710733333, 0.319710733333],
        [-0.458350425741, -0.458350425741, 1.14983033451, 0.435521355912, 0.895607958999, -0.628194318204],
        [-0.518665763972, 0.096864430647, -0.518665763972, -0.296426045659, -0.082359489919, 0.114798685125],
        [0.477915293002, 0.291179148917, 0.362446079379, 0.406992620737, -0.364142294355, -0.214766582198],
    ]),
    # MPNet counts from the id 1 whatever its configuration says.
    "mpnet": (1, 0, [
        [0.33467929018, -1.250701647981, -0.963016117213, -0.644628174026, -1.309933755008, -1.362136144265],
        [-2.33727562197, -2.703560368699, -2.039940327479, -2.734717528834, -0.589545761855, -1.212334190414],
        [-1.778578945539, -2.247166506561, -1.385578841071, -0.661599903305, -0.3540477579, 0.333287943003],
        [-2.477290974456, -2.157082656898, -0.953698077748, -1.010349676113, -1.793520688113, -2.024424737716],
    ]),
    # GPT-2's positions are 0, 1, 2, ... on the left of the text too, where its padding is.
    "gpt2": (1, 1, [
        [-1.073887302245, -2.328437965337, -1.84592608723, -1.639504219599, -1.919854646675, -1.892821697742],
        [-1.394818348248, -2.295198439363, -1.984037733303, -1.417349116162, -1.734061592485, -1.910324694823],
        [-0.902215015391, -0.032214076624, -1.421477393911, -0.765152565379, -0.225515039915, -0.532131607422],
        [-1.073887302245, -1.340814988566, -1.879348214476, -1.700602593873, -1.464156425366, -1.848682876501],
    ]),
}  # fmt: skip


@pytest.fixture
def directory(request, tmp_path):
    """A frozen model under the configuration that `EXPECTED` names."""
    name = request.param
    shutil.copytree(FROZEN / name, tmp_path / name)
    config = json.loads((FROZEN / name / "config.json").read_text())
    (tmp_path / name / "config.json").write_text(json.dumps({**config, "pad_token_id": EXPECTED[name][1]}))
    return tmp_path / name


def last_hidden(directory, tokens: np.ndarray, mask: np.ndarray) -> np.ndarray:
    model, _ = jaxsmooth.load(directory, dtype=jnp.float64)
    fed = jaxsmooth.Batch(tokens=tokens, segments=np.zeros_like(tokens), mask=mask)
    return np.asarray(jaxsmooth.encode(model, fed, collect=jaxsmooth.keep_nothing)[0])


@pytest.mark.compatibility("rule", "the padding token written in a text, RoBERTa's kin", "counted as padding", was=1)
@pytest.mark.compatibility("rule", "a mask that disagrees with the padding ids", "positions follow the ids", was=1)
@pytest.mark.compatibility(
    "rule", "MPNet whose pad_token_id is not 1", "positions are counted from 1 all the same", was=1
)
@pytest.mark.compatibility("rule", "padding on the left, GPT-2", "positions 0, 1, 2, ... from the first column", was=0)
@pytest.mark.parametrize("directory", EXPECTED, indirect=True)
def test_positions_are_counted_as_transformers_counts_them(directory):
    pad, _, expected = EXPECTED[directory.name]
    np.testing.assert_allclose(last_hidden(directory, *batch(pad))[:, :, 0], expected, rtol=0, atol=1e-10)


@pytest.mark.parity
@pytest.mark.parametrize("directory", EXPECTED, indirect=True)
def test_positions_are_those_of_transformers_live(directory):
    torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
    tokens, mask = batch(EXPECTED[directory.name][0])
    model = transformers.AutoModel.from_pretrained(directory, attn_implementation="eager").double().eval()
    with torch.no_grad(), in_double():
        fed = {"input_ids": torch.tensor(tokens), "attention_mask": torch.tensor(mask.astype(int))}
        theirs = model(**fed).last_hidden_state.numpy()
    np.testing.assert_allclose(last_hidden(directory, tokens, mask), theirs, rtol=0, atol=1e-10)
