"""Keep at most so many pictures with the same caption."""

from dataclasses import dataclass
from hashlib import blake2b

import numpy as np
import pyarrow as pa

from ..options import check_name, check_whole
from ..stage import Matcher


@dataclass(frozen=True)
class CaptionRepeats(Matcher, name="caption_repeats"):
    """Keep at most ``most`` pairs with the same caption, the preferred ones first.

    Source: ALIGN (arXiv 2102.05918), section 3; there none of more than 10 is kept.
    """

    most: int = 10  # ALIGN
    prefer: str | None = None

    thresholds = ("most", "prefer")

    def __post_init__(self) -> None:
        check_whole(self, "most", 1)
        if self.prefer is not None:
            check_name(self, "prefer")

    @property
    def capacity(self) -> int:  # type: ignore[override]
        """Return how many pairs a caption may have."""
        return self.most

    @property
    def reads(self) -> tuple[str, ...]:  # type: ignore[override]
        """Name the caption, and the column that says which pairs stay."""
        return ("caption", *((self.prefer,) if self.prefer else ()))

    def keys(self, pairs: pa.Table) -> pa.Table:
        """Put pairs in a bucket by caption."""
        captions = pairs["caption"].to_pylist()
        rows = np.array([row for row, c in enumerate(captions) if c is not None], np.int64)
        digests = b"".join(
            blake2b(c.encode(), digest_size=8).digest() for c in captions if c is not None
        )
        buckets = np.frombuffer(digests, "<u8").astype(np.uint64)
        kind = pa.array(["repeated"] * len(rows), pa.string())
        return pa.table({"row": rows, "bucket": buckets, "kind": kind})
