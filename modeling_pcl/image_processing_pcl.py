"""Photo to `pixel_values`."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from transformers import BatchFeature
from transformers.image_processing_backends import TorchvisionBackend
from transformers.image_utils import PILImageResampling

from .crop_pcl import FaceCrop
from .faces_pcl import WAYS_OUT, CutFace, NoFaceError, cut_faces, shared_detector
from .images_pcl import BrokenImageError, levels, open_image, to_rgb


class PCLImageProcessor(TorchvisionBackend):
    """Make `pixel_values` from images of faces, or from photos whose faces it finds.

    An image is a face crop: a square around one face, from forehead to chin with a little around it. With
    `detect=True`, `boxes` or `points` it is a photo, and each of its faces is cut out first, as `face_crop` says
    (`FaceCrop`). What comes is resized so that its shorter side is
    `size["shortest_edge"]` px (bilinear, antialiased), and the square of `crop_size` in its centre is kept. Values are
    scaled from [0, 255] to [0, 1]; no mean or standard deviation is taken off.

    An image may be a path, a URL, the bytes of a file, a PIL image, or an array or tensor `(height, width)`,
    `(height, width, channels)` or `(channels, height, width)` with 1, 3 or 4 channels. Files and PIL images are turned
    upright by their EXIF orientation, 16 bits become 8, what is transparent becomes white, and what is grey gets three
    equal channels. Floating-point arrays of which no value is above 1 are in [0, 1] already.

    Raises:
        BrokenImageError: If an image cannot be read; it is a ValueError.

    Args:
        face_crop: `align`, `margin` and `padding` of `FaceCrop`, by which faces are cut out of photos.
        face_detector: Arguments of `FaceDetector` that are not its defaults, such as `weights` and `sha256`.

    Example:
        ```python
        >>> from PIL import Image
        >>> PCLImageProcessor()(Image.new("RGB", (89, 109)), return_tensors="pt")["pixel_values"].shape
        torch.Size([1, 3, 64, 64])
        >>> faces = PCLImageProcessor()("group.jpg", detect=True, return_tensors="pt")
        >>> faces["pixel_values"].shape, faces["boxes"].shape, faces["photos"]
        (torch.Size([3, 3, 64, 64]), torch.Size([3, 4]), tensor([0, 0, 0]))
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
    face_crop = FaceCrop().to_dict()
    face_detector = {}

    def __call__(
        self,
        images: Any,
        *args,
        detect: bool = False,
        boxes: Sequence | None = None,
        points: Sequence | None = None,
        on_no_face: str = "error",
        most_faces: int | None = None,
        **kwargs,
    ) -> BatchFeature:
        """Make `pixel_values`, `(images, 3, side, side)` float32 in [0, 1].

        Args:
            images: One image or a list of them.
            detect: Whether to find the faces of the images, which are photos then.
            boxes: Instead of that, for each photo left, top, right, bottom of its face in px, or a list of such.
            points: Likewise the five points `(5, 2)` of its face, or a list of such; alone or beside `boxes`.
            on_no_face: What becomes of a photo without a face: `"error"`, `"whole"` or `"skip"`, see `cut_faces`.
            most_faces: Of each photo at most so many of the largest faces.

        Returns:
            With faces of photos also, for each: `boxes`, `(faces, 4)`; `points`, `(faces, 5, 2)`, NaN where they are
            not known; `scores`, `(faces,)`; and `photos`, `(faces,)`, the number of its photo.

        Raises:
            NoFaceError: If no face is found in a photo and `on_no_face` is `"error"`, or in none of them.
            ImportError: If faces are to be found and what that needs is not installed.
        """
        if not (detect or boxes is not None or points is not None):
            return super().__call__(images, *args, **kwargs)
        faces = self.cut_faces(images, detect, boxes, points, on_no_face, most_faces)
        if not faces:
            raise NoFaceError(f"No face is found in any of the photos: {WAYS_OUT}.")
        features = super().__call__([face.image for face in faces], *args, **kwargs)
        columns = {
            "boxes": np.stack([face.box for face in faces]),
            "points": np.stack([face.points for face in faces]),
            "scores": np.array([face.score for face in faces], np.float32),
            "photos": np.array([face.photo for face in faces]),
        }
        return BatchFeature({**features, **columns}, tensor_type=kwargs.get("return_tensors"))

    def cut_faces(
        self,
        images: Any,
        detect: bool = True,
        boxes: Sequence | None = None,
        points: Sequence | None = None,
        on_no_face: str = "error",
        most_faces: int | None = None,
    ) -> list[CutFace]:
        """Cut the faces out of photos by this processor's `face_crop`; arguments and errors are those of a call."""
        if detect and (boxes is not None or points is not None):
            raise ValueError("Give `boxes` and `points`, or `detect=True` to find them, not both.")
        photos = images if isinstance(images, list | tuple) else [images]
        if not isinstance(images, list | tuple):
            boxes, points = (None if given is None else [given] for given in (boxes, points))
        opened = [self._as_photo(photo) for photo in self.fetch_images(photos)]
        detector = shared_detector(**self.face_detector) if detect else None
        return cut_faces(opened, FaceCrop(**self.face_crop), detector, boxes, points, on_no_face, most_faces)

    @staticmethod
    def _as_photo(image: Image.Image | np.ndarray | torch.Tensor) -> Image.Image:
        if isinstance(image, Image.Image):
            return image
        pixels = levels(image)
        if pixels.shape[0] in (1, 3, 4) and pixels.shape[-1] not in (1, 3, 4):
            pixels = pixels.permute(1, 2, 0)
        return to_rgb(Image.fromarray(pixels.squeeze(-1).cpu().numpy()))

    @classmethod
    def for_image_size(cls, image_size_px: int, like: str | Path = "", **options) -> "PCLImageProcessor":
        """A processor whose output is `image_size_px` high and wide.

        Args:
            image_size_px: Side.
            like: Folder or Hub id of a model whose `face_crop` and `face_detector` it takes, where that has any.
            **options: Attributes, before those of `like`.
        """
        if like:
            try:
                saved = cls.get_image_processor_dict(str(like))[0]
            except (OSError, ValueError):  # A model may have been saved without a processor.
                saved = {}
            options = {name: saved[name] for name in ("face_crop", "face_detector") if name in saved} | options
        options = {"face_crop": FaceCrop().to_dict()} | options  # Written down, though it is the default today.
        sides = {
            "size": {"shortest_edge": image_size_px},
            "crop_size": {"height": image_size_px, "width": image_size_px},
        }
        return cls(**sides, **options)

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
