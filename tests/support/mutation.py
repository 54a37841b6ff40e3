"""Ways to damage a file, for test_fuzz.py. Each takes the file's bytes and a `random.Random`, and returns bytes.

The generators come from Hypothesis, so a failing example shrinks and is replayed.
"""

import io
import json
import struct
import zipfile
from random import Random
from typing import Any

DEEP = "@deeply nested@"
HUGE = "@an integer of 5000 digits@"
VALUES = [
    *(None, True, False, 0, 1, -1, 2, 3, 7, 20, 48, 2**31 - 1, 2**31, 2**63, 10**30, -(2**40)),
    *(0.5, -0.0, 1e308, float("inf"), float("nan"), 1e-300),
    *(
        "",
        "gelu",
        "relu",
        "bert",
        "F64",
        "F16",
        "BF16",
        "I64",
        "BOOL",
        "F8_E4M3",
        "nonsense",
        "💥",
        "\ud800",
        "\0",
        "x" * 10_000,
    ),
    *([], {}, [[[]]], [None], {"a": {"b": []}}, [0, 2**62], [-1, 5], [2**31, 2**31], [0, 0], [20, 20]),
    *("../escape.safetensors", "/etc/hostname", DEEP, HUGE),
]
BLOCKS = [
    b"",
    b"\0",
    b"\xff\xfe",
    b"\xef\xbb\xbf",
    b"\r\n",
    b"\n\n\n",
    b"[UNK]\n",
    b"##\n",
    b"}" * 50,
    "é".encode("latin-1"),
    b"a" * 100_000,
]


def mutate_bytes(content: bytes, rnd: Random) -> bytes:
    """A few byte flips, cuts, repeats, swaps and insertions."""
    out = bytearray(content)
    for _ in range(rnd.randint(1, 4)):
        at = rnd.randint(0, len(out))
        end = min(len(out), at + rnd.choice([1, 2, 8, 64, 1024]))
        kind = rnd.randrange(5)
        if kind == 0:
            out[at:end] = bytes(rnd.randrange(256) for _ in range(end - at))
        elif kind == 1:
            del out[at:]
        elif kind == 2:
            del out[at:end]
        elif kind == 3:
            out[at:at] = out[at:end] * rnd.choice([1, 2, 50])
        else:
            out[at:at] = rnd.choice(BLOCKS)
    return bytes(out)


def mutate_numbers(content: bytes, rnd: Random) -> bytes:
    """Overwrite numbers of a binary header, wherever they may start, by others that are likely to hurt."""
    out = bytearray(content)
    for _ in range(rnd.choice([1, 1, 2, 3])):
        size = rnd.choice([1, 2, 4, 8])
        at = rnd.randrange(min(len(out), rnd.choice([80, 4096])))
        near = int.from_bytes(out[at : at + size], "little") + rnd.choice([-33, -32, -1, 1, 32, 33])
        wrong = rnd.choice([0, 1, near, 2**31 - 1, 2**31, 2**63, 2**64 - 1, rnd.getrandbits(64)])
        out[at : at + size] = (wrong % 2 ** (8 * size)).to_bytes(size, "little")
    return bytes(out)


def mutate_lines(content: bytes, rnd: Random) -> bytes:
    """Drop, repeat, swap or garble lines."""
    lines = content.split(b"\n")
    for _ in range(rnd.randint(1, 6)):
        i, j = rnd.randrange(len(lines)), rnd.randrange(len(lines))
        kind = rnd.randrange(4)
        if kind == 0 and len(lines) > 1:
            del lines[i]
        elif kind == 1:
            lines.insert(i, lines[j])
        elif kind == 2:
            lines[i], lines[j] = lines[j], lines[i]
        else:
            lines[i] = rnd.choice(BLOCKS)
    return b"\n".join(lines)


