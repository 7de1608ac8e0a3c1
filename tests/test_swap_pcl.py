import pytest
import tiny
import torch
from torch.nn.functional import normalize

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
    expected = normalize(outputs.face_features + outputs.pose_features)
    torch.testing.assert_close(normalize(kept + exchanged), expected)


@pytest.mark.parametrize("is_invariant", [False, True])
@torch.no_grad()
def test_a_mirrored_image_keeps_its_pose_features_shared_part_and_turns_to_the_other_side(
    encoder, images, is_invariant
):
    encoder.config.mirror_invariant_face = is_invariant
    kept, turn = split_for_swap(encoder, images, "turn")
    mirrored_kept, mirrored_turn = split_for_swap(encoder, images.flip(3), "turn")
    own, mirrored = encoder(images), encoder(images.flip(3))
    encoder.config.mirror_invariant_face = False
    length, mirrored_length = (
        (outputs.face_features + outputs.pose_features).norm(dim=1, keepdim=True) for outputs in (own, mirrored)
    )
    torch.testing.assert_close(turn * length, -mirrored_turn * mirrored_length)
    shared = kept * length - own.face_features
    torch.testing.assert_close(shared, mirrored_kept * mirrored_length - mirrored.face_features)
    assert turn.abs().max() > 1e-3


@torch.no_grad()
def test_a_symmetric_image_turns_no_other(encoder, images):
    _, turn = split_for_swap(encoder, (images + images.flip(3)) / 2, "turn")
    torch.testing.assert_close(turn, torch.zeros_like(turn), atol=1e-6, rtol=0)


@torch.no_grad()
def test_features_of_zeros_as_of_a_black_image_stay_zeros(encoder, images):
    kept, turn = split_for_swap(encoder, torch.zeros_like(images), "turn")
    assert not encoder(torch.zeros_like(images)).face_features.any()  # Untrained, all its biases are zero.
    assert not kept.any()
    assert not turn.any()


def test_another_exchange_is_refused(encoder, images):
    with pytest.raises(ValueError, match="`exchange` must be one of pose, turn, got 'face'"):
        split_for_swap(encoder, images, "face")
