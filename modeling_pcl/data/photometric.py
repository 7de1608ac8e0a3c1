"""Operations on batches of images, every sample with its own parameters: the photometric list, and cropping.

Images are `(batch, 3, height, width)` float32 in [0, 1]; a parameter is `(batch,)`. The four adjustments are those of
torchvision's `ColorJitter`, which takes one factor for all samples.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch.nn import functional as F

from .view_settings import BLUR_SIGMA_MIN_PX, PhotometricSettings

# Not kornia 0.9: its augmentations draw from the global generator only and its crops are not antialiased; used function
# by function, its hue takes six times as long on a CPU, the rest as long or longer, and its Sobel is another operation.

BLUR_TAPS = 7

LUMA = (0.2989, 0.587, 0.114)  # torchvision's grey
GRADIENT_LUMA = (65.738 / 256, 129.057 / 256, 25.064 / 256)


@dataclass(frozen=True)
class PhotometricParameters:
    """What is done to samples that are treated alike, each with its own strengths.

    Args:
        adjustments: Name to strengths, `(batch,)`, in the order of their application; empty where colours stay.
            Brightness, contrast and saturation are factors of at least 0, hue turns of the colour wheel in [-1/3, 1/3].
        grey: Whether the samples lose their colour.
        blur_sigma_px: Standard deviation of the blur, `(batch,)`, positive; None blurs nothing.
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
    """Draw what is done to `count` samples, and group those that are treated alike, at most `chunk` together.

    Which operations a sample passes through is drawn on the host, so that those it does not are not computed and no
    device is waited for.

    Args:
        settings: Probabilities and strengths.
        count: Number of samples.
        chunk: Most samples of a group, at least 1.
        generator: Of the strengths, on the device that is to hold them.
        host_generator: Of all else.

    Returns:
        Row numbers of each group, on the device, and its parameters.
    """
    strengths = torch.rand(5, count, generator=generator, device=generator.device)
    factors, turns, shares = 1 + settings.jitter_strength * (2 * strengths[:3] - 1), 2 * strengths[3] - 1, strengths[4]
    drawn = dict(zip(("brightness", "contrast", "saturation"), factors)) if settings.jitter_strength else {}
    drawn |= {"hue": settings.hue_strength * turns} if settings.hue_strength else {}
    sigma_px = BLUR_SIGMA_MIN_PX + (settings.blur_sigma_max_px - BLUR_SIGMA_MIN_PX) * shares
    for rows, (jittered, grey, blurred, gradient) in _groups_alike(settings, count, chunk, host_generator):
        # Differs from the paper: the order of the colour adjustments is drawn for a group, not for each sample.
        names = host_generator.permutation(list(drawn)).tolist() if jittered else ()
        rows = torch.from_numpy(rows).to(generator.device, non_blocking=True)
        adjustments = {name: drawn[name][rows] for name in names}
        yield rows, PhotometricParameters(adjustments, grey, sigma_px[rows] if blurred else None, gradient)


def _groups_alike(
    settings: PhotometricSettings, count: int, chunk: int, generator: np.random.Generator
) -> Iterator[tuple[np.ndarray, list[bool]]]:
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


def photometric(images: torch.Tensor, parameters: PhotometricParameters) -> torch.Tensor:
    """Colour jitter, grey, Gaussian blur and gradient magnitude, in this order.

    Args:
        images: `(batch, 3, height, width)`, float32 in [0, 1], sides of at least 4 px (the blur reflects 3).
        parameters: What to do to them.

    Returns:
        As `images`, in [0, 1]; grey samples' channels may share memory.

    Source:
        Liu et al. 2023; strengths and probabilities of their released configuration.
    """
    for name, strengths in parameters.adjustments.items():
        images = ADJUSTMENTS[name](images, strengths)
    shape = images.shape
    if parameters.grey:
        images = _weighted(images, LUMA)
    if parameters.gradient:  # The blur treats channels alike, so one channel is blurred instead of three.
        images = _weighted(images, GRADIENT_LUMA)
    if parameters.blur_sigma_px is not None:
        images = gaussian_blur(images, parameters.blur_sigma_px)
    if parameters.gradient:
        images = _gradient_magnitude(images)
    return images.expand(shape).clamp(0, 1)


