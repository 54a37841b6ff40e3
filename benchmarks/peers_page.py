"""The library beside what a user would otherwise run, on one page: peers.md, of the results of the benchmarks.

    python benchmarks/peers_page.py

Reads diagnose.json, train_step.json and spectra.json in benchmarks/results.
"""

import json
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"


def write_page(folder: Path) -> None:
    """peers.md, in place of the one that is there."""
    aside = folder / ".peers.md.part"
    aside.write_text(markdown(folder), encoding="utf-8")
    aside.replace(folder / "peers.md")


def markdown(folder: Path) -> str:
    """The page."""
    lines = [
        "# Beside its peers",
        "",
        "Ratios are our time over the peer's, of rounds by turns in one process: below 1 we are faster. Median [least,",
        "largest] of the rounds' ratios. Every row names its machine, for whose processor one library's products may",
        "be made and another's not: compare within a row, not between rows.",
        "",
        "## A training step and a forward pass",
        "",
        "`python benchmarks/train_step.py`: minilm-l6, float32. *Limit*: what the model's products would take at the",
        "rate of a product of [2048 384] by [384 1536], the faster of XLA's and torch's in the same rounds. *Products",
        "alone*: what XLA / torch take for a model of nothing but the same products, forwards and backwards.",
        "",
        "| part | peer | ratio | ours, s | limit, s | ours / limit | products alone, s | setting | machine, date |",
        "|---|---|---|---|---|---|---|---|---|",
        *(line for entry in read(folder / "train_step.json") for line in steps(entry)),
        "",
        "## Diagnosis",
        "",
        *diagnosis(read(folder / "diagnose.json")),
        "",
        "## Spectra",
        "",
        *spectra(read(folder / "spectra.json")),
    ]
    return "\n".join(lines) + "\n"


def read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def steps(entry: dict[str, Any]) -> list[str]:
    """Rows of one entry of train_step.json."""
    setting = entry["setting"]
    how = f"{setting['rows']} x {setting['length']} tokens, dropout {setting['dropout']:g}, {entry['clock']}"
    how += ", freed memory kept" if setting.get("keep") else ""
    lines = []
    for part, peers in entry["ratios"].items():
        ours = entry["seconds"][f"{part} ours"]
        limit = entry.get("products", {}).get("limit", {}).get(part)
        cells = f"{ours:.2f} | " + ("- | -" if limit is None else f"{limit:.2f} | {ours / limit:.2f}")
        bare = [entry["seconds"].get(f"bare {part} {side}") for side in ("ours", "torch")]
        cells += " | " + ("-" if None in bare else " / ".join(f"{seconds:.2f}" for seconds in bare))
        for peer, ratios in peers.items():
            where = f"{entry['machine']}, load {entry['load']:.1f}, {entry['date']}"
            spread = f"{entry['ratio'][part][peer]:.2f} [{min(ratios):.2f}, {max(ratios):.2f}]"
            lines.append(f"| {part} | {peer} | {spread} | {cells} | {how} | {where} |")
    return lines


def diagnosis(result: dict[str, Any]) -> list[str]:
    """The ratio of times against each torch program."""
    rows = [
        f"| torch eager, L3 by {solver} | {1 / ratio:.2f} | {result['seconds']['ours']['median']:.1f} "
        f"| {result['seconds'][solver]['median']:.1f} |"
        for solver, ratio in result["time_ratio"].items()
    ]
    return [
        f"`{result['command']}`: {result['task']}. {result['machine']['cpu']}, {result['date']}.",
        "",
        "| peer | ratio | ours, s | theirs, s |",
        "|---|---|---|---|",
        *rows,
    ]


def spectra(result: dict[str, Any]) -> list[str]:
    """The largest singular value of centred attention, against every other routine."""
    lines = [
        f"`{result['heads']['command']}`: sqrt(lambda) of attention matrices; {result['heads']['machine']['cpu']}, "
        f"{result['heads']['date']}. Ratios of medians (of least processor time). Errors, and attention that is never",
        "formed over XLA's own products, are in [spectra.md](spectra.md).",
        "",
        "| heads x tokens | arithmetic | peer | ratio |",
        "|---|---|---|---|",
    ]
    for part in (result["heads"], result["one_head"]):
        for precision in ("float64", "float32"):
            faster = {"numpy svd": part[precision]["times_faster"]}
            faster |= {peer: found["times_faster"] for peer, found in part[precision]["peers"].items()}
            for peer, found in faster.items():
                ratio = f"{1 / found['median']:.2g} ({1 / found['processor']:.2g})"
                lines.append(f"| {part['heads']} x {part['tokens']} | {precision} | {peer} | {ratio} |")
    return lines


if __name__ == "__main__":
    write_page(RESULTS)
