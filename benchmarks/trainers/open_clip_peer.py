"""open_clip's trainer on a job: ``python -m benchmarks.trainers.open_clip_peer JOB.json OUT.json``.

It runs in an environment of its own, whose torchvision has no build for this torch: two of its
operators are declared before it is imported, and never used.
"""

import json
import sys
import tempfile
from pathlib import Path

import torch
from tokenizers import Tokenizer

from .job import Job, Timed, timed, write_timed

_OPERATORS = torch.library.Library("torchvision", "DEF")  # lives as long as the process
for _name in ("nms", "qnms"):
    _OPERATORS.define(f"{_name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")

import open_clip  # noqa: E402
from open_clip.model import CLIP, CLIPTextCfg, CLIPVisionCfg  # noqa: E402

EOS = 2  # of the tokenizer that both are given
TEMPLATES = ("this is a {}", "there is a {}", "you can see a {}", "this picture shows a {}")


def configuration(job: Job) -> dict:
    """Return the job's model as open_clip writes it down."""
    shape = job.shape
    return {
        "embed_dim": shape.embedding,
        "quick_gelu": True,
        "vision_cfg": {
            "image_size": shape.image_px,
            "layers": shape.depth,
            "width": shape.width,
            "head_width": shape.width // shape.heads,
            "patch_size": shape.patch_px,
        },
        "text_cfg": {
            "context_length": shape.context_length,
            "vocab_size": shape.vocabulary,
            "width": shape.text_width,
            "heads": shape.text_heads,
            "layers": shape.text_depth,
            "pool_type": "eos",
            "eos_id": EOS,
        },
    }


class Captions:
    """The tokenizer of the other trainer, as open_clip calls one."""

    def __init__(self, job: Job) -> None:
        self._tokenizer = Tokenizer.from_file(job.tokenizer)
        self._length = job.shape.context_length

    def __call__(self, captions: str | list[str]) -> torch.Tensor:
        """Return int64 [n, context_length], begin and end included."""
        some = [captions] if isinstance(captions, str) else captions
        rows = torch.zeros(len(some), self._length, dtype=torch.int64)
        for row, caption in zip(rows, some, strict=True):
            ids = self._tokenizer.encode(caption, add_special_tokens=False).ids
            ids = [1, *ids[: self._length - 2], EOS]
            row[: len(ids)] = torch.tensor(ids)
        return rows


def steps(job: Job) -> Timed:
    """Time updates on random pairs, with its model and loss and its trainer's optimiser."""
    made = configuration(job)
    vision, text = CLIPVisionCfg(**made["vision_cfg"]), CLIPTextCfg(**made["text_cfg"])
    model = CLIP(made["embed_dim"], vision, text, quick_gelu=True).to(job.device)
    loss_of = open_clip.ClipLoss()
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-3, betas=(0.9, 0.98), eps=1e-6)
    px, length = job.shape.image_px, job.shape.context_length
    images = torch.randn(job.batch_pairs, 3, px, px, device=job.device)
    tokens = torch.randint(1, job.shape.vocabulary, (job.batch_pairs, length), device=job.device)
    forward = torch.compile(model) if job.compiled else model

    def step(_: int) -> None:
        optimiser.zero_grad()
        half = job.precision == "bfloat16"
        with torch.autocast(torch.device(job.device).type, torch.bfloat16, enabled=half):
            image, caption, scale = forward(images, tokens)
            loss = loss_of(image, caption, scale)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        if job.device == "cuda":
            torch.cuda.synchronize()

    timed(step, 0, job.warm_steps)
    return timed(step, job.warm_steps, job.steps)


def runs(job: Job) -> Timed:
    """Time whole runs of its command, each with its zero-shot evaluation."""
    from open_clip_train import main as trainer

    trainer.get_tokenizer = lambda *_, **__: Captions(job)
    folder = Path(tempfile.mkdtemp(dir=job.out))
    (folder / "peer.json").write_text(json.dumps(configuration(job)))
    open_clip.add_model_config(folder / "peer.json")
    shards = sorted(Path(job.data).rglob("*.tar"))
    pairs = job.steps * job.batch_pairs

    def run(seed: int) -> float:
        flags = {
            "--train-data": "::".join(map(str, shards)),
            "--dataset-type": "webdataset",
            "--train-num-samples": pairs,
            "--epochs": 1,
            "--batch-size": job.batch_pairs,
            "--model": "peer",
            "--precision": "fp32",
            "--device": job.device,
            "--workers": 1,
            "--lr": 1e-3,
            "--wd": 0.1,
            "--warmup": 20,
            "--grad-clip-norm": 1.0,
            "--seed": seed,
            "--logs": folder / "logs",
            "--name": f"run-{seed}",
        }
        words = [str(word) for pair in flags.items() for word in pair]
        trainer.main([*words, "--dataset-resampled"])
        weights = folder / "logs" / f"run-{seed}" / "checkpoints" / "epoch_1.pt"
        return _zero_shot(job, weights)

    return timed(run, 0, job.runs)


@torch.inference_mode()
def _zero_shot(job: Job, weights: Path) -> float:
    """Score colour and shape of the held-out pictures as its own evaluation does."""
    import webdataset as wds

    model, _, preprocess = open_clip.create_model_and_transforms("peer")
    saved = torch.load(weights, map_location="cpu", weights_only=False)["state_dict"]
    model.load_state_dict({k.removeprefix("module."): v for k, v in saved.items()})
    model.eval()
    task = json.loads((Path(job.held_out) / "labels.json").read_text())["tasks"]["colour_shape"]
    classes = task["classes"]
    classifier = open_clip.build_zero_shot_classifier(
        model,
        tokenizer=Captions(job),
        classnames=classes,
        templates=[lambda name, t=t: t.format(name) for t in TEMPLATES],
        num_classes_per_batch=16,
        device="cpu",
    )
    shards = [str(path) for path in sorted(Path(job.held_out).rglob("*.tar"))]
    pairs = wds.DataPipeline(
        wds.SimpleShardList(shards), wds.tarfile_to_samples(), wds.decode("pilrgb"),
        wds.to_tuple("jpg", "json"), wds.batched(256),
    )  # fmt: skip
    right = total = 0
    for pictures, columns in pairs:
        images = torch.stack([preprocess(picture) for picture in pictures])
        best = (model.encode_image(images, normalize=True) @ classifier).argmax(dim=1)
        named = [classes[place] for place in best.tolist()]
        right += sum(n == c["colour_shape"] for n, c in zip(named, columns, strict=True))
        total += len(named)
    return right / total


def main(job_file: str, result_file: str) -> None:
    """Do the job and write what was measured."""
    job = Job.read(Path(job_file))
    write_timed(runs(job) if job.runs else steps(job), Path(result_file))


if __name__ == "__main__":
    main(*sys.argv[1:])
