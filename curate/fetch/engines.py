"""The two ways to fetch a part's pictures, by the same options."""

from collections.abc import Callable, Mapping
from dataclasses import fields
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, TypeVar

from ..scratch import Scratch
from .failures import failed_row
from .spool import Spool

if TYPE_CHECKING:
    from ..stages.download import Download

Rows = list[dict[str, Any]]
Options = TypeVar("Options")


def _native(stage: "Download", times: Mapping[str, int], scratch: Scratch) -> tuple[Rows, Spool]:
    from .fetcher import FetchOptions
    from .part import Gentleness, Job, fetch_part
    from .picture import Shape

    own = stage.options()
    job = Job(
        _some(
            FetchOptions, own | {"user_agent": user_agent(stage.user_agent_token, stage.contact)}
        ),
        Gentleness(
            stage.per_domain_connections,
            stage.per_domain_per_s,
            stage.breaker_failures,
            stage.longest_retry_after_s,
        ),
        _some(Shape, own),
        tuple(dict.fromkeys(("sha256", stage.compute_hash, *stage.verify_hash[1:]))),
    )
    return fetch_part(list(times), times, job, scratch)


def user_agent(token: str, contact: str) -> str:
    """Return what servers read of us: a name, a version, and where to complain."""
    return f"{token}/{version('breadth')}" + (f" (+{contact})" if contact else "")


def _some(cls: Callable[..., Options], options: Mapping[str, Any]) -> Options:
    names = {field.name for field in fields(cls)}  # type: ignore[arg-type]
    return cls(**{name: value for name, value in options.items() if name in names})


def _img2dataset(
    stage: "Download", times: Mapping[str, int], scratch: Scratch
) -> tuple[Rows, Spool]:
    from .img2dataset_engine import fetch_with_img2dataset

    own = stage.options()
    web = [url for url in times if url.lower().startswith(("http://", "https://"))]
    found = fetch_with_img2dataset(
        web, {name: own[name] for name in _RESIZER}, _downloader(stage), stage.svg_side_px
    )
    by_url = dict(zip(web, found, strict=True))
    spool = Spool(scratch.part, len(times))
    rows = []
    for number, url in enumerate(times):
        row = by_url.get(url) or failed_row("bad_url", "not an http or https link")
        picture = row.pop("image", None)
        if picture is not None:
            spool.put(number, picture)
        rows.append(row)
    return rows, spool


_RESIZER = (
    "image_size",
    "resize_mode",
    "resize_only_if_bigger",
    "upscale_interpolation",
    "downscale_interpolation",
    "encode_quality",
    "encode_format",
    "skip_reencode",
    "disable_all_reencoding",
    "min_image_size",
    "max_image_area",
    "max_aspect_ratio",
)


def _downloader(stage: "Download") -> dict[str, Any]:
    return {
        "thread_count": stage.connections,
        "extract_exif": stage.extract_exif,
        "timeout": stage.deadline_s,
        "retries": stage.retries,
        "user_agent_token": stage.user_agent_token,
        "disallowed_header_directives": list(stage.disallowed_header_directives) or None,
    }


ENGINES = {"native": _native, "img2dataset": _img2dataset}
"""Each gives a row for every URL of ``times`` (URL -> pairs that have it), and their pictures."""
