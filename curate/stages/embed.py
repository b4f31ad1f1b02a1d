"""Embed picture and caption once, for every stage that reads the embedding."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from ..embedder import open_embedder
from ..stage import Annotator


@dataclass(frozen=True)
class Embed(Annotator, name="embed"):
    """Embed picture and caption; a build adds it before the first stage that reads an embedding.

    Writes unit vectors as float16; they are stored beside the part and never in the ledger.
    """

    embedder: str = "random_features"
    width: int = 128
    embeds_captions: bool = False
    digest: str = ""
    location: str = "random_features"

    resource = "gpu"
    reads = ("image", "caption")

    def options(self) -> dict[str, Any]:
        """Leave the location out: the digest says what is measured, wherever the run lies."""
        return {name: value for name, value in super().options().items() if name != "location"}

    @property
    def writes(self) -> Mapping[str, pa.DataType]:  # type: ignore[override]
        """Return the names and type of the embeddings."""
        kinds = ("image", "caption") if self.embeds_captions else ("image",)
        return {f"{k}_embedding:{self.embedder}": pa.list_(pa.float16(), self.width) for k in kinds}

    def annotate(self, pairs: pa.Table) -> Mapping[str, Any]:
        """Embed every row of ``pairs``."""
        model = open_embedder(self.location)
        vectors = {"image": model.pictures(pairs["image"].to_pylist())}
        if self.embeds_captions:
            vectors["caption"] = model.captions(pairs["caption"].to_pylist())
        return {f"{k}_embedding:{self.embedder}": _column(v) for k, v in vectors.items()}


def _column(vectors: np.ndarray) -> pa.FixedSizeListArray:
    flat = pa.array(vectors.astype(np.float16).ravel())
    return pa.FixedSizeListArray.from_arrays(flat, vectors.shape[1])
