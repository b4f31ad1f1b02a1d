"""Scoring a run on a folder: what it prints, beside what, and what it refuses."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from breadth.curate.shard_writer import write_folder
from breadth.loaders.decode import decode
from breadth.loaders.errors import PoolError, Refused
from breadth.loaders.folder import open_folder
from breadth.loaders.world import World
from breadth.scripts.evaluate import evaluate as command
from breadth.scripts.study_draws import draw_pairs
from breadth.train.checkpoint import load_run
from breadth.train.evaluate.labels import Task, read_tasks, write_tasks
from breadth.train.evaluate.questions import Question, write_questions
from breadth.train.evaluate.scores import evaluate
from breadth.train.loop import train
from breadth.train.recipe import load_recipe

from .made_runs import untrained
from .s3_server import Store, serve

WORLD = World(seed=5)
SHAPES = tuple(WORLD.classes("shape"))
TASK = Task("shape", "shape", SHAPES, ("a {}", "a picture of a {}"))
OPTIONS = {"image_px": 16, "steps": 2, "batch_pairs": 16, "warmup_steps": 0, "checkpoint_steps": 2}
COURSE = ((0, 0.5), (1, 2.0))


def _folder(path, start, stop, tasks=(TASK,), spoil=()):
    pairs = draw_pairs(WORLD, ["shape"], 24, range(start, stop))
    pairs = [(c, b"no picture" if i in spoil else b, e) for i, (c, b, e) in enumerate(pairs)]
    write_folder(path, pairs, name="scenes")
    if tasks:
        write_tasks(path, tasks)
    return path


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with train and held-out pairs and two runs of two steps, clip and mae."""
    place = tmp_path_factory.mktemp("evaluate")
    _folder(place / "train", 0, 40)
    _folder(place / "held_out", 40, 140)
    clip = replace(load_recipe("demo_clip"), **OPTIONS)
    train(clip, place / "train", place / "clip")
    train(
        replace(clip, name="mae", terms={"Pixels": {"weight": COURSE}}),
        place / "train",
        place / "mae",
    )
    return place


def test_scores_are_those_of_the_runs_own_vectors(place):
    """Zero-shot and retrieval equal what embedding every pair by hand gives."""
    result = evaluate(place / "clip", place / "held_out")
    run, folder = load_run(place / "clip"), open_folder(place / "held_out")
    images = np.stack([decode(folder.image(r), 16).transpose(2, 0, 1) for r in range(len(folder))])
    pictures = run.embed_pictures(images)
    labels = folder.column("shape").to_pylist()
    classes = [
        np.mean([run.embed_captions([t.format(name)])[0] for t in TASK.templates], axis=0)
        for name in SHAPES
    ]
    classes = [c / np.linalg.norm(c) for c in classes]
    named = [SHAPES[int(np.argmax([c @ p for c in classes]))] for p in pictures]
    right = np.mean([a == b for a, b in zip(named, labels, strict=True)])
    found = result["zero_shot"]["shape"]
    assert found["value"] == pytest.approx(right)
    assert (found["n"], found["chance"], found["classes"]) == (100, 1 / 8, 8)
    captions = [folder.caption(row) for row in range(len(folder))]
    vectors = {c: run.embed_captions([c])[0] for c in captions}
    ranks = [
        sum(p @ other > p @ vectors[own] + 1e-6 for other in vectors.values())
        for p, own in zip(pictures, captions, strict=True)
    ]
    found = result["retrieval"]["picture_to_caption"]["R@10"]
    assert found["value"] == pytest.approx(np.mean(np.array(ranks) < 10), abs=0.011)
    assert found["chance"] == pytest.approx(10 / len(vectors))


def test_mae_has_only_a_probe_and_says_so(place):
    """A run without InfoNCE has no zero-shot and no retrieval score, with a note."""
    result = evaluate(place / "mae", place / "held_out")
    assert result["zero_shot"] == {} and result["retrieval"] == {}
    assert 0 <= result["probe"]["shape"]["value"] <= 1
    assert any("mae has no joint space" in note for note in result["notes"])
    shown = CliRunner().invoke(command, [str(place / "mae"), "--data", str(place / "held_out")])
    assert shown.exit_code == 0
    assert "mae has no joint space" in shown.output
    assert "zero-shot shape" not in shown.output