def mutate_value(value: Any, rnd: Random) -> Any:
    """Change one place of a JSON value: replaced, removed, renamed or repeated."""
    if not isinstance(value, (dict, list)) or not value or rnd.random() < 0.05:
        return rnd.choice(VALUES)
    if isinstance(value, list):
        i, out = rnd.randrange(len(value)), list(value)
        kind = rnd.randrange(4)
        out[i : i + 1] = [[], [value[i]] * 2, [rnd.choice(VALUES)], [mutate_value(value[i], rnd)]][kind]
        return out
    key, out = rnd.choice(list(value)), dict(value)
    kind = rnd.randrange(6)
    if kind == 0:
        del out[key]
    elif kind == 1:
        out[str(rnd.choice(VALUES))] = out.pop(key)
    elif kind == 2:
        out[key] = out[rnd.choice(list(value))]
    else:
        out[key] = mutate_value(value[key], rnd)
    return out


def dump(value: Any, rnd: Random) -> bytes:
    """JSON text with the markers spelt out and, now and then, a repeated key."""
    text = json.dumps(value, ensure_ascii=rnd.random() < 0.9)
    text = text.replace(f'"{DEEP}"', "[" * 50_000 + "]" * 50_000).replace(f'"{HUGE}"', "9" * 5000)
    if isinstance(value, dict) and value and rnd.random() < 0.1:
        key = rnd.choice(list(value))
        text = text[:-1] + f", {json.dumps(key)}: {json.dumps(value[key])}" + "}"
    return text.encode("utf-8", "surrogatepass")


def mutate_json(content: bytes, rnd: Random) -> bytes:
    value = json.loads(content)
    for _ in range(rnd.choice([1, 1, 1, 2, 3])):
        value = mutate_value(value, rnd)
    return dump(value, rnd)


def mutate_safetensors(content: bytes, rnd: Random) -> bytes:
    """Damage the header: its JSON, the offsets, dtypes and shapes in it, or its length."""
    (length,) = struct.unpack("<Q", content[:8])
    header, data = json.loads(content[8 : 8 + length]), content[8 + length :]
    kind = rnd.randrange(5)
    if kind == 0:
        wrong = rnd.choice([0, 1, 7, length - 1, length + 1, len(content), 2**31, 2**40, 2**63, 2**64 - 1])
        return struct.pack("<Q", wrong) + content[8:]
    if kind == 1:
        data = mutate_bytes(data, rnd)
    elif kind == 2:
        header = mutate_value(header, rnd)
    else:
        names = [name for name in header if name != "__metadata__"]
        name, other = rnd.choice(names), rnd.choice(names)
        field = rnd.choice(["dtype", "shape", "data_offsets"])
        header[name] = dict(header[name])
        header[name][field] = rnd.choice(
            [header[other][field], mutate_value(header[name][field], rnd), rnd.choice(VALUES)]
        )
    text = dump(header, rnd)
    return struct.pack("<Q", len(text)) + text + data


def mutate_pickle(content: bytes, rnd: Random) -> bytes:
    """Damage the pickle inside a torch archive, or the names and sizes of its members."""
    with zipfile.ZipFile(io.BytesIO(content)) as zipped:
        members = {name: zipped.read(name) for name in zipped.namelist()}
    name = next(name for name in members if name.endswith("data.pkl"))
    kind = rnd.randrange(4)
    if kind == 0:
        members[name] = mutate_bytes(members[name], rnd)
    elif kind == 1:
        members[name] = mutate_numbers(members[name], rnd)
    elif kind == 2:
        out = bytearray(members[name])
        out[rnd.randrange(len(out))] = rnd.choice(b"(.0}]tRQcqhrjsubaeN\x85\x86\x89\x93")  # one opcode for another
        members[name] = bytes(out)
    else:
        other = rnd.choice(list(members))
        members[rnd.choice(["archive/data/0", "../x", "data.pkl", other + "x"])] = members.pop(other)
    out_file = io.BytesIO()
    with zipfile.ZipFile(out_file, "w", rnd.choice([0, 0, 0, 8])) as zipped:
        for member, raw in members.items():
            zipped.writestr(member, raw)
    return out_file.getvalue()
