"""Plain implementation of views: image by image with PIL and torchvision, in the workers of a DataLoader.

Tests compare the views of `modeling_pcl.data.views` with it, and `scripts/benchmark.py` compares the time.
"""

import random
from collections.abc import Iterator

import PIL.Image
import torch
from datasets import Dataset, Image
from torch.utils.data import DataLoader
from torchvision import transforms
from torchvision.transforms import functional as F

QUADRANTS = [(0, 0), (0, 1), (1, 0), (1, 1)]


def gradient_magnitude(image: torch.Tensor) -> torch.Tensor:
    grey = (65.738 * image[0] + 129.057 * image[1] + 25.064 * image[2]) / 256
    padded = torch.nn.functional.pad(grey, (1, 1, 1, 1))
    across, down = padded[1:-1, 2:] - padded[1:-1, :-2], padded[2:, 1:-1] - padded[:-2, 1:-1]
    return (across**2 + down**2 + 1e-6).sqrt().clamp(0, 1).expand(3, -1, -1)


PHOTOMETRIC = transforms.Compose(
    [
        transforms.RandomApply([transforms.ColorJitter(0.8, 0.8, 0.8, 0.2)], p=0.8),
        transforms.RandomGrayscale(p=0.2),
        transforms.RandomApply([transforms.GaussianBlur(7, (0.1, 2.0))], p=0.8),
        transforms.ToTensor(),
        transforms.RandomApply([transforms.Lambda(gradient_magnitude)], p=0.6),
    ]
)


def cut_square(image: PIL.Image.Image) -> PIL.Image.Image:
    """Crop the central square of an image, in RGB."""
    return F.center_crop(image.convert("RGB"), [min(image.size)])


class PerImageViews(torch.utils.data.Dataset):
    """A dataset whose items are the views of an image for one objective.

    Args:
        corpus: Corpus with a column `image`.
        objective: `"disentangling"`, `"face_contrast"` or `"pose_contrast"`.
        image_size_px: Side of the views.
        negatives: Number of views of the mirror for the pose contrast.
    """

    def __init__(self, corpus: Dataset, objective: str, image_size_px: int, negatives: int):
        self.rows = corpus.cast_column("image", Image())  # Decoded by `datasets`, with PIL.
        self.make_views = getattr(self, f"_{objective}")
        self.size = [image_size_px, image_size_px]
        self.negatives = negatives

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, row: int) -> torch.Tensor:
        """Return views, `(views, 3, size, size)` in [0, 1]."""
        return self.make_views(cut_square(self.rows[row]["image"]))

    def _disentangling(self, image) -> torch.Tensor:
        clean = F.to_tensor(F.resize(image, self.size))
        both = torch.stack([clean, F.hflip(clean)])
        return torch.cat([clean[None], both + 0.4 * torch.randn_like(both)])

    def _face_contrast(self, image) -> torch.Tensor:
        side = round(0.4 * image.width)
        views = []
        for below, right in random.sample(QUADRANTS, 2):
            centre = [random.uniform(0.7, 0.8) if far else random.uniform(0.2, 0.3) for far in (below, right)]
            top, left = (round(c * image.width - side / 2) for c in centre)
            views.append(PHOTOMETRIC(F.resized_crop(image, top, left, side, side, self.size)))
        return torch.stack(views)

    def _pose_contrast(self, image) -> torch.Tensor:
        resized = F.resize(image, self.size)
        mirror = F.hflip(resized)
        sources = 2 * [resized] + self.negatives * [mirror]
        return torch.stack([PHOTOMETRIC(source) for source in sources])


def batches(dataset: PerImageViews, batch_size: int, num_workers: int) -> Iterator[torch.Tensor]:
    """Yield batches of views, `(batch_size, views, 3, size, size)`, without end."""
    while True:
        yield from DataLoader(dataset, batch_size, shuffle=True, num_workers=num_workers, drop_last=True)
