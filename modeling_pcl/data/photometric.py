"""Photometric operations and crops of batches of images, with parameters for every sample.

Images are `(batch, 3, height, width)` float32 in [0, 1], and parameters are `(batch,)`. The four colour adjustments are
those of torchvision's `ColorJitter`, which has one factor for the whole batch.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch.nn import functional as F

from .view_settings import BLUR_SIGMA_MIN_PX, PhotometricSettings

# kornia 0.9 is not used: its augmentations draw only from the global generator, and its crops are not antialiased. On a
# CPU its hue takes six times as long, and its other functions as long or longer. Its Sobel is another operation.

BLUR_TAPS = 7

LUMA = (0.2989, 0.587, 0.114)  # Weights of torchvision's `rgb_to_grayscale`.
GRADIENT_LUMA = (65.738 / 256, 129.057 / 256, 25.064 / 256)


@dataclass(frozen=True)
class PhotometricParameters:
    """Operations for a group of samples, which share the operations but not their strengths.

    Args:
        adjustments: Strengths `(batch,)` by name of the colour adjustment, in the order in which they are applied.
            Brightness, contrast and saturation are factors of at least 0; hue is in turns of the colour wheel, in
            [-1/3, 1/3]. Empty if colours are not changed.
        grey: Whether the samples become grey.
        blur_sigma_px: Standard deviation of the blur, `(batch,)`, positive; None if the samples are not blurred.
        gradient: Whether the samples are replaced by their gradient magnitude.
    """

    adjustments: dict[str, torch.Tensor]
    grey: bool = False
    blur_sigma_px: torch.Tensor | None = None
    gradient: bool = False


def draw_photometric(
    settings: PhotometricSettings,
    count: int,
    chunk: int,
    generator: torch.Generator,
    host_generator: np.random.Generator,
) -> Iterator[tuple[torch.Tensor, PhotometricParameters]]:
    """Draw the operations and strengths for `count` samples, and group samples with the same operations.

    The operations are drawn on the host: this way no operation is computed for samples that do not need it, and the
    host does not wait for the device.

    Args:
        settings: Probabilities and strengths.
        count: Number of samples.
        chunk: Maximum number of samples in a group, at least 1.
        generator: Source of randomness for the strengths, on the device of the images.
        host_generator: Source of randomness for everything else.

    Yields:
        Row numbers of a group, on the device, and its parameters.
    """
    strengths = torch.rand(5, count, generator=generator, device=generator.device)
    factors, turns, sigma_shares = (
        1 + settings.jitter_strength * (2 * strengths[:3] - 1),
        2 * strengths[3] - 1,
        strengths[4],
    )
    drawn = dict(zip(("brightness", "contrast", "saturation"), factors)) if settings.jitter_strength else {}
    drawn |= {"hue": settings.hue_strength * turns} if settings.hue_strength else {}
    sigma_px = BLUR_SIGMA_MIN_PX + (settings.blur_sigma_max_px - BLUR_SIGMA_MIN_PX) * sigma_shares
    for rows, (jittered, grey, blurred, gradient) in _group_samples(settings, count, chunk, host_generator):
        # Differs from the paper: the order of the colour adjustments is drawn once per group, not once per sample.
        names = host_generator.permutation(list(drawn)).tolist() if jittered else ()
        rows = torch.from_numpy(rows).to(generator.device, non_blocking=True)
        adjustments = {name: drawn[name][rows] for name in names}
        yield rows, PhotometricParameters(adjustments, grey, sigma_px[rows] if blurred else None, gradient)


def _group_samples(
    settings: PhotometricSettings, count: int, chunk: int, generator: np.random.Generator
) -> Iterator[tuple[np.ndarray, list[bool]]]:
    """Yield the samples of each group, and whether they get jitter, grey, blur and gradient magnitude."""
    probabilities = [
        settings.jitter_probability,
        settings.grey_probability,
        settings.blur_probability,
        settings.gradient_probability,
    ]
    kinds, kind_of_sample = np.unique(generator.random((count, 4)) < probabilities, axis=0, return_inverse=True)
    for number, kind in enumerate(kinds.tolist()):
        samples = np.flatnonzero(kind_of_sample.reshape(-1) == number)
        for start in range(0, len(samples), chunk):
            yield samples[start : start + chunk], kind


def apply_photometric(images: torch.Tensor, parameters: PhotometricParameters) -> torch.Tensor:
    """Apply colour jitter, grey, Gaussian blur and gradient magnitude, in this order.

    Args:
        images: `(batch, 3, height, width)`, float32 in [0, 1], sides of at least 4 px (the blur reflects 3).
        parameters: Operations and strengths.

    Returns:
        Images in the shape of `images`, in [0, 1]. The channels of grey images may share memory.

    Source:
        Liu et al. 2023; strengths and probabilities of their released configuration.
    """
    for name, strengths in parameters.adjustments.items():
        images = ADJUSTMENTS[name](images, strengths)
    shape = images.shape
    if parameters.grey:
        images = _sum_channels(images, LUMA)
    if parameters.gradient:  # Blur and weighted sum commute, so that only one channel is blurred instead of three.
        images = _sum_channels(images, GRADIENT_LUMA)
    if parameters.blur_sigma_px is not None:
        images = gaussian_blur(images, parameters.blur_sigma_px)
    if parameters.gradient:
        images = _compute_gradient_magnitude(images)
    return images.expand(shape).clamp(0, 1)


def adjust_brightness(images: torch.Tensor, factor: torch.Tensor) -> torch.Tensor:
    """Multiply by `factor`, `(batch,)`, at least 0, and clamp to [0, 1]."""
    return (images * _expand_per_sample(factor)).clamp_(max=1)


def adjust_contrast(images: torch.Tensor, factor: torch.Tensor) -> torch.Tensor:
    """Scale the difference from the mean grey of a sample by `factor`, `(batch,)`, at least 0; clamp to [0, 1]."""
    mean = _sum_channels(images.mean(dim=(2, 3), keepdim=True), LUMA)
    factor = _expand_per_sample(factor)
    return (images * factor).add_(mean * (1 - factor)).clamp_(0, 1)  # This takes half the time of `torch.lerp`.


def adjust_saturation(images: torch.Tensor, factor: torch.Tensor) -> torch.Tensor:
    """Scale the difference from the grey of a pixel by `factor`, `(batch,)`, at least 0; clamp to [0, 1]."""
    return torch.lerp(_sum_channels(images, LUMA), images, _expand_per_sample(factor)).clamp_(0, 1)


def adjust_hue(images: torch.Tensor, shift: torch.Tensor) -> torch.Tensor:
    """Shift the hue in HSV space.

    A channel of an HSV colour is `min + chroma * clamp(||hue - peak| - 3| - 1, 0, 1)`, with hue and the peak of the
    channel (red 0, green 2, blue -2) in sixths of a turn. This formula needs no case distinction and no modulo.

    Args:
        images: `(batch, 3, height, width)`, in [0, 1].
        shift: `(batch,)`, in turns of the colour wheel, in [-1/3, 1/3]. Outside of this range the formula is wrong.

    Returns:
        Images in the shape of `images`.
    """
    red, green, blue = images.split(1, dim=1)
    highest, lowest = images.amax(dim=1, keepdim=True), images.amin(dim=1, keepdim=True)
    chroma = highest - lowest
    from_green = (blue - red).add_(chroma, alpha=2)
    from_blue = (red - green).sub_(chroma, alpha=2)
    hue = torch.where(highest == red, green - blue, torch.where(highest == green, from_green, from_blue))
    hue = hue.div_(chroma.clamp_min(1e-12)).add_(6 * _expand_per_sample(shift))  # Grey has hue 0.
    peaks = torch.cat([hue, hue - 2, hue + 2], dim=1)
    weights = peaks.abs_().sub_(3).abs_().sub_(1).clamp_(0, 1)
    return weights.mul_(chroma).add_(lowest)


ADJUSTMENTS = {
    "brightness": adjust_brightness,
    "contrast": adjust_contrast,
    "saturation": adjust_saturation,
    "hue": adjust_hue,
}


def gaussian_blur(images: torch.Tensor, sigma_px: torch.Tensor) -> torch.Tensor:
    """Blur with a Gaussian kernel of 7 taps and reflected borders.

    Args:
        images: `(batch, channels, height, width)`, sides of at least 4 px.
        sigma_px: Standard deviation, `(batch,)`, positive.

    Returns:
        Images in the shape of `images`.
    """
    height, width = images.shape[2:]
    rows = _make_blur_matrix(sigma_px, height)
    return _apply_along_sides(images, rows, rows if width == height else _make_blur_matrix(sigma_px, width))


def _make_blur_matrix(sigma_px: torch.Tensor, size_px: int) -> torch.Tensor:
    """Build the matrix of the blur along one side for each sample, `(batch, size, size)`."""
    offsets = torch.arange(BLUR_TAPS, device=sigma_px.device) - BLUR_TAPS // 2
    weights = (-0.5 * (offsets / sigma_px[:, None]).square()).softmax(dim=1)  # (batch, taps)
    pixels = torch.arange(size_px, device=sigma_px.device)
    sources = (pixels + offsets[:, None]).abs()
    sources = (size_px - 1) - ((size_px - 1) - sources).abs()  # reflected: (taps, size)
    taps = (sources[:, :, None] == pixels).float()  # (taps, size, size)
    return (weights @ taps.flatten(1)).unflatten(1, (size_px, size_px))


def _compute_gradient_magnitude(grey: torch.Tensor) -> torch.Tensor:
    """Compute the gradient magnitude of grey images, `(batch, 1, height, width)`.

    The gradient along an axis is the difference of the two neighbours, with zeros outside of the image. The magnitude
    is `sqrt(gx^2 + gy^2 + 1e-6)`, clamped to [0, 1].

    Source:
        The authors' released code, which calls this operation Sobel.
    """
    grey = F.pad(grey, (1, 1, 1, 1))
    across = grey[..., 1:-1, 2:] - grey[..., 1:-1, :-2]
    down = grey[..., 2:, 1:-1] - grey[..., :-2, 1:-1]
    return across.square_().addcmul_(down, down).add_(1e-6).sqrt_().clamp_(0, 1)


def crop_and_resize(images: torch.Tensor, boxes_px: torch.Tensor, size_px: int, mirrored: torch.Tensor) -> torch.Tensor:
    """Crop a box from each image, resize it with antialiasing, and flip it along the width if requested.

    For boxes of whole pixels this equals torchvision's `resized_crop`, a triangle filter over the pixels of the box. A
    pixel that is partly in the box is weighted by the part that is inside.

    Args:
        images: `(batch, 3, height, width)` uint8.
        boxes_px: Top, left, height and width of each box, `(batch, 4)`, inside the image.
        size_px: Side of the output.
        mirrored: Which crops to flip, `(batch,)` booleans.

    Returns:
        `(batch, 3, size, size)` float32 in [0, 1].
    """
    top, left, height, width = boxes_px.unbind(dim=1)
    rows = _make_resize_matrix(top, height, images.shape[2], size_px) / 255
    columns = _make_resize_matrix(left, width, images.shape[3], size_px, mirrored)
    return _apply_along_sides(images, rows, columns).clamp_(0, 1)


def _make_resize_matrix(
    start: torch.Tensor, length: torch.Tensor, input_px: int, output_px: int, mirrored: torch.Tensor | None = None
) -> torch.Tensor:
    """Build the matrix that resizes a part of one side, antialiased, for each sample, `(batch, output, input)`."""
    start, length = start[:, None], length[:, None]
    pixels = torch.arange(input_px, device=start.device) + 0.5 - start  # Centres, relative to the box: (batch, input)
    inside = (torch.minimum(pixels + 0.5, length) - (pixels - 0.5).clamp_(min=0)).clamp_(min=0)  # share inside the box
    scale = length / output_px
    centres = scale * (torch.arange(output_px, device=start.device) + 0.5)  # (batch, output)
    if mirrored is not None:
        centres = torch.where(mirrored[:, None], length - centres, centres)
    reach = scale.clamp(min=1)
    distances = (centres / reach)[:, :, None] - (pixels / reach)[:, None]  # (batch, output, input)
    weights = distances.abs_().neg_().add_(1).clamp_(min=0).mul_(inside[:, None])
    return weights.div_(weights.sum(dim=2, keepdim=True))


def _apply_along_sides(images: torch.Tensor, rows: torch.Tensor, columns: torch.Tensor) -> torch.Tensor:
    """Apply a linear map along each side: `rows @ image @ columns^T` for every sample and channel.

    Args:
        images: `(batch, channels, height, width)`, float or uint8.
        rows: `(batch, new_height, height)`.
        columns: `(batch, new_width, width)`.

    Returns:
        `(batch, channels, new_height, new_width)`. Its memory layout is (batch, height, channels, width), in which each
        map is one matrix product per sample. Inputs with this layout are not copied.
    """
    channels, width = images.shape[1], images.shape[3]
    mapped = rows @ images.transpose(1, 2).flatten(2).to(rows.dtype)  # (batch, new_height, channels * width)
    mapped = mapped.unflatten(2, (channels, width)).flatten(1, 2) @ columns.mT  # (batch, new_height * channels, ...)
    return mapped.unflatten(1, (-1, channels)).transpose(1, 2)


def _expand_per_sample(values: torch.Tensor) -> torch.Tensor:
    return values[:, None, None, None]  # (batch,) -> (batch, 1, 1, 1)


def _sum_channels(images: torch.Tensor, weights: Sequence[float]) -> torch.Tensor:
    """Compute the weighted sum of the channels, `(batch, 1, height, width)`. A single channel stands for all three."""
    if images.shape[1] == 1:
        return images * sum(weights)
    red, green, blue = images.split(1, dim=1)
    return (red * weights[0]).add_(green, alpha=weights[1]).add_(blue, alpha=weights[2])