def adjust_brightness(images: torch.Tensor, factor: torch.Tensor) -> torch.Tensor:
    """Multiply by `factor`, `(batch,)`, at least 0, and clamp to [0, 1]."""
    return (images * _per_sample(factor)).clamp_(max=1)


def adjust_contrast(images: torch.Tensor, factor: torch.Tensor) -> torch.Tensor:
    """Move away from the sample's mean grey by `factor`, `(batch,)`, at least 0, and clamp to [0, 1]."""
    mean = _weighted(images.mean(dim=(2, 3), keepdim=True), LUMA)
    factor = _per_sample(factor)
    return (images * factor).add_(mean * (1 - factor)).clamp_(0, 1)  # half the time of lerp


def adjust_saturation(images: torch.Tensor, factor: torch.Tensor) -> torch.Tensor:
    """Move away from the pixel's grey by `factor`, `(batch,)`, at least 0, and clamp to [0, 1]; 0 leaves grey."""
    return torch.lerp(_weighted(images, LUMA), images, _per_sample(factor)).clamp_(0, 1)


def adjust_hue(images: torch.Tensor, shift: torch.Tensor) -> torch.Tensor:
    """Turn the hue in HSV space.

    A channel of an HSV colour is `least + chroma * clamp(||hue - peak| - 3| - 1, 0, 1)`, with hue and the channel's
    peak (red 0, green 2, blue -2) in sixths of a turn, which needs no table of six cases and no modulo.

    Args:
        images: `(batch, 3, height, width)`, in [0, 1].
        shift: `(batch,)` turns of the colour wheel, in [-1/3, 1/3], beyond which the formula ends.

    Returns:
        As `images`.
    """
    red, green, blue = images.split(1, dim=1)
    most, least = images.amax(dim=1, keepdim=True), images.amin(dim=1, keepdim=True)
    chroma = most - least
    from_green = (blue - red).add_(chroma, alpha=2)
    from_blue = (red - green).sub_(chroma, alpha=2)
    hue = torch.where(most == red, green - blue, torch.where(most == green, from_green, from_blue))
    hue = hue.div_(chroma.clamp_min(1e-12)).add_(6 * _per_sample(shift))  # grey has hue 0
    peaks = torch.cat([hue, hue - 2, hue + 2], dim=1)
    weights = peaks.abs_().sub_(3).abs_().sub_(1).clamp_(0, 1)
    return weights.mul_(chroma).add_(least)


ADJUSTMENTS = {
    "brightness": adjust_brightness,
    "contrast": adjust_contrast,
    "saturation": adjust_saturation,
    "hue": adjust_hue,
}


def gaussian_blur(images: torch.Tensor, sigma_px: torch.Tensor) -> torch.Tensor:
    """Gaussian blur of 7 taps with reflected borders.

    Args:
        images: `(batch, channels, height, width)`, sides of at least 4 px.
        sigma_px: Standard deviation, `(batch,)`, positive.

    Returns:
        As `images`.
    """
    height, width = images.shape[2:]
    rows = _blur_matrix(sigma_px, height)
    return _map_sides(images, rows, rows if width == height else _blur_matrix(sigma_px, width))


def _blur_matrix(sigma_px: torch.Tensor, size_px: int) -> torch.Tensor:
    """The blur along one side as a matrix for each sample, `(batch, size, size)`."""
    offsets = torch.arange(BLUR_TAPS, device=sigma_px.device) - BLUR_TAPS // 2
    weights = (-0.5 * (offsets / sigma_px[:, None]).square()).softmax(dim=1)  # (batch, taps)
    pixels = torch.arange(size_px, device=sigma_px.device)
    sources = (pixels + offsets[:, None]).abs()
    sources = (size_px - 1) - ((size_px - 1) - sources).abs()  # reflected: (taps, size)
    taps = (sources[:, :, None] == pixels).float()  # (taps, size, size)
    return (weights @ taps.flatten(1)).unflatten(1, (size_px, size_px))


