"""Check the options of the download stage, so that a wrong recipe is refused in one line."""

from dataclasses import fields
from typing import TYPE_CHECKING

from breadth.loaders.errors import RecipeError

from ..options import check_flag, check_names, check_number, check_whole

if TYPE_CHECKING:
    from ..stages.download import Download

RESIZE_MODES = ("no", "border", "keep_ratio", "keep_ratio_largest", "center_crop")
INTERPOLATIONS = (
    "nearest",
    "linear",
    "bilinear",
    "cubic",
    "bicubic",
    "area",
    "lanczos",
    "lanczos4",
)
MOST_PIXELS = 178_956_970
"""Pillow's limit for what it decodes; PNG, WebP, GIF and AVIF are its."""
HASHES = ("sha256", "md5", "sha512")
CHOICES = {
    "engine": ("native", "img2dataset"),
    "resize_mode": RESIZE_MODES,
    "resize_quality": ("fast", "exact"),
    "encode_format": ("jpg", "png", "webp"),
    "upscale_interpolation": INTERPOLATIONS,
    "downscale_interpolation": INTERPOLATIONS,
    "compute_hash": HASHES,
}
NATIVE_ONLY = (
    "resize_quality",
    "max_pixels",
    "max_bytes",
    "max_redirects",
    "allow_private",
    "use_proxy",
    "contact",
    "respect_robots",
    "per_domain_connections",
    "per_domain_per_s",
    "breaker_failures",
    "longest_retry_after_s",
    "compute_hash",
    "verify_hash",
)
"""Options that img2dataset has nothing for: setting one beside it is refused."""


def check_download(stage: "Download") -> None:
    """Refuse options that are wrong by themselves or beside each other; raises RecipeError."""
    for option, known in CHOICES.items():
        if getattr(stage, option) not in known:
            raise RecipeError(f"download: {option} must be one of {', '.join(known)}")
    _check_numbers(stage)
    for field in fields(stage):
        if isinstance(field.default, bool):
            check_flag(stage, field.name)
    if stage.disallowed_header_directives:
        check_names(stage, "disallowed_header_directives")
    _check_words(stage)
    _check_engine(stage)


def _check_numbers(stage: "Download") -> None:
    for option in ("image_size", "svg_side_px", "max_bytes"):
        check_whole(stage, option, 1)
    check_whole(stage, "connections", 1, 512)  # a process has 1,024 descriptors, and two parts
    check_whole(stage, "max_pixels", 1, MOST_PIXELS)
    for option in ("min_image_size", "max_redirects", "retries"):
        check_whole(stage, option, 0)
    for option in ("per_domain_connections", "breaker_failures"):
        check_whole(stage, option, 0)
    for option in ("per_domain_per_s", "longest_retry_after_s"):
        check_number(stage, option, 0)
    for option in ("max_image_area", "max_aspect_ratio"):
        check_number(stage, option, 0)
    check_number(stage, "deadline_s", 0.1)
    check_whole(stage, "encode_quality", 0, 9 if stage.encode_format == "png" else 100)


def _check_words(stage: "Download") -> None:
    for option in ("user_agent_token", "contact"):
        value = getattr(stage, option)
        if not isinstance(value, str) or not (value.isprintable() and value.isascii()):
            raise RecipeError(f"download: {option} must be plain ASCII on one line, not {value!r}")
    if not stage.user_agent_token.replace("-", "").replace("_", "").isalpha():
        raise RecipeError("download: user_agent_token must be a word of letters, - and _")
    if stage.verify_hash:
        check_names(stage, "verify_hash")
        if len(stage.verify_hash) != 2 or stage.verify_hash[1] not in HASHES:
            raise RecipeError(
                "download: verify_hash must name a column of the pool and its kind of hash, "
                'as ["md5", "md5"]; kinds are ' + ", ".join(HASHES)
            )


def _check_engine(stage: "Download") -> None:
    if stage.engine == "native":
        if stage.resize_quality == "fast" and stage.downscale_interpolation != "area":
            raise RecipeError(
                'download: downscale_interpolation counts only with resize_quality = "exact"'
            )
        return
    defaults = {field.name: field.default for field in fields(stage)}
    for option in NATIVE_ONLY:
        if getattr(stage, option) != defaults[option]:
            raise RecipeError(
                f"download: engine img2dataset has no {option}: leave it out, or use "
                'engine = "native"'
            )
