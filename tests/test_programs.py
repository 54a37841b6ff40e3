"""Traced programs on disk: another process traces nothing and finds the same; what is no program is made anew."""

import dataclasses
import importlib.metadata
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import export

import jaxsmooth
from jaxsmooth import programs
from jaxsmooth.bert.params import init_encoder
from jaxsmooth.programs import kept
from jaxsmooth.studies.compare import compare
from jaxsmooth.studies.converge import converge
from jaxsmooth.studies.diagnose import diagnose
from jaxsmooth.studies.verify import verify


class Counted:
    """2 x + shift, and how often it was traced."""

    __name__ = "counted"

    def __init__(self) -> None:
        self.traced = 0

    def __call__(self, x, *shift):
        self.traced += 1
        return {"found": 2 * x + sum(shift)}


@pytest.fixture
def counted():
    return Counted()


def files(folder: Path) -> list[Path]:
    return sorted(folder.iterdir())


def test_a_second_process_traces_nothing(counted, tmp_path):
    for _ in range(2):  # each `kept` has nothing in memory, as a process of its own
        assert kept(counted, tmp_path)(jnp.arange(3.0))["found"].tolist() == [0, 2, 4]
    assert counted.traced == 1
    assert len(files(tmp_path)) == 1


def states(model, batch):
    return {"hidden": jaxsmooth.encode(model, batch)[0]}


def test_a_model_encodes_to_the_same_bits(tmp_path, traces):
    config = jaxsmooth.EncoderConfig(vocab=40, width=12, layers=2, heads=3, mlp_width=20, max_length=16)
    model = init_encoder(config, jax.random.key(0))
    tokens = np.random.default_rng(0).integers(5, 40, (2, 8))
    batch = jaxsmooth.Batch(jnp.asarray(tokens), jnp.zeros_like(tokens), jnp.asarray(np.arange(8) < [[8], [5]]))
    first = kept(states, tmp_path)(model, batch)
    count = len(traces)
    again = kept(states, tmp_path)(model, batch)
    assert len(traces) == count > 0
    other = dataclasses.replace(model, config=dataclasses.replace(config, activation="relu"))
    kept(states, tmp_path)(other, batch)
    assert len(files(tmp_path)) == 2  # what is static belongs to the program
    np.testing.assert_array_equal(first["hidden"], jax.jit(states)(model, batch)["hidden"])
    np.testing.assert_array_equal(first["hidden"], again["hidden"])


@pytest.mark.parametrize("content", [b"", b"no program", None], ids=["empty", "text", "cut short"])
def test_a_damaged_file_is_made_anew(counted, tmp_path, content):
    kept(counted, tmp_path)(jnp.ones(2))
    (path,) = files(tmp_path)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2] if content is None else content)
    assert kept(counted, tmp_path)(jnp.ones(2))["found"].tolist() == [2, 2]
    assert counted.traced == 2
    assert kept(counted, tmp_path)(jnp.ones(2))["found"].tolist() == [2, 2]
    assert counted.traced == 2


def test_what_changes_a_program_changes_its_file(counted, tmp_path, monkeypatch):
    def call(*arguments):
        kept(counted, tmp_path)(*arguments)
        return len(files(tmp_path))

    assert call(jnp.ones(2)) == 1
    assert call(jnp.ones(3)) == 2
    assert call(jnp.ones(2, jnp.float32)) == 3
    assert call(jnp.ones(2), jnp.ones(2)) == 4
    with jax.default_matmul_precision("highest"):
        assert call(jnp.ones(2)) == 5
    monkeypatch.setattr(importlib.metadata, "version", lambda package: "0.0")
    programs._sources.cache_clear()
    assert call(jnp.ones(2)) == 6
    programs._sources.cache_clear()


@dataclasses.dataclass(frozen=True)
class Scale:
    """A user's own: what it does cannot be told by its words."""

    by: float

    def __call__(self, x):
        return self.by * x


def powers(x, *, exponents, shift):
    return [x**exponent + shift for exponent in exponents], Sides(x, 2 * x)


class Sides(NamedTuple):
    lower: jax.Array
    upper: jax.Array


def test_static_arguments_belong_to_the_program(tmp_path):
    for exponents, shift in [((1, 2), 0.5), ((1, 3), 0.5), ((1, 2), 1.5), ((1, 2), 0.5)]:
        found, sides = kept(powers, tmp_path, structs=(Sides,), exponents=exponents, shift=shift)(np.full(1, 2.0))
        assert [float(one[0]) for one in found] == [2.0**exponent + shift for exponent in exponents]
        assert isinstance(sides, Sides)
        assert sides.upper.tolist() == [4]
    assert len(files(tmp_path)) == 3


