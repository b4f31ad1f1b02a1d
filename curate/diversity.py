"""How varied a set of pairs is: spectral, by clusters and by words, at equal numbers of pairs.

All figures here are plug-in estimates: they grow with the number of pairs n, so two sets are
compared only at equal n, with the same embedder and the same cluster centres.
"""

import hashlib
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from breadth.loaders.errors import Refused
from breadth.loaders.folder import Folder, open_folder

from .embedder import Embedder

KERNEL = "cosine"
PICTURES_AT_ONCE = 256
WORD = re.compile(r"\w+")


def vendi_score(embeddings: np.ndarray, order: float = 1.0) -> float:
    """Return the effective number of distinct rows: exp of the Renyi entropy of the spectrum.

    With eigenvalues p of K / n, K the cosine kernel: exp(-sum p log p) for order 1,
    (sum p^q)^(1 / (1 - q)) for order q, 1 / max p for infinity. It lies in [1, min(n, d)]. K / n
    and the second moment X'X / n of the unit rows have the same non-zero eigenvalues, so the
    smaller of the two is decomposed. Zero rows (undecodable pictures) are left out.

    ``embeddings``: [n, d]. Raises ValueError where no row is left or order <= 0.
    Cost: O(n d min(n, d)) time, O(min(n, d)^2) memory.
    Source: Friedman and Dieng 2023 (2210.02410); orders: Pasarkar and Dieng 2023 (2310.12952).
    """
    if not order > 0:
        raise ValueError(f"order {order}: an order above 0 is needed")
    rows = _unit_rows(embeddings)
    moment = rows.T @ rows if len(rows) > rows.shape[1] else rows @ rows.T
    spectrum = np.linalg.eigvalsh(moment / len(rows))
    spectrum = spectrum[spectrum > 1e-12]
    spectrum /= spectrum.sum()
    if np.isinf(order):
        return float(1 / spectrum.max())
    if order == 1:
        return float(np.exp(-(spectrum * np.log(spectrum)).sum()))
    return float((spectrum**order).sum() ** (1 / (1 - order)))


def cluster_entropy(
    embeddings: np.ndarray,
    clusters: int,
    seed: int,
    reference: np.ndarray | None = None,
) -> float:
    """Return the entropy, in nats, of how the rows spread over ``clusters`` clusters.

    The centres are found by spherical k-means on ``reference``, by default the rows themselves.
    To compare sets, pass their union: with centres of its own a narrow set is cut just as evenly
    as a wide one. It lies in [0, log clusters].

    Cost: O(n d clusters) per round, at most 30 rounds.
    Source: Dhillon and Modha 2001 for the clustering.
    """
    rows = _unit_rows(embeddings)
    centres = _centres(rows if reference is None else _unit_rows(reference), clusters, seed)
    share = np.bincount((rows @ centres.T).argmax(1), minlength=len(centres)) / len(rows)
    share = share[share > 0]
    return float(-(share * np.log(share)).sum()) + 0.0  # never -0.0


def distinct_n(captions: Sequence[str], n: int) -> float:
    """Return the share of word n-grams that are distinct: distinct / all, NaN where there is none.

    Words are runs of letters and digits, case folded; a run in a script without spaces is one
    word. It falls with the number of captions. Source: Li et al. 2016 (1510.03055).

    >>> distinct_n(["a red circle", "a red square"], 1)
    0.6666666666666666
    """
    distinct: set[tuple[str, ...]] = set()
    total = 0
    for caption in captions:
        words = WORD.findall(caption.casefold())
        grams = list(zip(*(words[i:] for i in range(n)), strict=False))
        distinct.update(grams)
        total += len(grams)
    return len(distinct) / total if total else float("nan")


def diversity(folder: Path, embedder: Embedder, *, pairs: int = 2000, seed: int = 0) -> dict:
    """Measure at most ``pairs`` kept pairs of a folder, drawn by hash of uid and seed."""
    return compare_diversity([folder], embedder, pairs=pairs, seed=seed)[0]


