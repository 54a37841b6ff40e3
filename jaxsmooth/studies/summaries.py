"""The summary of a model for its report, and which bounds apply to it."""

import importlib.metadata

import jax

from ..bert.config import EncoderConfig
from ..bert.params import Encoder
from ..results.summaries import RATES, ModelSummary


def rungs(config: EncoderConfig) -> tuple[str, ...]:
    """The bounds of `RATES` that apply to an encoder's blocks; in a pre-LN encoder L1 is the rate of its own blocks.

    >>> import jaxsmooth
    >>> rungs(jaxsmooth.family_config("gpt2")), rungs(jaxsmooth.family_config("modernbert"))
    (('L1',), ())
    """
    return RATES[1:] if config.is_plain else ("L1",) if config.is_pre_norm else ()


def model_summary(model: Encoder, name: str, note: str) -> ModelSummary:
    """The size, family and precision of a model, for a report."""
    leaves = jax.tree.leaves(model)
    config = model.config
    return ModelSummary(
        name=name,
        family=config.family,
        layers=config.layers,
        heads=config.heads,
        width=config.width,
        mlp_width=config.mlp_width,
        activation=config.activation,
        parameters=sum(leaf.size for leaf in leaves),
        precision=str(leaves[0].dtype),
        note="; ".join(filter(None, (config.note, note))),
        departures=config.departures,
        rungs=rungs(config),
    )


def package_versions() -> dict[str, str]:
    """Versions of what the numbers depend on, and the device."""
    packages = ("jaxsmooth", "jax", "jaxlib", "flax", "numpy", "tokenizers")
    found = {package: importlib.metadata.version(package) for package in packages}
    return {**found, "device": jax.devices()[0].device_kind}