def test_weights_stand_beside_the_scores_as_the_recipe_has_them(place):
    """The course of a weight is told whole, and the result equals what is read of its JSON."""
    result = evaluate(place / "mae", place / "held_out", limit=20)
    assert result["terms"] == {"Pixels": {"weight": [[0, 0.5], [1, 2.0]]}}
    assert result == json.loads(json.dumps(result))


def test_without_labels_there_is_retrieval_alone(place, tmp_path):
    """A folder without labels.json gives retrieval, and says what is missing."""
    result = evaluate(place / "clip", _folder(tmp_path / "bare", 140, 180, tasks=()))
    assert set(result["retrieval"]) == {"picture_to_caption", "caption_to_picture"}
    assert result["zero_shot"] == {} and result["probe"] == {}
    assert any("no labels.json" in note for note in result["notes"])


def test_scoring_the_training_pairs_is_pointed_out(place):
    """Scores on the very pairs of the training carry a note."""
    assert any("trained on" in n for n in evaluate(place / "clip", place / "train")["notes"])
    assert not any("trained on" in n for n in evaluate(place / "clip", place / "held_out")["notes"])


def test_a_limit_draws_the_same_pairs_again(place):
    """A limited evaluation scores that many pairs, the same each time."""
    first = evaluate(place / "clip", place / "held_out", limit=60)
    assert first["pairs"] == first["zero_shot"]["shape"]["n"] == 60
    assert first == evaluate(place / "clip", place / "held_out", limit=60)


def test_a_far_folder_has_the_scores_of_its_files(place, tmp_path, monkeypatch):
    """Behind a URL the pairs score as here, and pictures do not come one by one."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with serve(Store()) as store:
        store.put(place / "held_out", "bucket/held_out")
        far = evaluate(place / "clip", f"{store.url}/bucket/held_out")
    assert far == evaluate(place / "clip", place / "held_out")
    assert store.sent(".tar") and len(store.gets(".tar")) < 10


def test_undecodable_pictures_are_left_out_and_counted(place, tmp_path):
    """A damaged picture costs its pair and a note, not the evaluation."""
    result = evaluate(place / "clip", _folder(tmp_path / "spoilt", 200, 260, spoil=(3, 7)))
    assert result["pairs"] == 58
    assert any(note.startswith("2 pictures cannot be decoded") for note in result["notes"])


def test_weights_that_are_no_numbers_have_no_score():
    """NaN is nearer to nothing and farther from nothing, which would count as found."""
    run = untrained()
    torch.nn.init.constant_(run.model.image_head.weight, float("nan"))
    with pytest.raises(PoolError, match="weights that are no numbers"):
        run.embed_pictures(np.zeros((2, 3, 32, 32), np.uint8))
    assert np.isfinite(run.embed_captions(["a disc"])).all()


def test_the_table_shows_every_score_beside_chance(place):
    """The printed table has a row for each score with its chance; JSON holds the same numbers."""
    arguments = [str(place / "clip"), "--data", str(place / "held_out")]
    shown = CliRunner().invoke(command, arguments).output
    printed = json.loads(CliRunner().invoke(command, [*arguments, "--json"]).output)
    assert printed == evaluate(place / "clip", place / "held_out")
    names = ("zero-shot shape", "R@1 picture to caption", "R@5 caption to picture", "probe shape")
    for name in (*names, f"nearest {printed['knn']['shape']['k']} shape"):
        assert name in shown
    assert max(map(len, shown.splitlines())) <= 120
    row = next(line for line in shown.splitlines() if "zero-shot shape" in line)
    assert "12.50" in row
    assert f"{100 * printed['zero_shot']['shape']['value']:.1f}" in row


def test_a_device_that_is_none_is_refused_in_one_line(place):
    """The command says which there are, before it has read a weight."""
    words = [str(place / "clip"), "--data", str(place / "held_out"), "--device", "meta"]
    refused = CliRunner().invoke(command, words).exception
    assert isinstance(refused, Refused)
    assert "use cpu, cuda or cuda:N" in str(refused)


def test_questions_are_answered_beside_both_controls(place, tmp_path):
    """A folder with questions has a row for each kind, with the controls' shares."""
    folder = _folder(tmp_path / "asked", 400, 500)
    shapes = open_folder(folder).column("shape").to_pylist()
    uids = open_folder(folder).uids
    asked = [Question(u, "which shape?", s, "what") for u, s in zip(uids, shapes, strict=True)]
    write_questions(folder, asked)
    result = evaluate(place / "clip", folder)
    found = result["vqa"]["what"]
    assert found["n"] == found["pictures"] == result["probe"]["shape"]["n"]
    for control in ("question_only", "shuffled_picture"):
        above = found[control]["above"]["value"]
        assert above == pytest.approx(found["value"] - found[control]["value"])
    shown = CliRunner().invoke(command, [str(place / "clip"), "--data", str(folder)]).output
    row = next(line for line in shown.splitlines() if line.startswith("| what "))
    assert f" {100 * found['question_only']['value']:.1f} (" in row
    assert max(map(len, shown.splitlines())) <= 120
    assert not any("questions.jsonl" in note for note in result["notes"])
    write_questions(folder, [*asked, Question("f" * 32, "who?", "me", "what")])
    with pytest.raises(PoolError, match=r"asks about f{32}, which is no pair"):
        evaluate(place / "clip", folder)


