"""Snappy's raw format, decompressed: what TensorFlow may pack the index of a checkpoint with.

Reference: google/snappy, format_description.txt.
"""


def decompress(packed: bytes, limit: int) -> bytes:
    """Unpack one block.

    Args:
      packed: a varint of the unpacked length, then literals and copies.
      limit: bytes it may unpack to.

    Raises:
      ValueError: a block that is damaged, or longer than `limit`.

    >>> decompress(bytes([6, 0b100, 0x61, 0x62, 0b1, 2]), 100)
    b'ababab'
    """
    length, place = read_varint(packed, 0)
    if length > limit:
        raise ValueError(f"a block of {length} bytes, more than {limit}")
    out = bytearray()
    while place < len(packed):
        tag = packed[place]
        place += 1
        if tag & 3 == 0:
            size, place = _literal_size(packed, place, tag >> 2)
            out += _slice(packed, place, size)
            place += size
        else:
            width = (1, 2, 4)[(tag & 3) - 1]
            offset = int.from_bytes(_slice(packed, place, width), "little")
            offset, size = (offset | (tag >> 5) << 8, (tag >> 2 & 7) + 4) if width == 1 else (offset, (tag >> 2) + 1)
            place += width
            _copy(out, offset, size)
        if len(out) > length:
            raise ValueError("a block that unpacks to more than it says")
    if len(out) != length:
        raise ValueError(f"a block that unpacks to {len(out)} bytes instead of {length}")
    return bytes(out)


def read_varint(data: bytes, place: int) -> tuple[int, int]:
    """A number of 7 bits a byte, lowest first, and the place after it.

    Raises:
      ValueError: it does not end, or exceeds 64 bits.

    >>> read_varint(bytes([0xAC, 0x02]), 0)
    (300, 2)
    """
    value = 0
    for shift in range(0, 64, 7):
        if place >= len(data):
            raise ValueError("a number is cut short")
        octet = data[place]
        place += 1
        value |= (octet & 0x7F) << shift
        if octet < 0x80:
            break
    else:
        raise ValueError("a number of more than 64 bits")
    if value >= 2**64:
        raise ValueError("a number of more than 64 bits")
    return value, place


def _literal_size(packed: bytes, place: int, code: int) -> tuple[int, int]:
    if code < 60:
        return code + 1, place
    width = code - 59
    return int.from_bytes(_slice(packed, place, width), "little") + 1, place + width


def _slice(data: bytes, place: int, size: int) -> bytes:
    if place + size > len(data):
        raise ValueError("a block is cut short")
    return data[place : place + size]


def _copy(out: bytearray, offset: int, size: int) -> None:
    if not 0 < offset <= len(out):
        raise ValueError(f"a copy from {offset} bytes back, of {len(out)}")
    pattern = out[-offset:] if size >= offset else out[-offset : size - offset]
    out += (pattern * (size // offset + 1))[:size]  # a copy may reach into what it writes
