"""Compare what was planted with what a build found, and scores with chance.

Every check is a row of the table that ends the demo; a row without a wish is only reported.
"""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from breadth.loaders.errors import Failed
from breadth.loaders.manifest import Manifest

from .candidates import COPIES

# Which stage should drop which kind. Of copies either the copy or its original goes.
DROPPED_BY = {
    "repeated_candidate": "pool",
    "broken": "download",
    "http_404": "download",
    "timeout": "download",
    "tiny": "image_size",
    "foreign_caption": "caption_language",
    "exact_duplicate": "exact_duplicates",
    "placeholder": "placeholder_images",
    "repeated_caption": "caption_repeats",
    "near_duplicate_reencoded": "near_duplicates",
    "near_duplicate_resized": "near_duplicates",
}
STAY = ("clean", "redirect", "slow_ok", "wrong_caption")
_SAYS = {"http_404": "not_found", "timeout": "timeout"}  # what the reason must hold

Row = dict[str, Any]


@dataclass(frozen=True)
class Check:
    """One figure and the least it should be; ``least`` None only reports it."""

    name: str
    value: float
    least: float | None = None
    detail: str = ""

    @property
    def passed(self) -> bool:
        """Whether the figure is high enough; NaN is not."""
        return self.least is None or self.value >= self.least


def require(checks: Sequence[Check]) -> None:
    """Raise Failed naming every check that did not pass."""
    failed = [f"{c.name} {c.value:.3g} < {c.least:.3g}" for c in checks if not c.passed]
    if failed:
        raise Failed(f"the demo's own checks failed: {'; '.join(failed)}")


def read_ledger(folder: Path) -> list[Row]:
    """Return every row of a build's ledger, without the pixels' and files' hashes."""
    wanted = ["uid", "url", "caption", "kept", "dropped_by", "reason", "witness", "clip_score"]
    rows: list[Row] = []
    for part in sorted((folder / "ledger").glob("*.parquet")):
        columns = [name for name in wanted if name in pq.read_schema(part).names]
        rows += pq.read_table(part, columns=columns).to_pylist()
    return rows


def check_accounts(folder: Path) -> list[Check]:
    """Check that every candidate is kept or dropped for a reason, by funnel, ledger and shards."""
    manifest, ledger = Manifest.read(folder), read_ledger(folder)
    funnel = manifest.funnel
    dropped = Counter((row["dropped_by"], row["reason"]) for row in ledger if not row["kept"])
    told = Counter({(e["stage"], r): n for e in funnel for r, n in e["dropped"].items()})
    entering = [manifest.pool["candidates"], *(e["kept"] for e in funnel[:-1])]
    balanced = [e["in"] == e["kept"] + sum(e["dropped"].values()) for e in funnel]
    joined = [e["in"] == n for e, n in zip(funnel, entering, strict=True)]
    kept = {
        funnel[-1]["kept"],
        manifest.pairs,
        sum(shard.pairs for shard in manifest.shards),
        sum(row["kept"] for row in ledger),
    }
    facts = {
        "in = kept + dropped at every stage": all(balanced + joined),
        "one ledger row per candidate": len(ledger) == manifest.pool["candidates"],
        "ledger and funnel agree on every reason": dropped == told,
        "shards hold what the ledger keeps": len(kept) == 1,
    }
    return [Check(f"{manifest.name}: {fact}", float(holds), 1) for fact, holds in facts.items()]


