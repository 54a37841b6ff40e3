"""CRC-32C (Castagnoli), the checksum of TensorFlow's checkpoints, over millions of bytes at once.

A CRC is linear over GF(2): the bytes are cut into lanes whose registers step together, and a register is moved
past n more bytes by the matrix of one zero byte to the power n. Reference: RFC 3720, appendix B.4 (test vectors).
"""

import numpy as np
from numpy.typing import NDArray

_POLYNOMIAL = 0x82F63B78  # reflected
_LANES = 4096
_MASK_DELTA = 0xA282EAD8


def _table() -> NDArray[np.uint32]:
    values = np.arange(256, dtype=np.uint32)
    for _ in range(8):
        values = np.where(values & 1, (values >> 1) ^ np.uint32(_POLYNOMIAL), values >> 1)
    return values


_TABLE = _table()


def crc32c(data: bytes) -> int:
    """The checksum of some bytes.

    >>> hex(crc32c(b"123456789"))
    '0xe3069283'
    """
    steps = len(data) // _LANES
    octets = np.frombuffer(data, np.uint8)
    # Zero registers: the start of ~0 is carried across all of the bytes separately, by linearity.
    lanes = np.zeros(_LANES, np.uint32)
    for column in octets[: steps * _LANES].reshape(_LANES, steps).T:
        lanes = _TABLE[(lanes ^ column) & 0xFF] ^ (lanes >> 8)
    register = 0xFFFFFFFF
    past_lane = _power(steps)
    for lane in lanes.tolist() if steps else ():
        register = _apply(past_lane, register) ^ lane
    for octet in data[steps * _LANES :]:
        register = int(_TABLE[(register ^ octet) & 0xFF]) ^ (register >> 8)
    return register ^ 0xFFFFFFFF


def masked_crc32c(data: bytes) -> int:
    """The checksum as TensorFlow and LevelDB store it: rotated by 15 bits, and a constant added.

    >>> hex(masked_crc32c(b""))
    '0xa282ead8'
    """
    crc = crc32c(data)
    return ((crc >> 15 | crc << 17) + _MASK_DELTA) & 0xFFFFFFFF


def _power(count: int) -> list[int]:
    """The matrix that moves a register past `count` zero bytes, as the images of its 32 bits."""
    result = [1 << bit for bit in range(32)]
    square = [int(_TABLE[(1 << bit) & 0xFF]) ^ ((1 << bit) >> 8) for bit in range(32)]
    while count:
        if count & 1:
            result = [_apply(square, image) for image in result]
        square = [_apply(square, image) for image in square]
        count >>= 1
    return result


def _apply(matrix: list[int], register: int) -> int:
    image = 0
    for column in matrix:
        if register & 1:
            image ^= column
        register >>= 1
    return image
