"""Read a column of embeddings as one matrix."""

import numpy as np
import pyarrow as pa


def vectors(column: pa.ChunkedArray) -> tuple[np.ndarray, np.ndarray]:
    """Return float32 [n, width] and which rows hold a vector other than zero."""
    array = column.combine_chunks()
    width = array.type.list_size
    # ``values`` knows neither the slice nor the nulls; both are put back here.
    start = array.offset * width
    flat = array.values.to_numpy(zero_copy_only=False)[start : start + len(array) * width]
    rows = flat.astype(np.float32).reshape(len(array), width)
    present = array.is_valid().to_numpy(zero_copy_only=False) & rows.any(axis=1)
    return rows, present
