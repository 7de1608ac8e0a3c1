"""Photo to `pixel_values`."""

from transformers.image_processing_backends import TorchvisionBackend
from transformers.image_utils import PILImageResampling


class PCLImageProcessor(TorchvisionBackend):
    """Make `pixel_values` from images of faces.

    The crop: PCL is trained on square boxes around one face, from forehead to chin with a little around it, as a face
    detector gives them; crop to such a box first. What comes is resized so that its shorter side is
    `size["shortest_edge"]` px (bilinear, antialiased), and the square of `crop_size` in its centre is kept. Values are
    scaled from [0, 255] to [0, 1] (an array that is in [0, 1] already needs `do_rescale=False`); no mean or standard
    deviation is taken off. What is transparent becomes white, what is grey gets three equal channels.

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


__all__ = ["PCLImageProcessor"]
