"""LevelDB's table format, in which TensorFlow keeps the index of a checkpoint: sorted keys and their values.

A table is a run of blocks, each followed by a byte that says how it is packed and a checksum; the last of them, the
index block, says where the others lie; the file's last 48 bytes say where the index block lies. In a block a key
gives only what differs from the key before it.

Reference: google/leveldb, doc/table_format.md.
"""

from collections.abc import Iterator

from .crc32c import masked_crc32c
from .snappy import decompress, read_varint

_FOOTER, _MAGIC = 48, 0xDB4775248B80FB57
_TRAILER = 5  # how it is packed, and the checksum
_PLAIN, _SNAPPY = 0, 1
BLOCK_LIMIT = 16 * 2**20
"""Bytes of an unpacked block; TensorFlow begins a new one after a quarter of a million."""


def read_table(content: bytes) -> dict[bytes, bytes]:
    """Every key and value of a table.

    Raises:
      ValueError: a table that is damaged, or packed in an unknown way.
    """
    if len(content) < _FOOTER or int.from_bytes(content[-8:], "little") != _MAGIC:
        raise ValueError("it does not end as a table does (magic number of LevelDB)")
    footer = content[-_FOOTER:]
    _, place = _handle(footer, 0)
    index, _ = _handle(footer, place)
    table: dict[bytes, bytes] = {}
    seen = 0
    for _, value in _entries(_block(content, index)):
        block = _block(content, _handle(value, 0)[0])
        seen += len(block)
        if seen > BLOCK_LIMIT:  # blocks that an index names again and again
            raise ValueError(f"an index of more than {BLOCK_LIMIT} bytes")
        table.update(_entries(block))
    return table


def _handle(data: bytes, place: int) -> tuple[tuple[int, int], int]:
    offset, place = read_varint(data, place)
    size, place = read_varint(data, place)
    return (offset, size), place


def _block(content: bytes, handle: tuple[int, int]) -> bytes:
    offset, size = handle
    end = offset + size
    if end + _TRAILER > len(content):
        raise ValueError(f"a block of {size} bytes at byte {offset}, of {len(content)}: it is cut short")
    kind = content[end]
    if masked_crc32c(content[offset : end + 1]) != int.from_bytes(content[end + 1 : end + _TRAILER], "little"):
        raise ValueError(f"a wrong checksum of the block at byte {offset}")
    if kind not in (_PLAIN, _SNAPPY):
        raise ValueError(f"a block packed in way {kind}, not as it is (0) or by Snappy (1)")
    block = content[offset:end]
    return decompress(block, BLOCK_LIMIT) if kind == _SNAPPY else block


def _entries(block: bytes) -> Iterator[tuple[bytes, bytes]]:
    if len(block) < 4:
        raise ValueError("a block without its restarts")
    restarts = int.from_bytes(block[-4:], "little")
    end = len(block) - 4 * (restarts + 1)
    place, key = 0, b""
    while place < end:
        shared, place = read_varint(block, place)
        fresh, place = read_varint(block, place)
        size, place = read_varint(block, place)
        if shared > len(key) or place + fresh + size > end:
            raise ValueError("an entry that reaches beyond its block")
        key = key[:shared] + block[place : place + fresh]
        yield key, block[place + fresh : place + fresh + size]
        place += fresh + size
    if place != end:
        raise ValueError("a block whose entries do not fill it")
