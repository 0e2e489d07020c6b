"""Arrow IPC files that are memory-mapped and may come from strangers.

A mapped file is not copied, so nothing checks it unless this module does. Only the sequence of
messages is read, not the footer that points at them. Compressed buffers, which expand to any size,
are refused; pyarrow does not say whether a batch has them, so its description is read here. Arrow
compares positions in a message with its length when it is read, and
`RecordBatch.validate(full=True)` the offsets, nulls and UTF-8 within its buffers; before that no
value may be used, since Arrow trusts them.

Format: https://arrow.apache.org/docs/format/Columnar.html#ipc-file-format
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Mapping
from typing import Any, Final

import pyarrow as pa

_MAGIC: Final = b"ARROW1\0\0"
_KINDS: Final = {"schema", "record batch"}
_HEADER, _COMPRESSION = 2, 3  # fields of a Message, and of a RecordBatch
_FIXED: Final = 4  # bytes of a vtable before its fields


class ArrowFile:
    """The batches of a file, not validated.

    Attributes:
        schema: with its metadata.
        batches: (rows, metadata of the batch).
    """

    def __init__(self, mapped: mmap.mmap) -> None:
        """Raises ValueError, pa.ArrowException, OSError: not such a file."""
        if mapped[: len(_MAGIC)] != _MAGIC:
            raise ValueError("not an Arrow file")
        messages = pa.py_buffer(mapped).slice(len(_MAGIC))
        for message in pa.ipc.MessageReader.open_stream(messages):
            if message.type not in _KINDS:
                raise ValueError(f"holds a {message.type}")
            if message.type == "record batch" and _is_compressed(message.metadata):
                raise ValueError("holds compressed buffers")
        reader = pa.ipc.open_stream(messages)
        self.schema: Any = reader.schema
        self.batches: list[tuple[Any, Mapping[bytes, bytes]]] = [
            (read.batch, dict(read.custom_metadata or {}))
            for read in reader.iter_batches_with_custom_metadata()
        ]


def _is_compressed(metadata: Any) -> bool:
    """Whether the description of a record batch, a flatbuffer, names a codec for its buffers."""
    data = memoryview(metadata)
    try:
        header = _field(data, struct.unpack_from("<I", data)[0], _HEADER)
        if header is None:
            raise ValueError("a message without content")
        batch = header + struct.unpack_from("<I", data, header)[0]
        return _field(data, batch, _COMPRESSION) is not None
    except struct.error as error:
        raise ValueError(f"a message cut short: {error}") from None


def _field(data: memoryview, table: int, number: int) -> int | None:
    """The position of a field of a flatbuffer's table; None where it is left out."""
    vtable = table - struct.unpack_from("<i", data, table)[0]
    size = struct.unpack_from("<H", data, vtable)[0]
    position = _FIXED + 2 * number
    if position + 2 > size:
        return None
    offset = struct.unpack_from("<H", data, vtable + position)[0]
    return table + offset if offset else None
