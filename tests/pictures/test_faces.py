import numpy as np
import pytest
import torch

from modeling_pcl import PCLConfig, PCLForPreTraining
from modeling_pcl.pictures.faces import draw_face_rows, reconstruct_rows, swap_rows
from modeling_pcl.swap_pcl import EXCHANGES, split_for_swap

CONFIG = PCLConfig(image_size=32, hidden_sizes=[4, 4, 4, 8], feature_channels=4, projection_size=8, decoder_size=16)


def test_rows_hold_what_their_titles_say_and_leave_the_model_as_it_was():
    model, images = PCLForPreTraining(CONFIG).train(), torch.rand(3, 3, 32, 32)
    statistics = model.decoder.norms[0].running_mean.clone()
    rows = reconstruct_rows(model, images)
    assert model.training
    assert torch.equal(model.decoder.norms[0].running_mean, statistics)
    assert len(rows) == 8
    assert torch.equal(rows["mirror"], images.flip(3))
    model.eval()
    with torch.no_grad():
        own, mirror = model.pcl(images), model.pcl(images.flip(3))
        expected = model.decode(mirror.face_features, own.pose_features)
    torch.testing.assert_close(rows["face of mirror\npose of image"], expected)


@pytest.mark.parametrize("exchange", EXCHANGES)
def test_swap_rows_put_the_face_of_the_row_into_the_pose_of_the_column(exchange):
    model, images = PCLForPreTraining(CONFIG).eval(), torch.rand(3, 3, 32, 32)
    rows = swap_rows(model, images, exchange)
    with torch.no_grad():
        kept, exchanged = split_for_swap(model.pcl, images, exchange)
        expected = model.decode(kept[2:3], exchanged[1:2])
    torch.testing.assert_close(rows["face 3"][2:3], expected)  # Column 0 is the face's own image.
    assert torch.equal(rows["pose of"][1:], images)
    assert torch.equal(rows["face 3"][0], images[2])


def test_a_picture_shows_its_rows_from_the_top():
    red, blue = (torch.zeros(4, 3, 8, 8) for _ in range(2))
    red[:, 0], blue[:, 2] = 1, 2  # Values beyond 1 are clamped.
    picture = np.asarray(draw_face_rows({"red": red, "blue": blue}, title="two rows"))
    assert picture.shape[2] == 3
    is_red = (picture == [255, 0, 0]).all(axis=2)
    is_blue = (picture == [0, 0, 255]).all(axis=2)
    assert is_red.sum() > 1000
    assert is_blue.sum() > 1000
    assert is_red.nonzero()[0].max() < is_blue.nonzero()[0].min()