def _gradient_magnitude(grey: torch.Tensor) -> torch.Tensor:
    """Length of a grey image's gradient, `(batch, 1, height, width)`.

    Differences of the two neighbours along each axis, with zeros outside of the image; length
    `sqrt(gx^2 + gy^2 + 1e-6)`, clamped to [0, 1].

    Source:
        The authors' released code, where it is called Sobel.
    """
    grey = F.pad(grey, (1, 1, 1, 1))
    across = grey[..., 1:-1, 2:] - grey[..., 1:-1, :-2]
    down = grey[..., 2:, 1:-1] - grey[..., :-2, 1:-1]
    return across.square_().addcmul_(down, down).add_(1e-6).sqrt_().clamp_(0, 1)


def resized_crop(images: torch.Tensor, boxes_px: torch.Tensor, size_px: int, mirrored: torch.Tensor) -> torch.Tensor:
    """Cut one box from each image, resize it with antialiasing, and flip it along the width where asked to.

    On boxes of whole pixels this is torchvision's `resized_crop`: a triangle filter over the box's pixels. A pixel that
    is only partly in a box counts by the part that is.

    Args:
        images: `(batch, 3, height, width)` uint8.
        boxes_px: Top, left, height and width, `(batch, 4)`, within the image.
        size_px: Side of the result.
        mirrored: `(batch,)` booleans.

    Returns:
        `(batch, 3, size, size)` float32 in [0, 1].
    """
    top, left, height, width = boxes_px.unbind(dim=1)
    rows = _resize_matrix(top, height, images.shape[2], size_px) / 255
    columns = _resize_matrix(left, width, images.shape[3], size_px, mirrored)
    return _map_sides(images, rows, columns).clamp_(0, 1)


def _resize_matrix(
    start: torch.Tensor, length: torch.Tensor, input_px: int, output_px: int, mirrored: torch.Tensor | None = None
) -> torch.Tensor:
    """Antialiased resizing of a stretch of one side as a matrix for each sample, `(batch, output, input)`."""
    start, length = start[:, None], length[:, None]
    pixels = torch.arange(input_px, device=start.device) + 0.5 - start  # centres, from the box's start: (batch, input)
    inside = (torch.minimum(pixels + 0.5, length) - (pixels - 0.5).clamp_(min=0)).clamp_(min=0)  # share of each pixel
    scale = length / output_px
    centres = scale * (torch.arange(output_px, device=start.device) + 0.5)  # (batch, output)
    if mirrored is not None:
        centres = torch.where(mirrored[:, None], length - centres, centres)
    reach = scale.clamp(min=1)
    distances = (centres / reach)[:, :, None] - (pixels / reach)[:, None]  # (batch, output, input)
    weights = distances.abs_().neg_().add_(1).clamp_(min=0).mul_(inside[:, None])
    return weights.div_(weights.sum(dim=2, keepdim=True))


def _map_sides(images: torch.Tensor, rows: torch.Tensor, columns: torch.Tensor) -> torch.Tensor:
    """Apply a linear map along each side: `rows @ image @ columns^T` for every sample and channel.

    Args:
        images: `(batch, channels, height, width)`, float or uint8.
        rows: `(batch, new_height, height)`.
        columns: `(batch, new_width, width)`.

    Returns:
        `(batch, channels, new_height, new_width)`, laid out in memory as (batch, height, channels, width), the layout
        in which both maps are one matrix product for each sample. What comes laid out so is not copied.
    """
    channels, width = images.shape[1], images.shape[3]
    mapped = rows @ images.transpose(1, 2).flatten(2).to(rows.dtype)  # (batch, new_height, channels * width)
    mapped = mapped.unflatten(2, (channels, width)).flatten(1, 2) @ columns.mT  # (batch, new_height * channels, ...)
    return mapped.unflatten(1, (-1, channels)).transpose(1, 2)


def _per_sample(values: torch.Tensor) -> torch.Tensor:
    return values[:, None, None, None]  # (batch,) -> (batch, 1, 1, 1)


def _weighted(images: torch.Tensor, weights: Sequence[float]) -> torch.Tensor:
    """Weighted sum of the three channels, `(batch, 1, height, width)`; an only channel counts as all three."""
    if images.shape[1] == 1:
        return images * sum(weights)
    red, green, blue = images.split(1, dim=1)
    return (red * weights[0]).add_(green, alpha=weights[1]).add_(blue, alpha=weights[2])
