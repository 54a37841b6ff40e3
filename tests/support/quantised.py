"""Writes small E5S1 files and decodes them again by the book, one weight at a time, for the reader to agree with."""

import dataclasses
import struct

import numpy as np

WIDTH, LAYERS, HEADS, MLP_WIDTH, POSITIONS, SEGMENTS = 32, 2, 4, 64, 16, 2
WORDS = [
    "<s>",
    "<pad>",
    "</s>",
    "<unk>",
    "▁",
    "▁a",
    "a",
    "b",
    "ab",
    "▁ab",
    "ba",
    "é",
    "c",
    ":",
    "▁que",
    "ry",
    "▁b",
    "!",
]
SCORES = [0.0, 0.0, 0.0, 0.0, -2.0, -2.5, -3.0, -3.25, -4.0, -4.5, -5.5, -5.0, -6.0, -6.5, -3.0, -3.5, -4.25, -7.0]
REPLACEMENTS = {0x07: "", 0x09: " ", 0xC9: "é", 0xFB01: "ab", 0x2581: " "}

# Name in the file -> (Hugging Face's name, shape, whether 4-bit).
TABLE: dict[str, tuple[str, tuple[int, ...], bool]] = {
    "emb.word": ("embeddings.word_embeddings.weight", (len(WORDS), WIDTH), True),
    "emb.pos": ("embeddings.position_embeddings.weight", (POSITIONS, WIDTH), False),
    "emb.type": ("embeddings.token_type_embeddings.weight", (SEGMENTS, WIDTH), False),
    "emb.ln.w": ("embeddings.LayerNorm.weight", (WIDTH,), False),
    "emb.ln.b": ("embeddings.LayerNorm.bias", (WIDTH,), False),
}
for _layer in range(LAYERS):
    for _ours, _theirs, _shape in (
        ("q", "attention.self.query", (WIDTH, WIDTH)),
        ("k", "attention.self.key", (WIDTH, WIDTH)),
        ("v", "attention.self.value", (WIDTH, WIDTH)),
        ("ao", "attention.output.dense", (WIDTH, WIDTH)),
        ("aln", "attention.output.LayerNorm", (WIDTH,)),
        ("fi", "intermediate.dense", (MLP_WIDTH, WIDTH)),
        ("fo", "output.dense", (WIDTH, MLP_WIDTH)),
        ("oln", "output.LayerNorm", (WIDTH,)),
    ):
        _stem = f"encoder.layer.{_layer}.{_theirs}"
        TABLE[f"l{_layer}.{_ours}.w"] = (f"{_stem}.weight", _shape, len(_shape) == 2)
        TABLE[f"l{_layer}.{_ours}.b"] = (f"{_stem}.bias", _shape[:1], False)


@dataclasses.dataclass
class Part:
    """A tensor to write; `None` is filled in truthfully."""

    kind: int
    values: int
    payload: bytes
    offset: int | None = None
    size: int | None = None


