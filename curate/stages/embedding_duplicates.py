"""Keep one pair of those whose pictures mean the same to an embedder."""

import math
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from ..embedding_column import vectors
from ..options import check_name, check_number, check_whole
from ..stage import Matcher

MISSED = 0.01
"""Share of pairs at just ``distance`` that no table puts together; nearer ones are missed less."""

_ROUNDING = 1e-6  # of a product of float32 vectors: equal ones are 0 apart


@dataclass(frozen=True)
class EmbeddingDuplicates(Matcher, name="embedding_duplicates"):
    """Keep one pair of those whose pictures lie within a cosine distance of each other.

    Pictures are compared where ``bits`` random hyperplanes put them on the same sides, in as many
    tables as find all but 1 in 100 of those at the very distance (at 0.05 and 12 bits: 15). Every
    dropped pair really has its kept witness within it. Pairs without an embedding are kept.
    Cost: one key of 2 * width bytes a pair and table, in the driver's memory; a bucket of n takes
    n^2 dot products.
    Source: Charikar, STOC 2002 (hyperplanes); Abbas et al., SemDeDup, arXiv 2303.09540 (the use).
    """

    distance: float = 0.05  # 1 - cosine
    embedder: str = "run"
    bits: int = 12  # more make smaller buckets and more tables
    seed: int = 0
    prefer: str | None = None

    thresholds = ("distance", "bits", "seed", "prefer")

    def __post_init__(self) -> None:
        check_number(self, "distance", 0, 0.5)
        check_name(self, "embedder")
        check_whole(self, "bits", 1, 32)
        check_whole(self, "seed", 0)
        if self.prefer is not None:
            check_name(self, "prefer")

    @property
    def reads(self) -> tuple[str, ...]:  # type: ignore[override]
        """Name the embedding, and the column that says which pair stays."""
        return (f"image_embedding:{self.embedder}", *((self.prefer,) if self.prefer else ()))

    @property
    def tables(self) -> int:
        """How many times pairs are put in buckets."""
        together = (1 - math.acos(1 - self.distance) / math.pi) ** self.bits
        return 1 if together == 1 else math.ceil(math.log(MISSED) / math.log1p(-together))

    def keys(self, pairs: pa.Table) -> pa.Table:
        """Put each picture in one bucket per table; the sides it lies on are the bucket's name."""
        column = pairs[self.reads[0]]
        pictures, present = vectors(column)
        rows = np.flatnonzero(present)
        planes = np.random.default_rng(self.seed).standard_normal(
            (self.tables, column.type.list_size, self.bits), dtype=np.float32
        )
        weights = np.uint64(1) << np.arange(self.bits, dtype=np.uint64)
        buckets = [
            (pictures[rows] @ table > 0) @ weights | np.uint64(number << 32)
            for number, table in enumerate(planes)
        ]
        seen = column.combine_chunks().take(pa.array(rows))
        return pa.table(
            {
                "row": np.tile(rows, self.tables),
                "bucket": np.concatenate(buckets).astype(np.uint64),
                "kind": pa.array(["alike"] * (self.tables * len(rows)), pa.string()),
                "embedding": pa.chunked_array([seen] * self.tables, seen.type),
            }
        )

    def edges(self, bucket: pa.Table) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Compare all pictures of a bucket; the distance is 1 - cosine."""
        pictures, _ = vectors(bucket["embedding"])
        pictures /= np.linalg.norm(pictures, axis=1, keepdims=True)  # float16 has moved them
        apart = np.maximum(1 - pictures @ pictures.T - _ROUNDING, 0)
        left, right = np.nonzero(np.triu(apart <= self.distance, k=1))
        return left, right, apart[left, right].astype(np.float32)
