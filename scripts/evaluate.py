"""breadth evaluate: what a run has learnt, beside what guessing would give."""

import json
from pathlib import Path

import click


@click.command(epilog="Example: breadth evaluate runs/clip --data shards/held_out")
@click.argument("run", metavar="RUN", type=click.Path(path_type=Path))
@click.option(
    "--data",
    metavar="DIR",
    required=True,
    help="Pairs the run was not trained on; they may be far away (s3://...). Its labels.json names "
    "classes and templates, its questions.jsonl asks about the pictures.",
)
@click.option(
    "--limit", metavar="N", type=click.IntRange(1), help="Score N pairs, drawn by hash of uid."
)
@click.option("--device", help="cpu, cuda or cuda:N; by default cuda where there is one.")
@click.option("--json", "as_json", is_flag=True, help="Print the scores as JSON.")
def evaluate(run: Path, data: str, limit: int | None, device: str | None, as_json: bool) -> None:
    """Print a run's scores beside chance, and keep what it predicted for every item.

    Zero-shot, retrieval, linear probe, nearest neighbours and answers to questions; captions and
    hidden patches where the run's terms have learnt them; where it looks, what its answers hang on
    and which frequencies it reads where the pictures are drawn scenes. The output says what has no
    score and why.
    """
    from breadth.train.evaluate.score import without_nan
    from breadth.train.evaluate.scores import evaluate as score
    from breadth.train.ranks import best_device

    from .score_tables import scores_text

    result = score(run, data, limit=limit, device=device or best_device())
    if as_json:
        click.echo(json.dumps(without_nan(result), indent=1, sort_keys=True, allow_nan=False))
    else:
        click.echo(scores_text(result))