def test_where_a_mesh_is_set_nothing_is_kept(counted, tmp_path):
    with jax.set_mesh(jax.make_mesh((1,), ("rows",))):
        assert kept(counted, tmp_path)(jnp.ones(2))["found"].tolist() == [2, 2]
    assert files(tmp_path) == []


def halves(x):
    return {"half": x / 2, "product": x @ x}


@pytest.mark.parametrize("folder", ["kept", None])
def test_what_is_started_here_ends_on_another_thread_by_this_ones_settings(folder, tmp_path):
    """Whether there are float64 numbers is a setting of a thread; another one has the process's own."""
    run = kept(halves, folder and tmp_path)
    x = np.random.default_rng(0).standard_normal((5, 5))
    jax.config.update("jax_enable_x64", False)
    try:
        with jax.enable_x64(True), ThreadPoolExecutor(1) as pool:
            found = [pool.submit(run.start(x)).result() for _ in range(2)]
    finally:
        jax.config.update("jax_enable_x64", True)
    for one in found:
        assert one["half"].dtype == one["product"].dtype == np.float64
        np.testing.assert_allclose(one["product"], x @ x, rtol=1e-13, atol=1e-13)


def test_where_nan_is_looked_for_it_is_found(tmp_path):
    run = kept(halves, tmp_path)
    with jax.debug_nans(True), pytest.raises(FloatingPointError):
        run.start(np.full((2, 2), np.nan))


STUDIES = {
    "diagnose": (diagnose, {}),
    "verify": (verify, {"theorems": ["shi2022_lemma1_1_values"]}),
    "converge": (converge, {"steps": 8}),
    "fate": (converge, {"map": "layer", "layer": 1, "steps": 8, "basin": 1, "std": (0.5, 1.0)}),
    "compare": (compare, {"remedies": "attnscale:0.3"}),
}


MOST = {
    "diagnose": (6, 10_400, 345_000),
    "verify": (2, 2_550, 90_000),
    "converge": (1, 4_200, 127_000),
    "fate": (5, 7_820, 259_000),
    "compare": (3, 4_200, 175_000),
}
"""Study -> its programs, and the most instructions and bytes they may have: a twentieth above what they had."""


@pytest.mark.parametrize("name", [n if n == "diagnose" else pytest.param(n, marks=pytest.mark.long) for n in STUDIES])
def test_another_process_traces_no_study_again(name, tmp_path, traces):
    study, options = STUDIES[name]
    tiny, tokenizer = jaxsmooth.load("tiny")
    config = jaxsmooth.EncoderConfig(vocab=tiny.config.vocab, width=8, layers=2, heads=2, mlp_width=8, max_length=128)
    model = init_encoder(config, jax.random.key(0))
    found, counts = [], []
    for _ in range(2):
        jax.clear_caches()
        # An iterator has no length, so `verify` takes it to be long and compiles.
        found.append(study(model, tokenizer, iter(["A film worth seeing."]), **options, programs=tmp_path))
        counts.append(len(traces))
    assert counts[0] > 0
    # What a remedy costs is read off a forward pass, with it and without.
    assert counts[1] - counts[0] == (2 if name == "compare" else 0)
    np.testing.assert_equal(*map(dataclasses.asdict, found))
    assert_small(name, files(tmp_path))


def assert_small(name: str, paths: list[Path]) -> None:
    """Guards the first answer: what must be traced and compiled for it, and read in every process, counted."""
    whole = [path.read_bytes() for path in paths]
    instructions = sum(export.deserialize(bytearray(one)).mlir_module().count("stablehlo.") for one in whole)
    programs, most, size = MOST[name]
    assert len(paths) == programs
    assert instructions <= most
    assert sum(map(len, whole)) <= size


def test_functions_and_traced_arguments_are_not_kept(counted, tmp_path):
    run = kept(lambda x, f: {"found": f(x)}, tmp_path)
    for function in (lambda x: 3 * x, Scale(3)):
        assert run(jnp.ones(2), jax.tree_util.Partial(function))["found"].tolist() == [3, 3]
        assert kept(lambda x, f: {"found": f(x)}, tmp_path, f=function)(jnp.ones(2))["found"].tolist() == [3, 3]
    assert jax.jit(kept(counted, tmp_path))(jnp.ones(2))["found"].tolist() == [2, 2]
    assert files(tmp_path) == []


def test_a_folder_that_cannot_be_made_costs_nothing(counted, tmp_path):
    (tmp_path / "file").touch()
    assert kept(counted, tmp_path / "file" / "inside")(jnp.ones(2))["found"].tolist() == [2, 2]


def test_the_programs_used_least_lately_go(counted, tmp_path, monkeypatch):
    monkeypatch.setattr(programs, "KEPT", 2)
    for size in (1, 2, 3):
        kept(counted, tmp_path)(jnp.ones(size))
    assert len(files(tmp_path)) == 2
    kept(counted, tmp_path)(jnp.ones(3))
    assert counted.traced == 3
