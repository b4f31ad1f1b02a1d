"""Train a network of ViT-B/16's shape on what a loader brings: only the time is of interest."""

from collections.abc import Callable, Sized
from typing import cast

import torch
from torch import Tensor, nn

PATCH, WIDTH, DEPTH, HEADS = 16, 768, 12, 12


class VisionTransformer(nn.Module):
    """The encoder of ViT-B/16: 86 M parameters, one output vector a picture."""

    def __init__(self, px: int) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, WIDTH, PATCH, PATCH)
        self.places = nn.Parameter(torch.zeros(1, (px // PATCH) ** 2, WIDTH))
        layer = nn.TransformerEncoderLayer(
            WIDTH, HEADS, 4 * WIDTH, 0.0, "gelu", batch_first=True, norm_first=True
        )
        self.layers = nn.TransformerEncoder(layer, DEPTH, enable_nested_tensor=False)

    def forward(self, images: Tensor) -> Tensor:
        """Encode float [B, 3, px, px] to [B, WIDTH]."""
        return self.layers(self.patches(images).flatten(2).mT + self.places).mean(1)


def training_step(device: str) -> Callable[[Sized], None]:
    """Return a function that trains on a batch and ends when the device has; bfloat16, AdamW."""
    model: VisionTransformer | None = None
    optimizer: torch.optim.Optimizer | None = None

    def step(batch: Sized) -> None:
        nonlocal model, optimizer
        images = cast(Tensor, batch).to(device)
        channels_first = images if images.shape[1] == 3 else images.permute(0, 3, 1, 2)
        if model is None or optimizer is None:
            model = VisionTransformer(channels_first.shape[-1]).to(device)
            optimizer = torch.optim.AdamW(model.parameters(), 1e-4)
        with torch.autocast(torch.device(device).type, torch.bfloat16):
            loss = model((channels_first.float() - 127) / 64).float().square().mean()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        loss.item()  # waits

    return step
