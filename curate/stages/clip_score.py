"""Measure how well picture and caption agree."""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from ..embedding_column import vectors
from ..options import check_name
from ..stage import Annotator


@dataclass(frozen=True)
class ClipScore(Annotator, name="clip_score"):
    """Write the cosine of picture and caption in the embedder's space, -1 to 1.

    Null where either has no embedding. Drops nothing: see top_fraction and threshold.
    Source: Hessel et al., CLIPScore, arXiv 2104.08718, without its factor and floor.
    """

    embedder: str = "run"

    writes = {"clip_score": pa.float32()}

    def __post_init__(self) -> None:
        check_name(self, "embedder")

    @property
    def reads(self) -> tuple[str, ...]:  # type: ignore[override]
        """Name the two embeddings, float16 lists of norm 1."""
        return (f"image_embedding:{self.embedder}", f"caption_embedding:{self.embedder}")

    def annotate(self, pairs: pa.Table) -> dict[str, pa.Array]:
        """Take the dot product of each pair's two vectors."""
        pictures, seen = vectors(pairs[self.reads[0]])
        captions, written = vectors(pairs[self.reads[1]])
        scores = np.einsum("nd,nd->n", pictures, captions)
        return {"clip_score": pa.array(scores, pa.float32(), mask=~(seen & written))}
