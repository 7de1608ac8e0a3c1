"""Plain implementation of a linear probe, which encodes every batch in every epoch.

`scripts/benchmark.py` compares `scripts/probe.py`, which extracts features once, with it.
"""

import torch
from datasets import Dataset, Image
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader
from torchvision.transforms import functional as TF

from modeling_pcl import PCLModel

from .per_image_views import cut_square


class LabelledImages(torch.utils.data.Dataset):
    """A dataset of images, decoded and resized with PIL, and their classes."""

    def __init__(self, corpus: Dataset, labels: list[int], image_size_px: int):
        self.rows, self.labels, self.size = corpus.cast_column("image", Image()), labels, [image_size_px] * 2

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, row: int) -> tuple[torch.Tensor, int]:
        square = cut_square(self.rows[row]["image"])
        return TF.to_tensor(TF.resize(square, self.size)), self.labels[row]


def train_probe(model: PCLModel, images: LabelledImages, epochs: int, workers: int) -> nn.Linear:
    """Train a linear layer on the trunk feature with Adam, in float32 and batches of 256."""
    device, feature_size = model.device, model(images[0][0][None].to(model.device)).pooler_output.shape[1]
    layer = nn.Linear(feature_size, max(images.labels) + 1, device=device)
    optimizer = torch.optim.Adam(layer.parameters(), lr=1e-2)
    loader = DataLoader(images, batch_size=256, shuffle=True, num_workers=workers)
    for _ in range(epochs):
        for pixel_values, labels in loader:
            with torch.no_grad():
                features = model(pixel_values.to(device)).pooler_output
            optimizer.zero_grad()
            F.cross_entropy(layer(features), labels.to(device)).backward()
            optimizer.step()
    return layer
