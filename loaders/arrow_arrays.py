"""Go between Arrow and NumPy without pandas, which ``pa.array`` and ``to_numpy`` import.

That takes a third of a second, and nothing that reads pairs has another use for it.
"""

import numpy as np
import pyarrow as pa


def as_arrow(numbers: np.ndarray) -> pa.Array:
    """Return integers as Arrow, without a copy where they lie together."""
    buffer = pa.py_buffer(np.ascontiguousarray(numbers))
    return pa.Array.from_buffers(pa.from_numpy_dtype(numbers.dtype), len(numbers), [None, buffer])


def integers(column: pa.ChunkedArray) -> np.ndarray:
    """Return integers of which none is null, in their own type; a copy where in pieces."""
    kind = np.dtype(column.type.to_pandas_dtype())
    pieces = [_piece(chunk, kind) for chunk in column.chunks if len(chunk)]
    return pieces[0] if len(pieces) == 1 else np.concatenate([np.empty(0, kind), *pieces])


def text_of(strings: pa.Array) -> memoryview:
    """Return the bytes of an array's strings, one after the other, without a copy."""
    if not len(strings):
        return memoryview(b"")
    _, ends, text = strings.buffers()
    borders = np.frombuffer(ends, np.int32)[strings.offset : strings.offset + len(strings) + 1]
    return memoryview(text)[borders[0] : borders[-1]]


def _piece(chunk: pa.Array, kind: np.dtype) -> np.ndarray:
    values = np.frombuffer(chunk.buffers()[1], kind)
    return values[chunk.offset : chunk.offset + len(chunk)]
