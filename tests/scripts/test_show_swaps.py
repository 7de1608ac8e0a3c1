import pytest
from PIL import Image


@pytest.mark.parametrize("picture", ["swaps", "reconstructions"])
def test_swaps_are_drawn_to_a_file(call, model, tmp_path, picture):
    call("show_swaps", "--model", model, "--output", tmp_path / "new" / "swaps.png", "--picture", picture)
    with Image.open(tmp_path / "new" / "swaps.png") as image:
        assert image.size[0] > 800
        assert len(image.convert("L").getcolors()) > 50


def test_a_model_that_does_not_exist_is_one_clear_line(refused):
    assert "/nowhere/model" in refused("show_swaps", "--model", "/nowhere/model")
