"""Do the studies stay within their memory, and does their time grow with the texts and no faster?

    python benchmarks/long_work.py --studies diagnose deep              # a quarter of an hour on 2 free CPU cores
    python benchmarks/long_work.py --studies converge compare verify --words 3    # openings of sentences; two hours

Each study, from Python in a process of its own, of `tiny` on so many sentences (the film reviews, again and again);
traced and compiled programs come from the cache after a first run. `tiny` reads letters rather than words, a hundred
tokens a sentence; `--words` takes the first so many words of each, as 20,000 whole ones take hours where the work grows
with the square and the cube of the tokens. Reported: processor time, peak memory beside what the process had before the
study, and for the last two counts the time of one more text over that of one text between the counts before: 1 is
linear. Targets: 1.1, and a peak that does not grow. `deep` diagnoses a random encoder of BERT-large's size (24 layers,
width 1024) on one text of 512 tokens; target: a peak below 8 GB, the weights' 1.3 GB included. Writes
results/long_work.json, a study of so many words in place of the one that is there.
"""

import dataclasses
import datetime
import json
import os
import resource
import subprocess
import sys
import time
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import tyro
from machine import processor

from jaxsmooth.files import atomic_write, dumps_strict

STUDIES = ("diagnose", "verify", "converge", "compare")
MIB = 2**10
"""`ru_maxrss` is in KiB."""


@dataclasses.dataclass(frozen=True)
class Args:
    """What to measure."""

    studies: tuple[str, ...] = (*STUDIES, "deep")
    """`diagnose`, `verify`, `converge`, `compare`, `deep`."""
    counts: tuple[int, ...] = (1000, 5000, 20000)
    """Texts."""
    words: int | None = None
    """Only so many words of each text, the first."""
    one: str = ""
    """Run this study here on the first of the counts, and print its numbers."""
    out: Path = Path(__file__).parent / "results" / "long_work.json"
    """Where the results go; those of other studies stay."""


def study(name: str, count: int, words: int | None) -> dict[str, float]:
    """One study on so many texts, in this process."""
    import jax

    import jaxsmooth
    from jaxsmooth.assets.texts import read_texts
    from jaxsmooth.cli.jax_settings import set_up_jax, traced_programs

    set_up_jax()
    kept = {"programs": traced_programs()}
    if name == "deep":
        config = jaxsmooth.EncoderConfig(layers=24, width=1024, heads=16, mlp_width=4096)
        model, tokenizer = jaxsmooth.init_encoder(config, jax.random.key(0)), jaxsmooth.load("minilm-l6")[1]
        texts = [" ".join(read_texts("movie-reviews", 60))]
    else:
        model, tokenizer = jaxsmooth.load("tiny")
        reviews = islice(cycle(read_texts("movie-reviews", 10000)), count)
        texts = (review if words is None else " ".join(review.split()[:words]) for review in reviews)
    before, clock, processor = _peak(), time.perf_counter(), time.process_time()
    if name == "compare":
        jaxsmooth.compare(model, tokenizer, texts, "contranorm,attnscale:0.3", **kept)
    else:
        getattr(jaxsmooth, "diagnose" if name == "deep" else name)(model, tokenizer, texts, **kept)
    return {
        "seconds": round(time.perf_counter() - clock, 1),
        "processor": round(time.process_time() - processor, 1),
        "before_mib": round(before),
        "peak_mib": round(_peak()),
    }


def _peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / MIB


def alone(name: str, count: int, words: int | None) -> dict[str, float]:
    """`study` in a process of its own."""
    command = [sys.executable, __file__, "--one", name, "--counts", str(count), "--words", str(words)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def growth(found: dict[int, dict[str, float]]) -> float | None:
    """Time of one more text at the end, over that of one before."""
    if len(found) < 3:
        return None
    (n0, a), (n1, b), (n2, c) = list(found.items())[-3:]
    return round((c["processor"] - b["processor"]) / (n2 - n1) / ((b["processor"] - a["processor"]) / (n1 - n0)), 3)


def main(args: Args) -> None:
    known: dict[str, Any] = json.loads(args.out.read_text(encoding="utf-8")) if args.out.exists() else {}
    for name in args.studies:
        key = name if args.words is None else f"{name}, {args.words} words"
        counts = (1,) if name == "deep" else args.counts
        # Compiles, what the longer runs need too: more texts have more lengths.
        alone(name, counts[min(1, len(counts) - 1)], args.words)
        found = {}
        for count in counts:
            found[count] = one = alone(name, count, args.words)
            print(f"{name:9} {count:6} texts: {one['processor']:7.1f} s of processor time, {one['seconds']:7.1f} s, "
                  f"peak {one['peak_mib']:6.0f} MiB ({one['before_mib']:.0f} before)", flush=True)  # fmt: skip
        known[key] = {"texts": found, "growth": growth(found), "date": datetime.date.today().isoformat()}
        known[key] |= {"machine": processor(), "cpus": os.cpu_count(), "load": round(os.getloadavg()[0], 1)}
        atomic_write(args.out, dumps_strict(known, indent=1) + "\n")
        print(f"{name:9} one more text at the end over one before: {known[key]['growth']}")


if __name__ == "__main__":
    args = tyro.cli(Args)
    if args.one:
        print(json.dumps(study(args.one, args.counts[0], args.words)))
    else:
        main(args)
