"""``breadth stages``: the catalogue of stages."""

import inspect
from dataclasses import fields

import click


@click.command(epilog="Example: breadth stages near_duplicates")
@click.argument("name", required=False)
def stages(name: str | None) -> None:
    """List the stages, or print the options, columns and source of stage NAME."""
    import breadth.curate.stages  # noqa: F401  (fills the catalogue)
    from breadth.curate.recipe import hint, shipped
    from breadth.curate.stage import STAGES
    from breadth.loaders.errors import RecipeError

    if name is None:
        for known in sorted(STAGES):
            kind = STAGES[known].__mro__[1].__name__.lower()
            summary = (inspect.getdoc(STAGES[known]) or "").splitlines()[0]
            click.echo(f"{known:18} {kind:10} {summary}")
        click.echo(f"\nshipped recipes: {', '.join(shipped())}")
    elif name in STAGES:
        _describe(name)
    else:
        raise RecipeError(f"no stage is named {name!r}{hint(name, STAGES)}")


def _describe(name: str) -> None:
    from breadth.curate.stage import STAGES

    cls = STAGES[name]
    click.echo(f"{name} ({cls.__mro__[1].__name__.lower()}, {cls.resource})\n")
    click.echo(inspect.getdoc(cls) or "")
    click.echo("\noptions:")
    for option in fields(cls):  # type: ignore[arg-type]
        required = option.name in cls.required_options()
        default = "required" if required else f"default {option.default!r}"
        click.echo(f"  {option.name}: {getattr(option.type, '__name__', option.type)}, {default}")
    stage = cls() if not cls.required_options() else None
    for what in ("reads", "writes"):
        value = getattr(stage or cls, what)
        names = "as its options say" if isinstance(value, property) else ", ".join(value) or "-"
        click.echo(f"{what}: {names}")