@dataclasses.dataclass
class Draft:
    """Everything an E5S1 file says, to be changed by a test before it is packed."""

    magic: bytes = b"E5S1"
    version: int = 1
    sizes: tuple[int, ...] = (WIDTH, LAYERS, HEADS, MLP_WIDTH, len(WORDS), POSITIONS, SEGMENTS)
    eps: float = 1e-12
    block: int = 32
    words: list[bytes] = dataclasses.field(default_factory=lambda: [word.encode() for word in WORDS])
    scores: list[float] = dataclasses.field(default_factory=lambda: list(SCORES))
    special: tuple[int, ...] = (0, 2, 1, 3)
    starts: list[int] | None = None
    text_size: int | None = None
    replacements: dict[int, list[int]] = dataclasses.field(
        default_factory=lambda: {point: [ord(c) for c in text] for point, text in REPLACEMENTS.items()}
    )
    replacement_count: int | None = None
    parts: list[tuple[str, Part]] = dataclasses.field(default_factory=lambda: random_parts())

    def part(self, name: str) -> Part:
        return dict(self.parts)[name]

    def pack(self) -> bytes:
        text = b"".join(self.words)
        starts = self.starts or np.cumsum([0, *map(len, self.words)]).tolist()
        out = self.magic + struct.pack("<I7ifi", self.version, *self.sizes, self.eps, self.block)
        size = len(text) if self.text_size is None else self.text_size
        out += struct.pack("<5iQ", len(self.words), *self.special, size)
        out += struct.pack(f"<{len(starts)}I", *starts) + struct.pack(f"<{len(self.scores)}f", *self.scores) + text
        rows = [struct.pack(f"<IB{len(to)}I", point, len(to), *to) for point, to in self.replacements.items()]
        count = len(rows) if self.replacement_count is None else self.replacement_count
        out += struct.pack("<iI", count, len(b"".join(rows))) + b"".join(rows)
        return out + self._tensors(len(out))

    def _tensors(self, before: int) -> bytes:
        place = before + 4 + sum(2 + len(name) + 21 for name, _ in self.parts)
        directory, data = struct.pack("<i", len(self.parts)), b""
        for name, part in self.parts:
            offset = place + len(data) if part.offset is None else part.offset
            size = len(part.payload) if part.size is None else part.size
            directory += struct.pack("<H", len(name)) + name.encode()
            directory += struct.pack("<BIQQ", part.kind, part.values, offset, size)
            data += part.payload
        return directory + data


def random_parts(seed: int = 0) -> list[tuple[str, Part]]:
    """Every tensor of the small model: 4-bit blocks of random nibbles and scales, and floats."""
    random = np.random.default_rng(seed)
    parts = []
    for name, (_, shape, packed) in TABLE.items():
        count = int(np.prod(shape))
        if packed:
            scales = (0.02 + 0.06 * random.random(count // 32)) * random.choice([-1, 1], count // 32)
            blocks = [struct.pack("<e", scale) + random.bytes(16) for scale in scales]
            parts.append((name, Part(1, count, b"".join(blocks))))
        else:
            centre = 1.0 if name.endswith("ln.w") else 0.0
            values = centre + 0.3 * random.standard_normal(count)
            parts.append((name, Part(0, count, values.astype("<f4").tobytes())))
    return parts


def decode(part: Part) -> list[float]:
    """The tensor's values, as e5.c's `deq_row` decodes them."""
    if part.kind == 0:
        return list(struct.unpack(f"<{part.values}f", part.payload))
    out = []
    for block in range(part.values // 32):
        scale, *octets = struct.unpack_from("<e16B", part.payload, 18 * block)
        out += [(octet % 16 - 8) * scale for octet in octets]
        out += [(octet // 16 - 8) * scale for octet in octets]
    return out


def hugging_face_tensors(draft: Draft) -> dict[str, np.ndarray]:
    """The draft's tensors by Hugging Face's names, float64."""
    return {TABLE[name][0]: np.array(decode(part)).reshape(TABLE[name][1]) for name, part in draft.parts}


def split(text: str) -> list[str]:
    """The best pieces of a text, found by trying every end of every piece: the definition, not the algorithm.

    Characters that no piece spells cost the lowest score less 10, and a run of them is one <unk>.
    """
    text = "".join(REPLACEMENTS.get(ord(c), c) for c in text)
    while "  " in text:
        text = text.replace("  ", " ")
    text = text.replace(" ", "▁")
    text = text if text.startswith("▁") else "▁" + text
    best: list[tuple[float, list[str]]] = [(0.0, [])]
    for end in range(1, len(text) + 1):
        ways = [(best[end - 1][0] + min(SCORES) - 10, [*best[end - 1][1], "<unk>"])]
        for word, score in zip(WORDS, SCORES, strict=True):
            if word != "<unk>" and text.endswith(word, 0, end) and len(word) <= end:
                ways.append((best[end - len(word)][0] + score, [*best[end - len(word)][1], word]))
        best.append(max(ways, key=lambda way: way[0]))
    pieces = best[-1][1]
    return [p for k, p in enumerate(pieces) if not (p == "<unk>" and k and pieces[k - 1] == "<unk>")]
