"""Remedies by name, for the command line: "contranorm,attnscale:0.3,contranorm:0.2+neutreno"."""

import dataclasses
import functools
import math
from collections.abc import Callable, Mapping
from typing import NamedTuple

import jax

from ..bert.params import Encoder
from ..errors import OptionError, arguments_checked, did_you_mean
from ..types import Edits, compose
from . import remedies
from .remedies import AnyBatch, Remedy
from .weights import make_definite

Values = tuple[tuple[str, float | int | None], ...]


class Parameter(NamedTuple):
    """A number that a remedy takes.

    Attributes:
      default: used where none is given; None lets the model decide.
      least: smallest value allowed.
      most: largest value allowed.
      about: what it is, and where the default comes from.
      whole: whether it must be an integer.
      open: whether `most` itself is excluded.
    """

    default: float | None
    least: float
    most: float
    about: str
    whole: bool = False
    open: bool = False


class Method(NamedTuple):
    """A published method as the command line knows it.

    Attributes:
      make: maps the parameters to a `Remedy`; None for a method that only changes weights.
      parameters: name -> `Parameter`; the first is the one that may be given without its name.
      source: where it was published.
      change: maps the parameters to a change of the model's weights.
      mixes: whether a token comes to see all others, so that a causal encoder is causal no more.
      random: whether it draws random numbers, the same at every call.
    """

    make: Callable[..., Remedy] | None
    parameters: Mapping[str, Parameter]
    source: str
    change: Callable[..., Callable[[Encoder], Encoder]] | None = None
    mixes: bool = True
    random: bool = False


def _dropout(rate: float, seed: int) -> Remedy:
    return remedies.attention_dropout(jax.random.key(seed), rate)


def _negative() -> Callable[[Encoder], Encoder]:
    return functools.partial(make_definite, sign=-1)


def _positive() -> Callable[[Encoder], Encoder]:
    return functools.partial(make_definite, sign=1)


