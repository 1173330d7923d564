"""Base58 with Bitcoin's alphabet, as Solana writes keys. Pure, and without solders, which takes long to import."""

from __future__ import annotations

ALPHABET = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"
KEY_BYTES = 32
MAX_KEY_TEXT = 44
"""Characters of the longest base58 text of 32 bytes."""

_VALUES = {char: value for value, char in enumerate(ALPHABET)}


def encode(data: bytes) -> str:
    """Write bytes as base58; each leading zero byte is a `1`."""
    number, digits = int.from_bytes(data, "big"), []
    while number:
        number, digit = divmod(number, 58)
        digits.append(ALPHABET[digit])
    zeros = len(data) - len(data.lstrip(b"\0"))
    return "1" * zeros + "".join(reversed(digits))


def decode(text: str) -> bytes:
    """Read base58; raises ValueError on any other character. The cost grows with the square of the length."""
    number = 0
    for char in text:
        value = _VALUES.get(char)
        if value is None:
            raise ValueError(f"{char!r} is not a base58 character")
        number = number * 58 + value
    zeros = len(text) - len(text.lstrip("1"))
    return bytes(zeros) + number.to_bytes((number.bit_length() + 7) // 8, "big")


def is_key(text: str) -> bool:
    """Tell whether a text is base58 of exactly 32 bytes."""
    if not KEY_BYTES <= len(text) <= MAX_KEY_TEXT:
        return False
    try:
        return len(decode(text)) == KEY_BYTES
    except ValueError:
        return False
