"""Remedies by name: lists that are read and lists that are refused."""

import pytest

from jaxsmooth import mitigations as ours
from jaxsmooth.errors import OptionError


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "name the remedies"),
        ("contranorm,", "there is no remedy ''"),
        ("batchnorm", "there is no remedy 'batchnorm' .*contranorm, contranorm-vit"),
        ("contranorm:much", "contranorm:s must be a number from 0 to .*; got 'much'"),
        ("contranorm:-1", "contranorm:s must be a number from 0 .* got '-1'"),
        ("contranorm:nan", "got 'nan'"),
        ("contranorm:s=inf", "got 'inf'"),
        ("contranorm:0.1:0.2", "only the first parameter of contranorm needs no name"),
        ("contranorm:0.1:s=0.2", "'s' in .* is given twice"),
        ("contranorm:tau=2", "parameters of contranorm: s, temperature; 'tau' in .* is none of them"),
        ("definite:1", "parameters of definite: none; '1' in 'definite:1' is none of them"),
        ("attention-dropout:1", "must be a number from 0 below 1"),
        ("gfsa:0.1:order=2.5", "gfsa:order must be a whole number from 2 to 1000, K; got '2.5'"),
        ("initial-residual:1.5", "must be a number from 0 to 1"),
        ("neutreno,neutreno", "'neutreno' is listed 2 times"),
    ],
)
def test_a_list_that_makes_no_sense_is_refused(text, message):
    with pytest.raises(OptionError, match=message):
        ours.parse_remedies(text)


def test_a_list_is_read():
    found = ours.parse_remedies("contranorm, attnscale:0.3,gfsa:-0.2:order=4,pairnorm,definite+neutreno:0.5")
    assert [one.label for one in found][:2] == ["contranorm", "attnscale:0.3"]
    assert [one.description for one in found] == [
        "contranorm(s=0.1, temperature=1)",
        "attnscale(strength=0.3)",
        "gfsa(power=-0.2, identity=0, linear=1, order=4)",
        "pairnorm(scale=default)",
        "definite() + neutreno(strength=0.5)",
    ]
    assert [one.mixes for one in found] == [True, True, False, True, False]


def test_every_method_is_described_with_its_source():
    lines = ours.describe_methods().splitlines()
    assert [line.split(":")[0] for line in lines] == list(ours.METHODS)
    assert all(line.endswith(".") and ("(20" in line or "smooths" in line) for line in lines)
