import pytest
import tiny
import torch

from modeling_pcl import PCLModel
from modeling_pcl.swap_pcl import EXCHANGES, split_for_swap


@pytest.fixture(scope="module")
def encoder() -> PCLModel:
    torch.manual_seed(0)
    return PCLModel(tiny.config()).eval()


@pytest.fixture(scope="module")
def images() -> torch.Tensor:
    return torch.rand(3, 3, 32, 32, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("exchange", EXCHANGES)
@torch.no_grad()
def test_both_features_of_an_image_are_what_draws_it_again(encoder, images, exchange):
    outputs = encoder(images)
    kept, exchanged = split_for_swap(encoder, images, exchange)
    torch.testing.assert_close(kept + exchanged, outputs.face_features + outputs.pose_features)


@pytest.mark.parametrize("is_invariant", [False, True])
@torch.no_grad()
def test_a_mirrored_image_keeps_its_pose_features_shared_part_and_turns_to_the_other_side(
    encoder, images, is_invariant
):
    encoder.config.mirror_invariant_face = is_invariant
    kept, turn = split_for_swap(encoder, images, "turn")
    mirrored_kept, mirrored_turn = split_for_swap(encoder, images.flip(3), "turn")
    face, mirrored_face = encoder(images).face_features, encoder(images.flip(3)).face_features
    encoder.config.mirror_invariant_face = False
    torch.testing.assert_close(turn, -mirrored_turn)
    torch.testing.assert_close(kept - face, mirrored_kept - mirrored_face)
    assert turn.abs().max() > 1e-3


@torch.no_grad()
def test_a_symmetric_image_turns_no_other(encoder, images):
    _, turn = split_for_swap(encoder, (images + images.flip(3)) / 2, "turn")
    torch.testing.assert_close(turn, torch.zeros_like(turn), atol=1e-6, rtol=0)


def test_another_exchange_is_refused(encoder, images):
    with pytest.raises(ValueError, match="`exchange` must be one of pose, turn, got 'face'"):
        split_for_swap(encoder, images, "face")
