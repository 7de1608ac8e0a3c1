"""Tests with all kinds of images that downloads contain."""

import io
import os

import numpy as np
import pytest
from PIL import Image

from modeling_pcl.data import confinement
from modeling_pcl.data.collections.layouts.base import Photo
from modeling_pcl.data.collections.raw_images import Treatment, prepare_image
from modeling_pcl.data.images import decode_image
from modeling_pcl.images_pcl import BrokenImageError

KEEP = Treatment()


def draw_gradient(width: int, height: int) -> Image.Image:
    """Draw an image with a different colour at every pixel: red grows to the right, green downwards."""
    columns, rows = np.meshgrid(np.linspace(0, 255, width), np.linspace(0, 255, height))
    return Image.fromarray(np.stack([columns, rows, 0 * rows], axis=2).astype(np.uint8))


def encode_image(image: Image.Image, format: str = "PNG", **options) -> bytes:
    file = io.BytesIO()
    image.save(file, format, **options)
    return file.getvalue()


@pytest.fixture
def prepare(tmp_path):
    def prepare(content: bytes, treatment: Treatment = KEEP, name: str = "face.png", box=None):
        (tmp_path / name).write_bytes(content)
        return prepare_image(tmp_path, Photo(tmp_path / name, name, box), treatment)

    return prepare


def open_prepared(prepared) -> Image.Image:
    return Image.open(io.BytesIO(prepared.content))


def test_an_image_keeps_its_own_bytes(prepare):
    content = encode_image(draw_gradient(20, 30), "JPEG")
    prepared = prepare(content, name="face.jpg")
    assert prepared.content == content
    assert prepared.notes == []


