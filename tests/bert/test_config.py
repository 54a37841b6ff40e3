"""EncoderConfig: static structure, its own names checked; which blocks the ladder of bounds is proved for."""

import dataclasses

import jax
import pytest

from jaxsmooth.bert.block import BLOCKS
from jaxsmooth.bert.config import FAMILY_NAMES, PLACEMENTS, EncoderConfig
from jaxsmooth.bert.heads import FORMS
from jaxsmooth.errors import ConfigError, JaxsmoothError

SIZES = {"vocab": 30, "width": 12, "layers": 3, "heads": 4, "mlp_width": 20}


def test_a_config_is_static_structure():
    config = EncoderConfig(**SIZES)
    assert hash(config) == hash(EncoderConfig(**SIZES))
    assert jax.tree.leaves(config) == [config]
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.width = 24


def test_every_choice_can_be_run():
    assert set(PLACEMENTS) == set(BLOCKS)
    assert set(FAMILY_NAMES) == set(FORMS)


@pytest.mark.parametrize(
    "change",
    [
        *({"activation": "gelu_new"}, {"activation": ["gelu"]}, {"family": "t5"}, {"family": ["bert"]}),
        *({"width": "12"}, {"heads": 5}, {"note": 3}),
    ],
)
def test_a_bad_value_is_refused_and_its_field_named(change):
    with pytest.raises(ConfigError, match=f"{next(iter(change))}.*; got"):
        EncoderConfig(**SIZES | change)


def test_refusals_are_value_errors_of_the_library():
    assert issubclass(ConfigError, JaxsmoothError)
    assert issubclass(ConfigError, ValueError)
