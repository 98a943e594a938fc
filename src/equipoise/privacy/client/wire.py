"""The bytes of a report: version, task, round, partition hash, report id, width, payload.

Little-endian; 37 bytes before the payload of ceil(width / 8) bytes, whose pad bits are zero.
"""

from __future__ import annotations

import hashlib
from struct import Struct

from equipoise.privacy.client.errors import PrivacyError
from equipoise.privacy.client.round import RoundDescription

VERSION = 1
IDENTIFIER_BYTES = 16
HEADER = Struct(f"<B8sH8s{IDENTIFIER_BYTES}sH")
PREFIX = Struct("<B8sH8s")  # the part that all reports of a round share
WIDTH_OFFSET = PREFIX.size + IDENTIFIER_BYTES


def task_key(task: str) -> bytes:
    """8 bytes that stand for the task's name in a report."""
    return hashlib.blake2b(task.encode(), digest_size=8).digest()


def round_prefix(description: RoundDescription) -> bytes:
    """The first 19 bytes of every report of a round."""
    key, number = task_key(description.task), description.round
    return PREFIX.pack(VERSION, key, number, description.partition_hash())


def encode_report(description: RoundDescription, identifier: bytes, payload: bytes) -> bytes:
    """A whole report; identifier: 16 random bytes, payload: ceil(outputs / 8) bytes."""
    width = description.outputs.to_bytes(2, "little")
    return round_prefix(description) + identifier + width + payload


def bytes_of_hex(text: object) -> bytes:
    """The bytes of a text that has only hexadecimal digits; raises PrivacyError for any other."""
    try:
        content = bytes.fromhex(text) if isinstance(text, str) else None
    except ValueError:
        content = None
    if content is None or content.hex() != text:
        raise PrivacyError("Two hexadecimal digits per byte were expected.")
    return content


def payload_bytes(width: int) -> int:
    """Bytes that hold `width` bits."""
    return (width + 7) // 8