def compare_diversity(
    folders: Sequence[Path], embedder: Embedder, *, pairs: int = 2000, seed: int = 0
) -> list[dict]:
    """Measure folders at equal n, the smallest number of pairs among them, ``pairs`` at most.

    Returns a dict per folder: ``pairs`` (n), ``embedder``, ``kernel``, ``clusters`` and the
    figures, None where no picture can be decoded. Clusters have the same centres in all folders.
    Raises PoolError where a folder holds no pairs. Cost: n pictures per folder are read and
    embedded.
    """
    opened = [open_folder(folder) for folder in folders]
    n = min([pairs] + [len(folder) for folder in opened])
    if n < 1:
        raise Refused(f"diversity: cannot measure {n} pairs; say at least 1")
    drawn = [_draw(folder, n, seed) for folder in opened]
    embedded = [
        _embed_pictures(embedder, folder, rows) for folder, rows in zip(opened, drawn, strict=True)
    ]
    clusters = max(1, min(64, n // 8))
    everything = np.concatenate(embedded)
    return [
        {
            "pairs": n,
            "embedder": embedder.name,
            "embedder_digest": embedder.digest,
            "kernel": KERNEL,
            "clusters": clusters,
            "undecodable": int((~vectors.any(1)).sum()),
            **_picture_figures(vectors, clusters, seed, everything),
            **_caption_figures([folder.caption(row) for row in rows], embedder),
        }
        for vectors, folder, rows in zip(embedded, opened, drawn, strict=True)
    ]


def _picture_figures(
    vectors: np.ndarray, clusters: int, seed: int, everything: np.ndarray
) -> dict[str, float | None]:
    if not vectors.any():
        return dict.fromkeys(("vendi", "vendi_order_2", "cluster_entropy"))
    return {
        "vendi": vendi_score(vectors),
        "vendi_order_2": vendi_score(vectors, 2),
        "cluster_entropy": cluster_entropy(vectors, clusters, seed, everything),
    }


def _caption_figures(captions: list[str], embedder: Embedder) -> dict[str, Any]:
    figures: dict[str, Any] = {
        f"caption_distinct_{n}": _or_none(distinct_n(captions, n)) for n in (1, 2)
    }
    figures["distinct_captions"] = len(set(captions))
    if embedder.embeds_captions:
        figures["caption_vendi"] = vendi_score(embedder.captions(captions))
    return figures


def _or_none(value: float) -> float | None:
    return None if np.isnan(value) else value


def _embed_pictures(embedder: Embedder, folder: Folder, rows: list[int]) -> np.ndarray:
    starts = range(0, len(rows), PICTURES_AT_ONCE)
    batches = ([folder.image(row) for row in rows[i : i + PICTURES_AT_ONCE]] for i in starts)
    return np.concatenate([embedder.pictures(pictures) for pictures in batches])


def _draw(folder: Folder, n: int, seed: int) -> list[int]:
    key = seed.to_bytes(8, "little")
    ranks = [
        (hashlib.blake2b(uid.encode(), digest_size=8, key=key).digest(), row)
        for row, uid in enumerate(folder.uids)
    ]
    return sorted(row for _, row in sorted(ranks)[:n])  # in reading order


def _unit_rows(embeddings: np.ndarray) -> np.ndarray:
    rows = np.asarray(embeddings, dtype=np.float64)
    norms = np.linalg.norm(rows, axis=1, keepdims=True)
    rows = rows[norms[:, 0] > 0] / norms[norms > 0][:, None]
    if not len(rows):
        raise ValueError("no embedding that is not zero")
    return rows


def _centres(rows: np.ndarray, clusters: int, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    centres = _spread_out(rows, min(clusters, len(rows)), rng)
    assigned = None
    for _ in range(30):
        nearest = (rows @ centres.T).argmax(1)
        if assigned is not None and (nearest == assigned).all():
            break
        assigned = nearest
        sums = np.zeros_like(centres)
        np.add.at(sums, nearest, rows)
        norms = np.linalg.norm(sums, axis=1, keepdims=True)
        centres = np.where(norms > 0, sums / np.maximum(norms, 1e-12), centres)  # empty: stays
    return centres


def _spread_out(rows: np.ndarray, clusters: int, rng: np.random.Generator) -> np.ndarray:
    """Choose first centres far from each other (k-means++, Arthur and Vassilvitskii 2007)."""
    chosen = [int(rng.integers(len(rows)))]
    far = np.full(len(rows), np.inf)
    while len(chosen) < clusters:
        far = np.minimum(far, np.clip(1 - rows @ rows[chosen[-1]], 0, None))
        if far.sum() <= 1e-9:  # fewer distinct rows than clusters
            break
        chosen.append(int(rng.choice(len(rows), p=far / far.sum())))
    return rows[chosen]