class TestWhatCannotBeUsedIsRefusedWithAReason:
    def test_an_empty_file(self, prepare):
        with pytest.raises(BrokenImageError, match=r"face.png: the file is empty"):
            prepare(b"")

    def test_text(self, prepare):
        with pytest.raises(BrokenImageError, match="no image format that PIL knows"):
            prepare(b"<html>404</html>")

    @pytest.mark.parametrize("format", ["JPEG", "PNG", "BMP"])
    def test_a_file_that_was_cut_short(self, prepare, format):
        content = encode_image(draw_gradient(100, 100), format)
        with pytest.raises(BrokenImageError, match=r"truncated|broken|not enough|incomplete"):
            prepare(content[: len(content) // 2])

    def test_more_pixels_than_the_limit_are_not_even_decoded(self, prepare, monkeypatch):
        content = encode_image(draw_gradient(100, 50))
        monkeypatch.setattr(Image.Image, "load", lambda *_: pytest.fail("decoded"))
        with pytest.raises(BrokenImageError, match=r"100 x 50 px are more than `max_pixels` = 4999"):
            prepare(content, Treatment(max_pixels=4999))

    def test_pixels_of_a_table_have_the_limit_of_files(self, tmp_path):
        image = Photo(np.zeros((64, 64, 3), np.uint8), "AFW.npz:0")
        with pytest.raises(BrokenImageError, match=r"AFW.npz:0: 64 x 64 px are more than `max_pixels` = 4095"):
            prepare_image(tmp_path, image, Treatment(max_pixels=4095))

    def test_a_file_of_more_bytes_than_the_limit_is_not_read(self, prepare, monkeypatch):
        monkeypatch.setattr(confinement, "MAX_FILE_BYTES", 100)
        with pytest.raises(BrokenImageError, match=r"bytes, more than 100"):
            prepare(encode_image(draw_gradient(100, 100)))

    def test_floating_point_pixels(self, prepare):
        with pytest.raises(BrokenImageError, match="floating-point"):
            prepare(encode_image(Image.fromarray(np.ones((8, 8), np.float32)), "TIFF"), name="face.tif")

    def test_a_missing_file(self, tmp_path):
        with pytest.raises(BrokenImageError, match=r"a/b.jpg: cannot be opened: No such file"):
            prepare_image(tmp_path, Photo(tmp_path / "a" / "b.jpg", "a/b.jpg"), KEEP)

    @pytest.mark.parametrize("link_folder", [False, True])
    def test_a_symbolic_link_that_leads_out_of_the_folder(self, tmp_path, link_folder):
        root, outside = tmp_path / "faces", tmp_path / "secret"
        root.mkdir()
        outside.mkdir()
        (outside / "face.png").write_bytes(encode_image(draw_gradient(8, 8)))
        target, link = (outside, root / "a") if link_folder else (outside / "face.png", root / "face.png")
        os.symlink(target, link)
        path = link / "face.png" if link_folder else link
        with pytest.raises(BrokenImageError, match="leads out of the collection's folder"):
            prepare_image(root, Photo(path, "face.png"), KEEP)

    def test_a_symbolic_link_within_the_folder_is_followed(self, tmp_path):
        (tmp_path / "face.png").write_bytes(encode_image(draw_gradient(8, 8)))
        os.symlink(tmp_path / "face.png", tmp_path / "link.png")
        assert prepare_image(tmp_path, Photo(tmp_path / "link.png", "link.png"), KEEP).content


class TestOddImagesAreUsedAndNoted:
    def note(self, prepared) -> str:
        (note,) = prepared.notes
        return note

    def test_png_under_the_name_of_a_jpeg(self, prepare):
        prepared = prepare(encode_image(draw_gradient(8, 8)), name="face.jpg")
        assert self.note(prepared) == "PNG under the name of a JPEG"
        small = prepare(encode_image(draw_gradient(80, 80)), Treatment(size_px=8), name="face.jpg")
        assert open_prepared(small).format == "PNG"

    @pytest.mark.parametrize("mode", ["RGBA", "LA", "P", "1", "I;16", "CMYK"])
    def test_other_modes(self, prepare, mode):
        image = Image.new(mode, (40, 40)) if mode == "I;16" else draw_gradient(40, 40).convert(mode)
        content = encode_image(image, "JPEG" if mode == "CMYK" else "PNG")
        kept, small = prepare(content), prepare(content, Treatment(size_px=20))
        assert any("converted when it is decoded" in note for note in kept.notes)
        assert kept.content == content
        assert open_prepared(small).size == (20, 20)
        assert open_prepared(small).mode in ("L", "RGB")

    def test_cmyk_keeps_its_colours(self, prepare):
        content = encode_image(Image.new("RGB", (40, 40), (200, 40, 90)).convert("CMYK"), "JPEG", quality=95)
        small = open_prepared(prepare(content, Treatment(size_px=10), name="face.jpg"))
        assert np.abs(np.asarray(small).astype(int) - [200, 40, 90]).max() < 12  # JPEG, twice

    def test_16_bits_are_scaled_not_clipped(self, prepare):
        content = encode_image(Image.fromarray(np.full((40, 40), 32768, np.uint16)))
        small = prepare(content, Treatment(size_px=10))
        assert np.unique(np.asarray(open_prepared(small))).tolist() == [128]

    def test_an_animation_counts_as_its_first_frame(self, prepare):
        frames = [Image.new("L", (40, 40), level) for level in (10, 250)]
        content = encode_image(frames[0], "GIF", save_all=True, append_images=frames[1:])
        prepared = prepare(content, Treatment(size_px=10), name="face.gif")
        assert "animated: the first frame counts" in prepared.notes
        assert np.asarray(open_prepared(prepared)).max() <= 12

    @pytest.mark.parametrize("treatment", [KEEP, Treatment(size_px=20), Treatment(crop="centre")])
    def test_exif_rotation_is_kept_with_the_bytes_or_applied(self, prepare, treatment):
        exif = Image.Exif()
        exif[0x0112] = 6  # Stored sideways, to be rotated clockwise.
        upright = draw_gradient(40, 60)
        content = encode_image(upright.rotate(90, expand=True), "JPEG", exif=exif, quality=95)
        prepared = prepare(content, treatment, name="face.jpg")
        assert self.note(prepared) == "turned by its EXIF orientation"
        shown = decode_image({"bytes": prepared.content, "path": None}, 20)
        expected = decode_image({"bytes": encode_image(upright), "path": None}, 20)
        assert (shown.int() - expected.int()).abs().max() < 12  # JPEG, twice
        if treatment != KEEP:
            assert open_prepared(prepared).getexif().get(0x0112) is None


class TestCropAndSize:
    def test_the_shorter_side_becomes_the_size_and_small_images_stay(self, prepare):
        large, small = encode_image(draw_gradient(60, 90)), encode_image(draw_gradient(15, 40))
        assert open_prepared(prepare(large, Treatment(size_px=20))).size == (20, 30)
        assert prepare(small, Treatment(size_px=20)).content == small

    def test_jpeg_stays_jpeg_and_large_ones_are_decoded_small(self, prepare):
        prepared = prepare(encode_image(draw_gradient(1600, 1200), "JPEG"), Treatment(size_px=40), name="face.jpg")
        assert open_prepared(prepared).format == "JPEG"
        assert open_prepared(prepared).size == (53, 40)
        expected = draw_gradient(53, 40)
        assert np.abs(np.asarray(open_prepared(prepared)).astype(int) - np.asarray(expected)).max() < 14

    def test_the_box_becomes_the_square_around_it(self, prepare):
        prepared = prepare(encode_image(draw_gradient(256, 256)), Treatment(crop="box"), box=(100, 50, 140, 70))
        pixels = np.asarray(open_prepared(prepared))
        assert pixels.shape == (40, 40, 3)
        assert (pixels[0, 0], pixels[-1, -1]) == (pytest.approx([100, 40, 0]), pytest.approx([139, 79, 0]))

    def test_a_box_over_the_border_is_black_there(self, prepare):
        prepared = prepare(
            encode_image(draw_gradient(256, 256)), Treatment(crop="box", size_px=20), box=(-20, 100, 20, 140)
        )
        pixels = np.asarray(open_prepared(prepared))
        assert pixels.shape == (20, 20, 3)
        assert pixels[:, :9].max() == 0
        assert pixels[:, 11:, 1].min() >= 100

    @pytest.mark.parametrize("share", [1.0, 0.5])
    def test_the_centre_is_a_share_of_the_shorter_side(self, prepare, share):
        treatment = Treatment(f"centre:{share}")
        pixels = np.asarray(open_prepared(prepare(encode_image(draw_gradient(256, 128)), treatment)))
        side = round(128 * share)
        assert pixels.shape == (side, side, 3)
        assert pixels[:, :, 0].mean() == pytest.approx(127.5, abs=1)
        assert pixels[:, :, 1].mean() == pytest.approx(127.5, abs=1)

    @pytest.mark.parametrize("box", [(300, 0, 320, 20), (-50, 0, -10, 40), (10, 10, 10, 10), (-5000, 0, 5000, 90)])
    def test_a_box_without_a_face_in_it_is_refused(self, prepare, box):
        with pytest.raises(BrokenImageError, match="the face's box"):
            prepare(encode_image(draw_gradient(256, 128)), Treatment(crop="box"), box=box)

    def test_a_missing_box_is_refused(self, prepare):
        with pytest.raises(BrokenImageError, match="no box of the face is known"):
            prepare(encode_image(draw_gradient(20, 20)), Treatment(crop="box"))

    def test_nan_in_a_box_is_refused(self, prepare):
        with pytest.raises(BrokenImageError):
            prepare(encode_image(draw_gradient(20, 20)), Treatment(crop="box"), box=(0.0, float("nan"), 5.0, 5.0))


@pytest.mark.parametrize("crop", ["centre:0", "centre:1.5", "centre:", "face", "box:1", "", "centre:x"])
def test_an_unknown_crop_is_refused(crop):
    with pytest.raises(ValueError, match=r"`crop` must be none, box or centre:F"):
        Treatment(crop)


def test_a_size_below_one_is_refused():
    with pytest.raises(ValueError, match="`size` must be at least 1, got 0"):
        Treatment(size_px=0)


@pytest.mark.parametrize("shape", [(8, 9), (8, 9, 3)])
def test_pixels_of_a_table_become_png_without_loss(tmp_path, shape):
    pixels = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    prepared = prepare_image(tmp_path, Photo(pixels, "table.csv:2"), KEEP)
    np.testing.assert_array_equal(np.asarray(open_prepared(prepared)), pixels)
    again = prepare_image(tmp_path, Photo(pixels.copy(order="F"), "table.csv:3"), KEEP)
    assert again.digest == prepared.digest


def test_the_digest_is_of_the_bytes_in_the_collection(prepare):
    content = encode_image(draw_gradient(60, 60))
    assert prepare(content).digest == prepare(content, Treatment(size_px=10), name="b.png").digest
    assert prepare(content).digest != prepare(encode_image(draw_gradient(60, 61))).digest
