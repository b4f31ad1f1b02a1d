"""Check the values of a stage's options, so that a wrong recipe is refused in one line."""

from typing import TYPE_CHECKING, Any

from breadth.loaders.errors import RecipeError

if TYPE_CHECKING:
    from .stage import Stage


def _refuse(stage: "Stage", option: str, wanted: str) -> None:
    value = getattr(stage, option)
    raise RecipeError(f"{stage.name}: {option} must be {wanted}, not {value!r}")


def _range(least: float | None, most: float | None) -> str:
    if least is not None and most is not None:
        return f" from {least:g} to {most:g}"
    if least is not None:
        return f" of at least {least:g}"
    return f" of at most {most:g}" if most is not None else ""


def _outside(value: float, least: float | None, most: float | None) -> bool:
    # Written so that NaN is outside of every range.
    return not ((least is None or value >= least) and (most is None or value <= most))


def check_whole(
    stage: "Stage", option: str, least: int | None = None, most: int | None = None
) -> None:
    """Refuse an option that is not a whole number in [least, most]."""
    value: Any = getattr(stage, option)
    if type(value) is not int or _outside(value, least, most):
        _refuse(stage, option, "a whole number" + _range(least, most))


def check_number(
    stage: "Stage", option: str, least: float | None = None, most: float | None = None
) -> None:
    """Refuse an option that is not a number in [least, most]."""
    value: Any = getattr(stage, option)
    if type(value) not in (int, float) or value != value or _outside(value, least, most):
        _refuse(stage, option, "a number" + _range(least, most))


def check_flag(stage: "Stage", option: str) -> None:
    """Refuse an option that is neither true nor false."""
    if type(getattr(stage, option)) is not bool:
        _refuse(stage, option, "true or false")


def check_name(stage: "Stage", option: str) -> None:
    """Refuse an option that is not a non-empty string."""
    value: Any = getattr(stage, option)
    if not isinstance(value, str) or not value:
        _refuse(stage, option, "a name")


def check_names(stage: "Stage", option: str) -> None:
    """Refuse an option that is not a list of names; store it as a tuple, as the stage is frozen."""
    value: Any = getattr(stage, option)
    names = isinstance(value, list | tuple) and all(isinstance(n, str) and n for n in value)
    if not names or not value:
        _refuse(stage, option, "a list of names")
    object.__setattr__(stage, option, tuple(value))
