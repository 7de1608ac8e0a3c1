"""Photo to `pixel_values`."""

from typing import Any

import numpy as np
import torch
from PIL import Image
from transformers.image_processing_backends import TorchvisionBackend
from transformers.image_utils import PILImageResampling

from .images_pcl import BrokenImageError, levels, open_image, to_rgb


class PCLImageProcessor(TorchvisionBackend):
    """Make `pixel_values` from images of faces.

    The crop: PCL is trained on square boxes around one face, from forehead to chin with a little around it, as a face
    detector gives them; crop to such a box first. What comes is resized so that its shorter side is
    `size["shortest_edge"]` px (bilinear, antialiased), and the square of `crop_size` in its centre is kept. Values are
    scaled from [0, 255] to [0, 1]; no mean or standard deviation is taken off.

    An image may be a path, a URL, the bytes of a file, a PIL image, or an array or tensor `(height, width)`,
    `(height, width, channels)` or `(channels, height, width)` with 1, 3 or 4 channels. Files and PIL images are turned
    upright by their EXIF orientation, 16 bits become 8, what is transparent becomes white, and what is grey gets three
    equal channels. Floating-point arrays of which no value is above 1 are in [0, 1] already.

    Raises:
        BrokenImageError: If an image cannot be read; it is a ValueError.

    Example:
        ```python
        >>> from PIL import Image
        >>> PCLImageProcessor()(Image.new("RGB", (89, 109)), return_tensors="pt")["pixel_values"].shape
        torch.Size([1, 3, 64, 64])
        ```
    """

    _auto_class = "AutoImageProcessor"

    resample = PILImageResampling.BILINEAR
    size = {"shortest_edge": 64}
    crop_size = {"height": 64, "width": 64}
    default_to_square = False
    do_resize = True
    do_center_crop = True
    do_rescale = True
    do_normalize = False
    do_convert_rgb = True

    @classmethod
    def for_image_size(cls, image_size_px: int) -> "PCLImageProcessor":
        """A processor whose output is `image_size_px` high and wide."""
        return cls(size={"shortest_edge": image_size_px}, crop_size={"height": image_size_px, "width": image_size_px})

    def fetch_images(self, images: Any):
        """Open what is not an array yet, and give a grey array its channel."""
        if isinstance(images, list | tuple):
            if not images:
                raise ValueError("No image was given: the list is empty.")
            return [self.fetch_images(image) for image in images]
        if isinstance(images, np.ndarray | torch.Tensor):
            if not 2 <= images.ndim <= 4:
                raise BrokenImageError(f"array of shape {tuple(images.shape)}", "an image has two or three axes")
            return images[None] if images.ndim == 2 else images
        return open_image(images)

    def process_image(self, image: Image.Image | np.ndarray | torch.Tensor, *args, do_rescale=None, **kwargs):
        """transformers' own, of an array's values as `levels` reads them."""
        if isinstance(image, Image.Image):
            return super().process_image(image, *args, **kwargs)
        try:
            # Without rescaling, floating-point values stay in the caller's range.
            pixels = levels(image, are_kept=not do_rescale)
            first, last = pixels.shape[0], pixels.shape[-1]
            has_alpha = first == 4 or (last == 4 and first not in (1, 3))  # Of two such axes the first is of channels.
            if has_alpha and pixels.dtype == torch.uint8:  # As of a file: torchvision rounds to another grey level.
                rows = pixels.permute(1, 2, 0) if first == 4 else pixels
                return super().process_image(to_rgb(Image.fromarray(rows.cpu().numpy())), *args, **kwargs)
            return super().process_image(pixels, *args, **kwargs)
        except (TypeError, ValueError) as error:
            raise BrokenImageError(f"array of shape {tuple(image.shape)}", str(error)) from error


__all__ = ["PCLImageProcessor"]