_ANY = 1e6  # far beyond any use, and still far from overflow in float32
_CONTRANORM = {
    "s": Parameter(0.1, 0, _ANY, "strength; the default is ours"),
    "temperature": Parameter(1.0, 1e-3, _ANY, "of the softmax; 1 in the released code"),
}
_FEATSCALE = {
    "high": Parameter(0.3, -_ANY, _ANY, "t2, gain of what differs between tokens; the paper learns it, from 0"),
    "low": Parameter(0.0, -_ANY, _ANY, "t1, gain of their mean; the paper learns it, from 0"),
}
METHODS: dict[str, Method] = {
    "contranorm": Method(
        lambda s, temperature: remedies.contranorm(s, temperature=temperature),
        _CONTRANORM,
        "Guo et al. (2023), arXiv 2303.06562",
    ),
    "contranorm-vit": Method(
        lambda s, temperature: remedies.contranorm(s, temperature=temperature, form="vit"),
        _CONTRANORM,
        "Guo et al. (2023), arXiv 2303.06562, form of Vision Transformers",
    ),
    "contranorm-dual": Method(
        lambda s, temperature: remedies.contranorm(s, temperature=temperature, dual=True),
        _CONTRANORM,
        "Guo et al. (2023), arXiv 2303.06562, dual form",
    ),
    "attnscale": Method(
        remedies.attn_scale,
        {"strength": Parameter(0.3, -_ANY, _ANY, "w of all heads; the paper learns it, from 0")},
        "Wang et al. (2022), arXiv 2203.05962",
    ),
    "featscale": Method(
        lambda high, low: remedies.feat_scale(low, high), _FEATSCALE, "Wang et al. (2022), arXiv 2203.05962"
    ),
    "featscale-released": Method(
        lambda high, low: remedies.feat_scale(low, high, convention="released"),
        _FEATSCALE,
        "Wang et al. (2022), arXiv 2203.05962, gains 1 + 2 t of a released version of the code",
    ),
    "neutreno": Method(
        remedies.neutreno,
        {"strength": Parameter(0.6, 0, _ANY, "lambda; 0.6 after the paper")},
        "Nguyen, Nguyen and Baraniuk (2023), NeurIPS 2023",
        mixes=False,
    ),
    "gfsa": Method(
        lambda power, identity, linear, order: remedies.graph_filter(
            power, identity=identity, linear=linear, order=order
        ),
        {
            "power": Parameter(-0.3, -_ANY, _ANY, "wK; the paper learns it, from 0"),
            "identity": Parameter(0.0, -_ANY, _ANY, "w0"),
            "linear": Parameter(1.0, -_ANY, _ANY, "w1; 1 in the paper"),
            "order": Parameter(3, 2, 1000, "K", whole=True),
        },
        "Choi et al. (2024), arXiv 2312.04234",
        mixes=False,
    ),
    "centred": Method(
        remedies.centred_attention,
        {"strength": Parameter(1.0, -_ANY, _ANY, "c in A - c J0; 1 in the paper")},
        "Ali et al. (2023), arXiv 2306.01610",
    ),
    "tempscale": Method(
        remedies.temp_scale,
        {"temperature": Parameter(0.8, 1e-3, _ANY, "tau, of all heads; the default is ours")},
        "Zhou et al. (2024), arXiv 2410.24200",
        mixes=False,
    ),
    "lengthscale": Method(
        remedies.length_scale,
        {"reference": Parameter(32, 2, _ANY, "n0 in log n / log n0; the default is ours")},
        "after Nakanishi (2025), arXiv 2501.19399, with a factor that is not learned",
    ),
    "softdecay": Method(
        remedies.soft_decay,
        {"alpha": Parameter(-0.2, -1.0, -1e-3, "a; -0.2 at initialisation in the released code")},
        "Yan et al. (2022), UAI 2022",
    ),
    "resgcn": Method(
        lambda relu: remedies.resgcn(relu=bool(relu)),
        {"relu": Parameter(1, 0, 1, "whether the aggregate passes a ReLU", whole=True)},
        "Shi et al. (2022), arXiv 2202.08625, section 3; no remedy: a graph convolution in attention's place",
        mixes=False,
    ),
    "definite": Method(
        None,
        {},
        "after Dovonon, Bronstein and Kusner (2024), arXiv 2401.04301; every head's W_V W_O negative semidefinite",
        change=_negative,
        mixes=False,
    ),
    "definite-positive": Method(
        None, {}, "as definite, with the other sign: the one that smooths", change=_positive, mixes=False
    ),
    "pairnorm": Method(
        remedies.pair_norm,
        {"scale": Parameter(None, 0, _ANY, "s; sqrt(D) if not given")},
        "Zhao and Akoglu (2020), arXiv 1909.12223",
    ),
    "initial-residual": Method(
        remedies.initial_residual,
        {"share": Parameter(0.1, 0, 1, "a; 0.1 in GCNII")},
        "Chen et al. (2020), arXiv 2007.02133",
        mixes=False,
    ),
    "residual-scaling": Method(
        remedies.residual_scaling,
        {"factor": Parameter(None, 0, _ANY, "of both branches; 1/sqrt(L) if not given")},
        "Noci et al. (2022), arXiv 2206.03126",
        mixes=False,
    ),
    "attention-dropout": Method(
        _dropout,
        {
            "rate": Parameter(0.1, 0, 1, "probability that a weight is zeroed; 0.1 in BERT's training", open=True),
            "seed": Parameter(0, 0, 2**31 - 1, "of the draw", whole=True),
        },
        "Srivastava et al. (2014)",
        mixes=False,
        random=True,
    ),
}
"""Name on the command line -> method."""


@dataclasses.dataclass(frozen=True)
class NamedRemedy:
    """One entry of a list of remedies: one method, or several joined by "+".

    Attributes:
      label: as it was written.
      parts: method and parameters of each part, in the order in which they act.
    """

    label: str
    parts: tuple[tuple[str, Values], ...]

    def change(self, model: Encoder) -> Encoder:
        """The model with its weights as the remedy wants them; most remedies leave them alone."""
        for name, values in self.parts:
            change = METHODS[name].change
            if change is not None:
                model = change(**dict(values))(model)
        return model

    def edits(self, model: Encoder, batch: AnyBatch) -> Edits:
        """The edits of all parts, one after the other; `model` is the changed one."""
        made = [(METHODS[name].make, dict(values)) for name, values in self.parts]
        return compose(*(make(**values)(model, batch) for make, values in made if make is not None))

    @property
    def random(self) -> bool:
        """Whether a part draws random numbers."""
        return any(METHODS[name].random for name, _ in self.parts)

    @property
    def mixes(self) -> bool:
        """Whether a token comes to see all others."""
        return any(METHODS[name].mixes for name, _ in self.parts)

    @property
    def description(self) -> str:
        """Every part with all its parameters."""
        return " + ".join(f"{name}({_written(values)})" for name, values in self.parts)


