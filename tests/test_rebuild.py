"""Every score can be made again of the kept predictions, without torch and without our code."""

import json
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from click.testing import CliRunner

from breadth.loaders.decode import decode
from breadth.loaders.errors import PoolError
from breadth.loaders.folder import open_folder
from breadth.loaders.tokenize import encode
from breadth.loaders.world import World
from breadth.scripts.demo.heldout import write_heldout
from breadth.scripts.evaluate import evaluate as command
from breadth.scripts.score_tables import scores_text
from breadth.train.checkpoint import Run, load_run
from breadth.train.evaluate.drawn import Drawn, read_drawn
from breadth.train.evaluate.labels import read_tasks
from breadth.train.evaluate.predictions import read_predictions
from breadth.train.evaluate.questions import read_questions
from breadth.train.evaluate.rebuild import MAKERS, rebuild
from breadth.train.evaluate.scores import evaluate
from breadth.train.generate import reconstruct
from breadth.train.inputs import draw_inputs
from breadth.train.loop import train
from breadth.train.recipe import load_recipe
from breadth.train.terms import Caption

PAIRS = 150
PAGE = (Path(__file__).parent.parent / "docs/evaluation.md").read_text(encoding="utf-8")


def _describe(run, images):
    """Say of a picture what its brightness decides: two steps teach no run to write."""
    bright = images.mean(axis=(1, 2, 3)) > 100
    return ["this is a red star" if one else "there is a blue ring" for one in bright]


@pytest.fixture(scope="module")
def scored(tmp_path_factory):
    """A run of two steps with every ability, scored on held-out scenes and on 100 of them."""
    place = tmp_path_factory.mktemp("rebuild")
    write_heldout(World(seed=2, unseen=8), PAIRS, 0, place / "heldout", px=24)
    recipe = replace(
        load_recipe("demo_clip"),
        image_px=24,
        patch_px=3,
        steps=2,
        batch_pairs=16,
        warmup_steps=0,
        architecture="coca",
        caption_queries=4,
        terms={"InfoNCE": 1, "Caption": 1, "Pixels": 1},
    )
    train(recipe, place / "heldout", place / "run")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("breadth.train.evaluate.pairs.describe", _describe)
        result = evaluate(place / "run", place / "heldout")
        limited = evaluate(place / "run", place / "heldout", limit=100)
    return place / "run", place / "heldout", result, limited


REBUILD = """
import json, sys
for name in ("torch", "scipy", "cv2", "tokenizers", "safetensors"):
    sys.modules[name] = None  # importing it is an error
from breadth.train.evaluate.rebuild import rebuild
print(json.dumps([rebuild(folder) for folder in sys.argv[1:]]))
"""


