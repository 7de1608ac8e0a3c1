import pytest
from PIL import Image


def test_swaps_and_reconstructions_are_drawn_into_a_folder(call, model, tmp_path):
    call("swaps", model, "--output_dir", tmp_path / "new")
    for name in ("swaps", "turns", "reconstructions"):
        with Image.open(tmp_path / "new" / f"{name}.png") as image:
            assert image.size[0] > 800
            assert len(image.convert("L").getcolors()) > 50


def test_a_model_that_does_not_exist_is_one_clear_line(refused, tmp_path):
    assert "/nowhere/model" in refused("swaps", "/nowhere/model", "--output_dir", tmp_path)


@pytest.mark.parametrize("option", ["--pictures", "--output-dirs"])
def test_a_misspelt_option_is_wrong_usage(call, model, tmp_path, option, capsys):
    with pytest.raises(SystemExit) as stop:
        call("swaps", model, "--output_dir", tmp_path, option, "x")
    assert stop.value.code == 2
    assert f"unrecognized arguments: {option}" in capsys.readouterr().err


def test_no_images_are_refused_by_name(refused, tmp_path):
    assert "`--images` must be at least 1, got 0" in refused("swaps", "model", "--output_dir", tmp_path, "--images", 0)