@arguments_checked
def parse_remedies(text: str) -> list[NamedRemedy]:
    """Read a list of remedies: entries between commas, joined methods between "+", parameters after ":".

    Args:
      text: for example "contranorm,attnscale:0.3,gfsa:0.2:order=4,contranorm+neutreno:0.5". The first parameter of a
        method needs no name. `describe_methods` lists all.

    Returns:
      One `NamedRemedy` per entry.

    Raises:
      OptionError: a method or parameter that does not exist, a value out of range, or nothing at all.

    >>> [one.description for one in parse_remedies("attnscale:0.3, contranorm+attention-dropout:seed=4")]
    ['attnscale(strength=0.3)', 'contranorm(s=0.1, temperature=1) + attention-dropout(rate=0.1, seed=4)']
    """
    if not isinstance(text, str) or not text.strip():
        raise OptionError(
            f"name the remedies, as in 'contranorm,attnscale:0.3' (`jaxsmooth remedies` lists them); got {text!r}."
        )
    found = [_entry(entry.strip()) for entry in text.split(",")]
    labels = [one.label for one in found]
    twice = next((label for label in labels if labels.count(label) > 1), None)
    if twice is not None:
        raise OptionError(f"each remedy can be listed once; {twice!r} is listed {labels.count(twice)} times.")
    return found


@arguments_checked
def describe_methods() -> str:
    """One line per method: name, parameters with defaults and ranges, source.

    >>> print(describe_methods().splitlines()[3])
    attnscale: strength=0.3 (w of all heads; the paper learns it, from 0). Wang et al. (2022), arXiv 2203.05962.
    """
    lines = []
    for name, method in METHODS.items():
        parameters = ", ".join(
            f"{key}{'' if one.default is None else f'={one.default:g}'} ({one.about})"
            for key, one in method.parameters.items()
        )
        lines.append(f"{name}: {parameters or 'no parameter'}. {method.source}.")
    return "\n".join(lines)


def _entry(label: str) -> NamedRemedy:
    return NamedRemedy(label, tuple(_part(part.strip(), label) for part in label.split("+")))


def _part(text: str, label: str) -> tuple[str, Values]:
    name, *given = text.split(":")
    if name not in METHODS:
        near = did_you_mean(name, METHODS)
        raise OptionError(f"there is no remedy {name!r} (in {label!r}); there are {', '.join(METHODS)}.{near}")
    parameters = METHODS[name].parameters
    values: dict[str, float | int | None] = {key: parameter.default for key, parameter in parameters.items()}
    named: set[str] = set()
    for place, one in enumerate(given):
        key, equals, number = one.partition("=")
        if not equals:
            if place:
                raise OptionError(f"only the first parameter of {name} needs no name; got {one!r} in {label!r}.")
            key, number = next(iter(parameters), one), one
        if key not in parameters or key in named:
            problem = "is given twice" if key in named else "is none of them"
            known = ", ".join(parameters) or "none"
            near = "" if key in named else did_you_mean(key, parameters)
            raise OptionError(f"parameters of {name}: {known}; {key!r} in {label!r} {problem}.{near}")
        named.add(key)
        values[key] = _number(number, parameters[key], f"{name}:{key}")
    return name, tuple(values.items())


def _number(text: str, parameter: Parameter, what: str) -> float | int:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    inside = parameter.least <= value < parameter.most if parameter.open else parameter.least <= value <= parameter.most
    if not inside or (parameter.whole and value != int(value)):
        kind = "a whole number" if parameter.whole else "a number"
        end = "below" if parameter.open else "to"
        raise OptionError(
            f"{what} must be {kind} from {parameter.least:g} {end} {parameter.most:g}, {parameter.about}; got {text!r}."
        )
    return int(value) if parameter.whole else value


def _written(values: Values) -> str:
    return ", ".join(f"{key}={'default' if value is None else f'{value:g}'}" for key, value in values)
