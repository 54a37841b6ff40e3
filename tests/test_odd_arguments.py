"""Arguments that make no sense get one of the library's own errors, not an exception of what lies below.

In a process of its own: the other tests check every call against its annotations, so that nothing odd gets through.
"""

import os
import subprocess
import sys

from support import ROOT

PROGRAM = """
import jax.numpy as jnp
import jaxsmooth
from jaxsmooth import assets, metrics
from jaxsmooth.errors import JaxsmoothError

model, tokenizer = jaxsmooth.load("tiny")
batch = tokenizer(["Dull."])
nothing = jaxsmooth.Batch(tokens=None, segments=None, mask=None)
CASES = {
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
"""


def test_odd_arguments_get_the_librarys_errors():
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", PROGRAM], env=environment, capture_output=True, text=True, timeout=300)
    assert (done.stdout, done.returncode) == ("40 cases\n", 0), done.stdout + done.stderr
