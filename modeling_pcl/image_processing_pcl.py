"""Image processor class for PCL."""

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
from .images_pcl import BrokenImageError, open_image, to_grey_levels, to_rgb


class PCLImageProcessor(TorchvisionBackend):
    """Construct a PCL image processor, which makes `pixel_values` from face crops or from photos with faces.

    By default an image is a face crop: a square around one face, from forehead to chin with a small margin. With
    `detect=True`, `boxes` or `points` it is a photo, and each face is first cut out of it according to `face_crop`. The
    crop is then resized so that its shorter side is `size["shortest_edge"]` px (bilinear, with antialiasing), and its
    central square of `crop_size` is kept. Values are rescaled from [0, 255] to [0, 1], without mean and standard
    deviation normalisation.

    An image may be a path, a URL, the bytes of a file, a PIL image, or an array or tensor of shape `(height, width)`,
    `(height, width, channels)` or `(channels, height, width)` with 1, 3 or 4 channels. Files and PIL images are rotated
    according to their EXIF orientation, 16-bit images are converted to 8 bits, transparent pixels become white, and
    grey images get three equal channels. Floating-point arrays without a value above 1 are taken to be in [0, 1]
    already.

    Args:
        face_crop: `align`, `margin` and `padding` of the `FaceCrop` by which faces are cut out of photos.
        face_detector: Arguments of `FaceDetector` that differ from its defaults, such as `weights` and `sha256`.

    Raises:
        BrokenImageError: If an image cannot be read. It is a subclass of ValueError.

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
    do_normalize = False  # The authors' network reads values in [0, 1].
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
            images: An image or a list of images.
            detect: Whether the images are photos in which faces must be detected.
            boxes: Positions of the faces if they are already known: for each photo left, top, right, bottom of its face
                in px, or a list of these.
            points: For each photo the five points of its face, `(5, 2)`, or a list of these; alone or with `boxes`.
            on_no_face: What to do with a photo without a face: `"error"`, `"whole"` or `"skip"`, see `cut_faces`.
            most_faces: Largest number of faces per photo, of which the largest are kept; None keeps all.

        Returns:
            `pixel_values`, and for faces that were cut out of photos also `boxes`, `(faces, 4)`; `points`,
            `(faces, 5, 2)`, NaN if they are not known; `scores`, `(faces,)`; `photos`, `(faces,)`, the index of the
            photo.

        Raises:
            NoFaceError: If a photo has no face and `on_no_face` is `"error"`, or no photo has a face.
            ImportError: If `detect` is True and the packages for detection are not installed.
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
        """Cut the faces out of photos according to `face_crop`. Arguments and errors are those of `__call__`."""
        if detect and (boxes is not None or points is not None):
            raise ValueError("Give `boxes` and `points`, or `detect=True` to find them, not both.")
        photos = images if isinstance(images, list | tuple) else [images]
        if not isinstance(images, list | tuple):
            boxes, points = (None if entry is None else [entry] for entry in (boxes, points))
        photos = [self._to_photo(photo) for photo in self.fetch_images(photos)]
        detector = shared_detector(**self.face_detector) if detect else None
        return cut_faces(photos, FaceCrop(**self.face_crop), detector, boxes, points, on_no_face, most_faces)

    @staticmethod
    def _to_photo(image: Image.Image | np.ndarray | torch.Tensor) -> Image.Image:
        if isinstance(image, Image.Image):
            return image
        pixels = to_grey_levels(image)
        if pixels.shape[0] in (1, 3, 4) and pixels.shape[-1] not in (1, 3, 4):
            pixels = pixels.permute(1, 2, 0)
        return to_rgb(Image.fromarray(pixels.squeeze(-1).cpu().numpy()))

    @classmethod
    def for_image_size(cls, image_size_px: int, like: str | Path = "", **options) -> "PCLImageProcessor":
        """Build a processor whose output has the given side.

        Args:
            image_size_px: Height and width of `pixel_values`, in px.
            like: Folder or Hub id of a model from which to take `face_crop` and `face_detector`, if it has them.
            **options: Other attributes, which take precedence over those of `like`.
        """
        if like:
            try:
                saved_options = cls.get_image_processor_dict(str(like))[0]
            except (OSError, ValueError):  # The model may have been saved without a processor.
                saved_options = {}
            copied = {name: saved_options[name] for name in ("face_crop", "face_detector") if name in saved_options}
            options = copied | options
        # Saved even if it is the default, so that a saved processor does not change if the default does.
        options = {"face_crop": FaceCrop().to_dict()} | options
        sides = {
            "size": {"shortest_edge": image_size_px},
            "crop_size": {"height": image_size_px, "width": image_size_px},
        }
        return cls(**sides, **options)

    def fetch_images(self, images: Any):
        """Open all images that are not arrays or tensors, and add the channel axis to grey arrays."""
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
        """Process an image as transformers does, after `to_grey_levels` has read the values of an array."""
        if isinstance(image, Image.Image):
            return super().process_image(image, *args, **kwargs)
        try:
            # Without rescaling, floating-point values stay in the range that the caller chose.
            pixels = to_grey_levels(image, keep_floats=not do_rescale)
            first, last = pixels.shape[0], pixels.shape[-1]
            has_alpha = first == 4 or (last == 4 and first not in (1, 3))  # If both may be channels, the first is.
            # Converted by PIL as files are, because torchvision rounds to another grey level.
            if has_alpha and pixels.dtype == torch.uint8:
                rows = pixels.permute(1, 2, 0) if first == 4 else pixels
                return super().process_image(to_rgb(Image.fromarray(rows.cpu().numpy())), *args, **kwargs)
            return super().process_image(pixels, *args, **kwargs)
        except (TypeError, ValueError) as error:
            raise BrokenImageError(f"array of shape {tuple(image.shape)}", str(error)) from error


__all__ = ["PCLImageProcessor"]
