"""Arguments that make no sense get one of the library's own errors, not an exception of what lies below.

In a process of its own: the other tests check every call against its annotations, so that nothing odd gets through.
"""

import os
import subprocess
import sys

from support import ROOT

PROGRAM = """
import inspect
import os
import tempfile

import jax.numpy as jnp
import numpy as np
import jaxsmooth
from jaxsmooth import Edits, assets, interventions, metrics, theory
from jaxsmooth.mitigations import remedies
from jaxsmooth.errors import JaxsmoothError

model, tokenizer = jaxsmooth.load("tiny")
batch = tokenizer(["Dull."])
nothing = jaxsmooth.Batch(tokens=None, segments=None, mask=None)
two, both, real = jnp.eye(2), jnp.ones((1, 2, 1)), jnp.ones(2, bool)
same, block = (lambda x: x), theory.RandomBlock()


def mapped(**options):
    return jaxsmooth.converge(model, tokenizer, ["Dull."], **{"map": "layer", "layer": 1, "steps": 2, **options})


def encoded(**edits):
    return jaxsmooth.encode(model, batch, edits=Edits(**edits))


def compared(remedies):
    return jaxsmooth.compare(model, tokenizer, ["a"], remedies)


def diagnosed(metrics):
    return jaxsmooth.diagnose(model, tokenizer, ["a"], metrics=metrics)


def gone():
    here = os.getcwd()
    os.chdir(tempfile.mkdtemp())
    os.rmdir(os.getcwd())
    try:
        jaxsmooth.load("../mine")
    finally:
        os.chdir(here)


ROOMS = {
    "": jaxsmooth,
    **{name: getattr(jaxsmooth, name) for name in (
        "assets", "fusion", "interventions", "metrics", "mitigations", "report", "results", "theory"
    )},
    "remedies": remedies,
}


def functions():
    # every public function of the library, by room and name, each once
    found = {}
    for room, module in ROOMS.items():
        names = getattr(module, "__all__", None) or [name for name in vars(module) if name[0] != "_"]
        alone = room in ("fusion", "metrics", "remedies")  # modules, in which what they import stands too
        for name in names:
            value = getattr(module, name)
            own = callable(value) and not isinstance(value, type) and value.__module__.startswith("jaxsmooth")
            if own and not (alone and value.__module__ != module.__name__) and value not in found.values():
                found[f"{room}.{name}"] = value
    return found


CASES = {
    "site": lambda: Edits(atn=lambda layer, attn: attn),
    "edit of one argument": lambda: Edits(attn=lambda attn: attn),
    "edit no function": lambda: Edits(attn=0.5),
    "edit with an if": lambda: encoded(attn=lambda layer, attn: attn if layer == 3 else 0 * attn),
    "edit with an index": lambda: encoded(mlp=lambda layer, mlp: [1, 2, 3, 4][layer] * mlp),
    "edit with numpy": lambda: encoded(mlp=lambda layer, mlp: __import__("numpy").asarray(mlp)),
    "edit without return": lambda: encoded(attn=lambda layer, attn: None),
    "edit in part without return": lambda: jaxsmooth.encode(
        model, batch, edits=interventions.restrict(Edits(mlp=lambda layer, mlp: None), layers=1)
    ),
    "scale of a layer that is not": lambda: jaxsmooth.encode(
        model, batch, edits=interventions.scale("mlp", 0.0, layers=9)
    ),
    "one of several layers that is not": lambda: jaxsmooth.encode(
        model, batch, edits=jaxsmooth.compose(Edits(), interventions.replace("attn", 0.0, layers=[0, 4]))
    ),
    "attribution of a layer that is not": lambda: interventions.attribution(
        model, batch, edits=interventions.scale("mlp", 0.0, layers=4)
    ),
    "record with a layer that is not": lambda: interventions.record(
        model, batch, ["mlp"], edits=interventions.scale("mlp", 0.0, layers=4)
    ),
    "layer word": lambda: interventions.scale("mlp", 0.0, layers="three"),
    "fused layer word": lambda: jaxsmooth.fusion.init_fusion("max", model.config, None, layers=["a"]),
    "fused layer fraction": lambda: jaxsmooth.fusion.init_fusion("max", model.config, None, layers=[1.5]),
    "compose no edits": lambda: jaxsmooth.compose(remedies.contranorm(0.1)),
    "combine no remedy": lambda: remedies.combine("contranorm"),
    "remedy number": lambda: compared(5),
    "remedy none": lambda: compared({}),
    "remedy without a name": lambda: compared([remedies.contranorm(0.1)]),
    "remedy that is not": lambda: compared({"mine": 5}),
    "remedy of one argument": lambda: compared({"mine": lambda model: Edits()}),
    "remedy that returns nothing": lambda: compared({"mine": lambda model, batch: None}),
    "remedy under a name that is taken": lambda: compared({"contranorm": Edits()}),
    "compare no model": lambda: jaxsmooth.compare(None, tokenizer, ["a"], "contranorm"),
    "verify no model": lambda: jaxsmooth.verify(None, tokenizer, ["a"]),
    "verify no theorem": lambda: jaxsmooth.verify(model, tokenizer, ["a"], theorems=[lambda q: q]),
    "verify one theorem": lambda: jaxsmooth.verify(model, tokenizer, ["a"], theorems=3),
    "metric no function": lambda: diagnosed({"mine": 3}),
    "metric without a name": lambda: diagnosed([metrics.token_norm]),
    "metric under a name that is taken": lambda: diagnosed({"token_norm": metrics.token_norm}),
    "metric of padding": lambda: diagnosed({"mine": lambda hidden, mask: hidden.mean((1, 2))}),
    "metric of all sentences": lambda: diagnosed({"mine": lambda hidden, mask: hidden.mean()}),
    "metric that fails": lambda: diagnosed({"mine": lambda hidden, mask: hidden.nothing}),
    "setting": lambda: jaxsmooth.FinetuneConfig(learning_rat=1e-4),
    "field": lambda: jaxsmooth.EncoderConfig(widht=4),
    "finetune no settings": lambda: jaxsmooth.finetune("tiny"),
    "evaluate nowhere": lambda: jaxsmooth.evaluate("nowhere"),
    "predict nowhere": lambda: jaxsmooth.predict("nowhere", ["a"]),
    "finetune log no function": lambda: jaxsmooth.finetune(jaxsmooth.FinetuneConfig(out="nowhere"), log=3),
    "hypotheses a string": lambda: jaxsmooth.verify(model, tokenizer, ["a"], hypotheses="attention_sink"),
    "a convention that is not": lambda: metrics.mean_average_distance(two, real, convention="x"),
    "a centre that is not": lambda: metrics.dong_residual(two, real, centre="x"),
    "read a result of nowhere": lambda: jaxsmooth.Diagnosis.load(None),
    "write no result": lambda: jaxsmooth.report.write_diagnosis("x", "nowhere"),
    "write a convergence as a comparison": lambda: jaxsmooth.report.write_comparison(model, "nowhere"),
    "load from a file": lambda: jaxsmooth.load(__import__("os").__file__ + "/mine"),
    "load a keyword that is not": lambda: jaxsmooth.load("tiny", dtpye="float32"),
    "load too many": lambda: jaxsmooth.load("tiny", "float32"),
    "load nothing": lambda: jaxsmooth.load(),
    "save to a number": lambda: jaxsmooth.save(model, 3),
    "encode, a place that is no function": lambda: jaxsmooth.encode(model, batch, place=3),
    "encode, a collect of nothing": lambda: jaxsmooth.encode(model, batch, collect=lambda: 1),
    "encode, remat a list": lambda: jaxsmooth.encode(model, batch, remat=[1]),
    "encode, successive an array": lambda: jaxsmooth.encode(model, batch, successive=np.ones(2)),
    "encode, attention an array": lambda: jaxsmooth.encode(model, batch, attention=np.ones(2)),
    "load from a folder that is gone": gone,
    "load None": lambda: jaxsmooth.load(None),
    "load number": lambda: jaxsmooth.load(3),
    "load bytes": lambda: jaxsmooth.load(b"tiny"),
    "load empty": lambda: jaxsmooth.load(""),
    "load zero byte": lambda: jaxsmooth.load("a\\0b"),
    "load endless name": lambda: jaxsmooth.load("x" * 5000),
    "dtype int": lambda: jaxsmooth.load("tiny", dtype="int32"),
    "dtype word": lambda: jaxsmooth.load("tiny", dtype="bogus"),
    "dtype number": lambda: jaxsmooth.load("tiny", dtype=3),
    "texts None": lambda: tokenizer(None),
    "texts numbers": lambda: tokenizer([1]),
    "length word": lambda: tokenizer(["a"], length="x"),
    "pairs string": lambda: tokenizer(["a"], "b"),
    "ids string": lambda: tokenizer.strings("ab"),
    "ids fractions": lambda: tokenizer.strings([1.5]),
    "ids None": lambda: tokenizer.strings(None),
    "metric of a short mask": lambda: metrics.token_norm(jnp.ones((2, 3, 4)), jnp.ones((2, 2), bool)),
    "metric of one mask for all": lambda: metrics.effective_rank(jnp.ones((2, 3, 4)), jnp.ones(3, bool)),
    "metric of weights": lambda: metrics.stable_rank(jnp.ones((3, 4)), jnp.ones(3)),
    "metric of a vector": lambda: metrics.mean_average_distance(jnp.ones(3), jnp.ones((), bool)),
    "save None": lambda: jaxsmooth.save(None, "nowhere"),
    "encode no batch": lambda: jaxsmooth.encode(model, None),
    "encode text": lambda: jaxsmooth.encode(model, ["a"]),
    "encode no model": lambda: jaxsmooth.encode(None, batch),
    "encode empty batch": lambda: jaxsmooth.encode(model, nothing),
    "encode edits": lambda: jaxsmooth.encode(model, batch, edits={}),
    "encode collect": lambda: jaxsmooth.encode(model, batch, collect=None),
    "embed text": lambda: jaxsmooth.embed(model, "a"),
    "diagnose no model": lambda: jaxsmooth.diagnose(None, tokenizer, ["a"]),
    "diagnose swapped": lambda: jaxsmooth.diagnose(tokenizer, model, ["a"]),
    "diagnose no tokenizer": lambda: jaxsmooth.diagnose(model, "x", ["a"]),
    "diagnose number": lambda: jaxsmooth.diagnose(model, tokenizer, 5),
    "diagnose bytes": lambda: jaxsmooth.diagnose(model, tokenizer, b"abc"),
    "read None": lambda: assets.read_texts(None),
    "read number": lambda: assets.read_texts(3),
    "read zero byte": lambda: assets.read_texts("a\\0b"),
    "read endless name": lambda: assets.read_texts("x" * 5000),
    "fetch None": lambda: assets.fetch(None),
    "fetch list": lambda: assets.fetch([]),
    "path dict": lambda: assets.asset_path({}),
    "basin, a list of stds": lambda: theory.certified_basin(model, std=[1.0]),
    "basin, std a word": lambda: theory.certified_basin(model, std="1"),
    "basin, one margin": lambda: theory.certified_basin(model, margins=(0.5,)),
    "basin, margins a number": lambda: theory.certified_basin(model, margins=0.5),
    "basin, a start of words": lambda: theory.certified_basin(model, start=["a"] * 64),
    "kernel of a correlation of 2": lambda: theory.activation_kernel("relu", 1.0, 2.0),
    "kernel of no activation": lambda: theory.activation_kernel("swish", 1.0, 0.5),
    "kernel of a negative std": lambda: theory.activation_kernel("gelu", -1.0, 0.5),
    "slope of no activation": lambda: theory.activation_slope("swish", 1.0),
    "slope of a std that is a word": lambda: theory.activation_slope("relu", "1"),
    "a random block of no activation": lambda: theory.RandomBlock(activation="swish"),
    "step of no token": lambda: theory.cowsik2024_step(block, 1.0, 0.5, 0),
    "step of fewer": lambda: theory.cowsik2024_step(block, 1.0, 0.5, -3),
    "step of a cosine of 2": lambda: theory.cowsik2024_step(block, 1.0, 2.0, 4),
    "step of four opposite tokens": lambda: theory.cowsik2024_step(block, 1.0, -1.0, 4),
    "sinks of NaN": lambda: theory.has_sink(np.full((2, 2), np.nan)),
    "sinks of a row": lambda: theory.has_sink(np.ones(2)),
    "hemisphere of NaN": lambda: theory.open_hemisphere(np.full((2, 2), np.nan)),
    "hemisphere of a row": lambda: theory.open_hemisphere(np.ones(2)),
    "iterate once": lambda: theory.converge(two, two, real, steps=1),
    "iterate never": lambda: theory.converge(two, two, real, steps=0),
    "iterate to less than nothing": lambda: theory.converge(two, two, real, tolerance=-1.0),
    "iterate a graph never": lambda: theory.converge_symmetric(two, two, real, steps=0),
    "follow backwards": lambda: theory.follow(same, both, real[None], steps=-1),
    "follow one sentence": lambda: theory.follow(same, both[0], real),
    "follow to less than nothing": lambda: theory.follow(same, both, real[None], tolerance=-1.0),
    "a basin of fewer halvings": lambda: theory.consensus_basin(same, both, real[None], halvings=-1),
    "approach in no step": lambda: theory.approach_consensus(same, both, real[None], steps=0),
    "fate of a matrix that is not square": lambda: theory.residual_fate(np.ones((2, 3)), np.eye(2)),
    "spectrum of a vector": lambda: theory.residual_eigenvalues(np.eye(2), np.ones(2)),
    "map, a keyword that is not": lambda: mapped(stepps=3),
    "heads, a keyword that is not": lambda: mapped(map="frozen", layer=None, stepps=3),
    "map, std True": lambda: mapped(std=True),
    "map, std a word": lambda: mapped(std="a"),
    "map, stds with a word": lambda: mapped(std=[1.0, "a"]),
    "map, tolerance below 0": lambda: mapped(tolerance=-1.0),
    "map, tolerance a word": lambda: mapped(tolerance="x"),
    "map, tolerance NaN": lambda: mapped(tolerance=float("nan")),
    "map, layer True": lambda: mapped(layer=True),
    "heads, tolerance below 0": lambda: mapped(map="frozen", layer=None, tolerance=-1.0),
}
for name, call in CASES.items():
    try:
        call()
        print(name, "was accepted")
    except JaxsmoothError as error:
        assert str(error), name
    except Exception as error:
        print(name, "gave", repr(error)[:200])
print(len(CASES), "cases")
every = functions()
for name, function in every.items():
    for given, words in (((), {"no_such_argument": 1}), ((0,) * 40, {})):
        try:
            function(*given, **words)
            print(name, "was accepted") if words else None  # some take any number by position
        except JaxsmoothError as error:
            takes_any = any(one.kind is one.VAR_KEYWORD for one in inspect.signature(function).parameters.values())
            assert not words or takes_any or "no_such_argument" in str(error), (name, str(error))
        except Exception as error:
            print(name, "gave", repr(error)[:200])
print(len(every) > 340, "functions")
for given in (np.float32(2), np.array(2.0), jnp.float32(2), np.array([2.0])):
    found = mapped(std=given, layer=np.int64(1), steps=np.int64(2), tolerance=np.float32(1e-4))
    print(found.std or found.sweeps[0].stds.tolist(), found.steps)
"""


def test_odd_arguments_get_the_librarys_errors():
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", PROGRAM], env=environment, capture_output=True, text=True, timeout=300)
    numbers = "2.0 2\n" * 3 + "[2.0] 2\n"  # those of numpy and jax are numbers
    assert (done.stdout, done.returncode) == (f"137 cases\nTrue functions\n{numbers}", 0), done.stdout + done.stderr
