"""Breadth's trainer on a job: ``python -m benchmarks.trainers.ours JOB.json OUT.json``."""

import sys
from pathlib import Path

import torch

from breadth.train.evaluate.scores import evaluate
from breadth.train.inputs import draw_inputs
from breadth.train.loop import train
from breadth.train.recipe import TrainRecipe
from breadth.train.schedule import clip_gradients
from breadth.train.step import weights_at
from breadth.train.trainee import make_trainee

from .job import Job, Timed, timed, write_timed

TERMS: dict[str, dict[str, float]] = {
    "clip": {"InfoNCE": 1},
    "maeclip": {"InfoNCE": 1, "Pixels": 1, "Tokens": 0.5},
}


def recipe_of(job: Job, seed: int = 0) -> TrainRecipe:
    """Return the recipe of the job's model."""
    shape = job.shape
    decoder = max(64, shape.width * 2 // 3 // 64 * 64)
    return TrainRecipe(
        name=job.terms,
        terms=TERMS[job.terms],
        steps=job.steps,
        size={
            "width": shape.width,
            "depth": shape.depth,
            "heads": shape.heads,
            "text_width": shape.text_width,
            "text_depth": shape.text_depth,
            "text_heads": shape.text_heads,
            "embedding": shape.embedding,
            "decoder_width": decoder,
            "decoder_depth": 4,
            "decoder_heads": decoder // 32,
        },
        architecture="clip",
        pool="cls",
        image_px=shape.image_px,
        patch_px=shape.patch_px,
        context_length=shape.context_length,
        vocabulary=shape.vocabulary,
        batch_pairs=job.batch_pairs,
        precision=job.precision,
        compiled=job.compiled,
        lr=1e-3,
        checkpoint_steps=job.steps,
        seed=seed,
    )


def steps(job: Job) -> Timed:
    """Time updates on random pairs with captions of full length."""
    recipe, device = recipe_of(job), torch.device(job.device)
    trainee = make_trainee(recipe, job.shape.vocabulary, device)
    draws = torch.Generator().manual_seed(0)
    px, length = job.shape.image_px, job.shape.context_length
    images = torch.randint(256, (job.batch_pairs, 3, px, px), dtype=torch.uint8, generator=draws)
    tokens = torch.randint(4, job.shape.vocabulary, (job.batch_pairs, length), generator=draws)
    tokens[:, 0], tokens[:, -1] = 1, 2

    def step(number: int) -> None:
        inputs = draw_inputs(recipe, images, tokens, number, vocabulary=job.shape.vocabulary)
        trainee.optimiser.zero_grad(set_to_none=True)
        trainee.step_of.backward(inputs, weights_at(recipe.objective, 0.5, {}))
        clip_gradients(recipe, trainee.model)
        trainee.optimiser.step()
        if device.type == "cuda":
            torch.cuda.synchronize()

    timed(step, 0, job.warm_steps)
    return timed(step, job.warm_steps, job.steps)


def runs(job: Job) -> Timed:
    """Time whole runs, each trained and evaluated: zero-shot, retrieval and probes."""

    def run(seed: int) -> float:
        out = Path(job.out) / f"ours-{seed}"
        train(recipe_of(job, seed), job.data, out, device=job.device)
        scores = evaluate(out, job.held_out)
        score: float = scores["zero_shot"]["colour_shape"]["value"]
        return score

    return timed(run, 0, job.runs)


def main(job_file: str, result_file: str) -> None:
    """Do the job and write what was measured."""
    job = Job.read(Path(job_file))
    write_timed(runs(job) if job.runs else steps(job), Path(result_file))


if __name__ == "__main__":
    main(*sys.argv[1:])