class Findings:
    """A first build's ledger beside the truth about its pool."""

    def __init__(self, folder: Path, truth: Path, most_repeats: int = 10) -> None:
        self.most_repeats = most_repeats
        self.stages = [entry["stage"] for entry in Manifest.read(folder).funnel]
        rows = read_ledger(folder)
        self.repeated = sum(row["dropped_by"] == "pool" for row in rows)
        self.by_url = {row["url"]: row for row in rows if row["dropped_by"] != "pool"}
        self.truth: list[Row] = pq.read_table(truth).to_pylist()

    def recalls(self, least: Mapping[str, float]) -> list[Check]:
        """Return for each kind which part of what its stage was shown it dropped."""
        checks = []
        for kind, stage in DROPPED_BY.items():
            found, shown = self._found(kind, stage)
            if not self._expected(kind):
                continue
            detail = f"{found:,} of {shown:,} by {stage}"
            checks.append(Check(f"recall of {kind}", _share(found, shown), least.get(kind), detail))
        return checks

    def precisions(self, least: Mapping[str, float]) -> list[Check]:
        """Return for each stage which part of what it dropped was planted for it."""
        due = {
            stage: {url for k, s in DROPPED_BY.items() if s == stage for url in self._urls(k)}
            for stage in set(DROPPED_BY.values()) - {"pool"}
        }
        checks = []
        for stage in self.stages:
            gone = [url for url, row in self.by_url.items() if row["dropped_by"] == stage]
            if stage in due and gone:
                right = len(due[stage].intersection(gone))
                detail = f"{right:,} of {len(gone):,} dropped were planted"
                share = _share(right, len(gone))
                checks.append(Check(f"precision of {stage}", share, least.get(stage), detail))
        return checks

    def stays(self, least: float | None) -> list[Check]:
        """Return which part of each kind that should stay did; originals of copies are left out."""
        copied = {row["partner"] for row in self.truth if row["kind"] in COPIES}
        checks = []
        for kind in STAY:
            urls = self._urls(kind) - copied
            stayed = sum(self.by_url[url]["kept"] for url in urls)
            detail = f"{stayed:,} of {len(urls):,}"
            checks.append(Check(f"kept of {kind}", _share(stayed, len(urls)), least, detail))
        return checks

    def witnesses(self) -> Check:
        """Check that every dropped duplicate names a pair that its stage kept."""
        by_uid = {row["uid"]: row for row in self.by_url.values()}
        twins = [r for r in by_uid.values() if r["dropped_by"] in _MATCHED_BY_PICTURE]
        right = sum(
            twin["witness"] in by_uid
            and self._reached(by_uid[twin["witness"]], twin["dropped_by"], beyond=True)
            for twin in twins
        )
        detail = f"{right:,} of {len(twins):,}"
        return Check("duplicates beside a kept witness", _share(right, len(twins)), 1, detail)

    def _found(self, kind: str, stage: str) -> tuple[int, int]:
        """Return how many of a kind a stage dropped, and how many it should have."""
        planted = [row for row in self.truth if row["kind"] == kind]
        if kind == "repeated_candidate":
            return self.repeated, len(planted)
        if kind in COPIES:
            groups = [[self.by_url[row["url"]], self.by_url[row["partner"]]] for row in planted]
            shown = [g for g in groups if all(self._reached(row, stage) for row in g)]
            return sum(any(row["dropped_by"] == stage for row in g) for g in shown), len(shown)
        rows = [self.by_url[row["url"]] for row in planted]
        reached = [row for row in rows if self._reached(row, stage)]
        says = _SAYS.get(kind, "")
        gone = sum(row["dropped_by"] == stage and says in (row["reason"] or "") for row in reached)
        return gone, max(len(reached) - self._spared(kind), 0)

    def _spared(self, kind: str) -> int:
        """Return how many of a kind its stage keeps by its own rule."""
        return self.most_repeats if kind == "repeated_caption" else 0

    def _expected(self, kind: str) -> bool:
        """Whether enough of a kind was planted for any to be dropped."""
        return sum(row["kind"] == kind for row in self.truth) > self._spared(kind)

    def _reached(self, row: Row, stage: str, beyond: bool = False) -> bool:
        if row["kept"]:
            return True
        return self.stages.index(row["dropped_by"]) >= self.stages.index(stage) + beyond

    def _urls(self, kind: str) -> set[str]:
        rows = [row for row in self.truth if row["kind"] == kind]
        partners = {row["partner"] for row in rows if row["kind"] in COPIES}
        return {row["url"] for row in rows} | partners


_MATCHED_BY_PICTURE = ("exact_duplicates", "near_duplicates")


def check_caption_scores(folder: Path, truth: Path, least: float | None) -> list[Check]:
    """Return how well the score tells wrong captions (AUC) and how many the build dropped."""
    rows = [row for row in read_ledger(folder) if row.get("clip_score") is not None]
    kinds = {row["url"]: row["kind"] for row in pq.read_table(truth).to_pylist()}
    wrong = [row for row in rows if kinds[row["url"]] == "wrong_caption"]
    right = [row for row in rows if kinds[row["url"]] not in ("wrong_caption", *_OWN_CAPTIONS)]
    area = auc([row["clip_score"] for row in right], [row["clip_score"] for row in wrong])
    gone = sum(not row["kept"] for row in wrong)
    lost = sum(not row["kept"] for row in right)
    return [
        Check("AUC of clip_score, right against wrong captions", area, least),
        Check("wrong captions dropped", _share(gone, len(wrong)), None, f"{gone} of {len(wrong)}"),
        Check("right captions dropped", _share(lost, len(right)), None, f"{lost} of {len(right)}"),
    ]


_OWN_CAPTIONS = ("placeholder", "repeated_caption")  # neither right nor drawn as wrong


def auc(high: Collection[float], low: Collection[float]) -> float:
    """Return the chance that one of ``high`` is above one of ``low``; ties count half."""
    if not high or not low:
        return float("nan")
    ordered = np.sort(np.asarray(low, np.float64))
    below = np.searchsorted(ordered, list(high), "left")
    level = np.searchsorted(ordered, list(high), "right")
    return float((below + level).sum() / 2 / len(high) / len(low))


def check_chance(scores: Mapping[str, Any], shape: float = 0.2, errors: float = 3.0) -> list[Check]:
    """Check that every score is above chance by ``errors`` standard errors, zero-shot shape more.

    Colour alone answers one in eight of the colour-shape questions, so shape is asked for itself.
    """
    named = {f"zero-shot {task}": s for task, s in scores["zero_shot"].items()}
    named |= {f"probe {task}": s for task, s in scores["probe"].items()}
    for way, found in scores["retrieval"].items():
        named |= {f"{k} {way}": s for k, s in found.items() if k.startswith("R@")}
    checks = []
    for name, score in named.items():
        floor = score["chance"] + errors * score["standard_error"]
        least = max(floor, shape) if name == "zero-shot shape" else floor
        detail = f"chance {score['chance']:.3f}"
        checks.append(Check(f"{scores['run']}: {name}", score["value"], least, detail))
    return checks


def _share(part: int, whole: int) -> float:
    return part / whole if whole else float("nan")