def test_every_score_is_rebuilt_where_torch_cannot_be_imported(scored):
    """A process without torch makes exactly the scores of the evaluation, full and limited."""
    run, _, result, limited = scored
    assert all(result[name] for name in MAKERS)
    assert result["predictions"] != limited["predictions"]
    folders = [str(run / scores["predictions"]) for scores in (result, limited)]
    done = subprocess.run([sys.executable, "-c", REBUILD, *folders], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for scores, rebuilt in zip((result, limited), json.loads(done.stdout), strict=True):
        assert rebuilt == {name: json.loads(json.dumps(scores[name])) for name in MAKERS}


def test_the_code_of_docs_evaluation_gives_the_score(scored, tmp_path, monkeypatch):
    """Its blocks run beside a folder of runs, and their last value is that of the evaluation."""
    run, _, result, _ = scored
    (block,) = re.findall(r"```python\n(.*?)```", PAGE, flags=re.DOTALL)
    (shown,) = re.findall(r'"(runs/[^"]+)"', block)
    (tmp_path / shown).parent.mkdir(parents=True)
    (tmp_path / shown).symlink_to(run / result["predictions"])
    monkeypatch.chdir(tmp_path)
    *before, value = block.strip().splitlines()
    names = {}
    exec("\n".join(before), names)
    assert eval(value, names) == result["vqa"]["colour"]["value"]
    assert re.match(r"[0-9a-f]{16}$", Path(shown).name)


def test_the_files_that_docs_evaluation_shows_are_read(tmp_path):
    """Each name on the page stands before what such a file may hold."""
    (line,) = re.findall(r"```json\n(.*?)```", PAGE, flags=re.DOTALL)
    (tmp_path / "questions.jsonl").write_text(line)
    for name in ("world.json", "labels.json"):
        (held,) = re.findall(rf"^`{name}` .*?: `(\{{.*?\}})`[;.]", PAGE, flags=re.MULTILINE)
        (tmp_path / name).write_text(held)
    assert read_drawn(tmp_path) == Drawn(World(seed=0, unseen=8), range(1000000, 1001000))
    assert [task.templates for task in read_tasks(tmp_path)] == [("this is a {}",)]
    assert [question.kind for question in read_questions(tmp_path)] == ["colour"]


def test_plain_numpy_finds_the_same_shares(scored):
    """Means and errors of the rows, written out here, are the scores."""
    run, _, result, _ = scored
    for score, group in (("zero_shot", "task"), ("probe", "task"), ("knn", "task")):
        rows = pq.read_table(run / result["predictions"] / f"{score}.parquet").to_pylist()
        for task, found in result[score].items():
            own = [row for row in rows if row[group] == task]
            hits = np.array([row["hit"] for row in own])
            assert found["value"] == pytest.approx(hits.mean())
            assert found["standard_error"] == pytest.approx(hits.std() / np.sqrt(len(hits)))
            assert all(row["hit"] in (0, 1) or score == "zero_shot" for row in own)
            if score != "zero_shot":
                assert all(row["hit"] == (row["predicted"] == row["truth"]) for row in own)
    rows = pq.read_table(run / result["predictions"] / "vqa.parquet").to_pylist()
    for kind, found in result["vqa"].items():
        own = [row for row in rows if row["kind"] == kind]
        for head, share in (("predicted", found), ("question_only", found["question_only"])):
            hits = np.array([row[head] == row["truth"] for row in own])
            by_picture = {row["uid"]: 0.0 for row in own}
            for row, hit in zip(own, hits, strict=True):
                by_picture[row["uid"]] += hit - hits.mean()
            error = np.sqrt(sum(v**2 for v in by_picture.values())) / len(own)
            assert share["value"] == pytest.approx(hits.mean())
            assert share["standard_error"] == pytest.approx(error)


def test_recall_is_rebuilt_from_each_querys_place(scored):
    """Where nothing ties, R@k is the share of queries with fewer than k items above."""
    run, _, result, _ = scored
    rows = pq.read_table(run / result["predictions"] / "retrieval.parquet").to_pylist()
    for way, found in result["retrieval"].items():
        own = [row for row in rows if row["way"] == way]
        assert len(own) == found["queries"]
        if all(row["tied"] == row["tied_right"] for row in own):
            for k in (1, 5, 10):
                share = np.mean([row["above"] < k for row in own])
                assert found[f"R@{k}"]["value"] == pytest.approx(share)


def test_captions_and_patches_are_scored_from_what_the_run_says(scored):
    """Naming counts the first name where the caption has it; losses are shares of sums."""
    run, heldout, result, _ = scored
    pairs = pq.read_table(heldout / "00000.parquet").to_pylist()
    said = {
        row["uid"]: row["predicted"]
        for row in pq.read_table(run / result["predictions"] / "captioning.parquet").to_pylist()
        if row["task"] == "exact"
    }
    right = [pair["colour"] in said[pair["uid"]].split() for pair in pairs]
    assert result["captioning"]["colour"]["value"] == pytest.approx(np.mean(right))
    assert result["captioning"]["colour"]["n"] == PAIRS
    assert result["captioning"]["colour"]["named"] == 1
    exact = [pair["caption"] == said[pair["uid"]] for pair in pairs]
    assert result["captioning"]["exact"]["value"] == pytest.approx(np.mean(exact))
    losses = pq.read_table(run / result["predictions"] / "reconstruction.parquet")
    share = np.sum(losses["loss"].to_numpy()) / np.sum(losses["mean_patch_loss"].to_numpy())
    assert result["reconstruction"]["value"] == pytest.approx(share)
    shown = scores_text(result)
    for words in ("caption says colour", "caption word by word", "nats a token", "mean patch's"):
        assert words in shown
    assert max(map(len, shown.splitlines())) <= 120


def test_losses_are_those_of_the_runs_own_terms(scored):
    """Captions cost what the term Caption says, hidden patches what filling them in does."""
    path, heldout, result, _ = scored
    run, folder = load_run(path), open_folder(heldout)
    images = np.stack([decode(folder.image(row), 24).transpose(2, 0, 1) for row in range(PAIRS)])
    captions = [folder.caption(row) for row in range(PAIRS)]
    tokens = torch.from_numpy(encode(run.tokenizer, captions, run.recipe.context_length))
    drawn = draw_inputs(run.recipe, torch.from_numpy(images), tokens, 0, vocabulary=512)
    with torch.inference_mode():
        inputs = drawn.on(run.device)
        total, count = Caption().loss({**run.model(inputs), **inputs.known})
    assert result["caption_loss"]["value"] == pytest.approx(float(total / count), rel=1e-5)
    assert result["caption_loss"]["tokens"] == int(count)
    filled = reconstruct(run, images)
    rows = pq.read_table(path / result["predictions"] / "reconstruction.parquet")
    assert rows["uid"].to_pylist() == folder.uids
    assert np.allclose(rows["loss"].to_numpy(), filled.loss_n)
    assert np.allclose(rows["mean_patch_loss"].to_numpy(), filled.flat_loss_n)


def test_every_question_on_a_test_picture_has_its_row(scored):
    """The answers' rows are the questions of the pictures that the probe is tested on."""
    run, heldout, result, _ = scored
    folder = run / result["predictions"]
    tested = set(pq.read_table(folder / "probe.parquet")["uid"].to_pylist())
    rows = pq.read_table(folder / "vqa.parquet").to_pylist()
    asked = [q for q in read_questions(heldout) if q.uid in tested]
    assert [(q.uid, q.question, q.answer) for q in asked] == [
        (row["uid"], row["question"], row["truth"]) for row in rows
    ]


def test_what_has_no_number_is_null_in_json(scored):
    """Of one scene there is no error over combinations, and any JSON parser reads that."""
    run, heldout, *_ = scored
    arguments = [str(run), "--data", str(heldout), "--limit", "1", "--json"]
    printed = CliRunner().invoke(command, arguments).output
    found = json.loads(printed, parse_constant=pytest.fail)
    assert found["held_out_combinations"]["error_over_combinations"] is None
    assert found["held_out_combinations"]["after"]["n"] == 1


def test_files_of_two_evaluations_are_not_read_as_one(scored, tmp_path):
    """A folder that a kill left half replaced, or that holds nothing, is refused in one line."""
    run, _, result, limited = scored
    with pytest.raises(PoolError, match="holds no predictions"):
        rebuild(tmp_path)
    for scores, name in ((result, "probe"), (limited, "knn")):
        source = run / scores["predictions"] / f"{name}.parquet"
        (tmp_path / source.name).write_bytes(source.read_bytes())
    with pytest.raises(PoolError, match="two evaluations"):
        rebuild(tmp_path)
    (tmp_path / "knn.parquet").write_bytes(b"PAR1")
    with pytest.raises(PoolError, match="evaluate again"):
        rebuild(tmp_path)


def test_an_evaluation_replaces_the_one_before(scored, monkeypatch):
    """Scores that are no longer made leave no file, and equal evaluations give equal bytes."""
    run, heldout, result, _ = scored
    folder = run / result["predictions"]
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    monkeypatch.setattr("breadth.train.evaluate.pairs.describe", _describe)
    monkeypatch.setattr(Run, "has_pixels", False)
    again = evaluate(run, heldout)
    after = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert again["reconstruction"] == {} and "reconstruction.parquet" not in after
    assert any("no score of reconstruction" in note for note in again["notes"])
    assert {"probe.parquet", "vqa.parquet", "retrieval.parquet"} <= set(after)
    assert all(before[name] == content for name, content in after.items())
    assert read_predictions(folder)[1]["run_digest"] == again["run_digest"]


@pytest.mark.gpu
def test_cuda_scores_as_the_cpu_does(scored):
    """Every score is there on both kinds of device, and nearly the same share is named right."""
    run, heldout, result, _ = scored
    found = evaluate(run, heldout, device="cuda")
    assert all(found[name] for name in MAKERS)
    assert found["notes"] == result["notes"]
    for task, score in result["zero_shot"].items():
        assert found["zero_shot"][task]["value"] == pytest.approx(score["value"], abs=0.05)