def test_a_run_that_may_only_be_read_is_scored_all_the_same(place, monkeypatch):
    """Where predictions cannot be written the scores come with a note; a full disk is an error."""
    refusals = [PermissionError(13, "no"), OSError(28, "full")]

    def refuse(*_):
        raise refusals.pop(0)

    kept = evaluate(place / "clip", place / "held_out")
    monkeypatch.setattr("breadth.train.evaluate.scores.write_predictions", refuse)
    result = evaluate(place / "clip", place / "held_out")
    assert result["probe"] == kept["probe"]
    assert any("not kept" in note for note in result["notes"])
    with pytest.raises(OSError, match="full"):
        evaluate(place / "clip", place / "held_out")


def test_classes_may_be_numbers(place, tmp_path):
    """A column of numbers is named by numbers in words, and what is no class is told."""
    pairs = draw_pairs(WORLD, [], 24, range(500, 560))
    numbered = [({**c, "level": i % 3}, b, e) for i, (c, b, e) in enumerate(pairs)]
    write_folder(tmp_path, numbered, name="levels")
    labels = {"column": "level", "classes": [0, 1, 2], "templates": ["level {}"]}
    (tmp_path / "labels.json").write_text(json.dumps({"tasks": {"level": labels}}))
    result = evaluate(place / "clip", tmp_path)
    assert result["zero_shot"]["level"]["n"] == 60 and result["probe"]["level"]["classes"] == 3
    labels["classes"] = [0, 1]
    (tmp_path / "labels.json").write_text(json.dumps({"tasks": {"level": labels}}))
    with pytest.raises(PoolError, match="level holds '2', which is not among the classes"):
        evaluate(place / "clip", tmp_path)


@pytest.mark.parametrize(
    ("labels", "says"),
    [
        ({"classes": ["circle"], "templates": ["a {}"], "column": "shape"}, "two or more"),
        ({"classes": ["circle", "ring"], "templates": ["a"], "column": "shape"}, "needs {}"),
        ({"classes": ["circle", "ring"], "templates": ["a {}"]}, "column"),
        (
            {"classes": ["x", "y"], "templates": ["a {}"], "column": "shape"},
            "not among the classes",
        ),
        ({"classes": ["x", "y"], "templates": ["a {}"], "column": "shap"}, "no column 'shap'"),
    ],
)
def test_wrong_labels_are_refused_in_one_line(place, tmp_path, labels, says):
    """Labels that do not fit the folder are named before anything is embedded."""
    folder = _folder(tmp_path / "wrong", 300, 320, tasks=())
    (folder / "labels.json").write_text(json.dumps({"tasks": {"shape": labels}}))
    with pytest.raises(PoolError) as error:
        evaluate(place / "clip", folder)
    assert says in str(error.value)
    assert "\n" not in str(error.value)


def test_a_task_is_not_called_as_whole_captions_are(tmp_path):
    """The name of another score is refused: the two would be one."""
    labels = {"column": "shape", "classes": ["x", "y"], "templates": ["a {}"]}
    (tmp_path / "labels.json").write_text(json.dumps({"tasks": {"exact": labels}}))
    with pytest.raises(PoolError, match="give the task another name"):
        read_tasks(tmp_path)


def test_tasks_are_read_as_they_were_written(tmp_path):
    """labels.json gives back the same tasks; a folder without one has none."""
    assert read_tasks(tmp_path) == ()
    write_tasks(tmp_path, [TASK])
    assert read_tasks(tmp_path) == (TASK,)
