import dataclasses
import itertools
import json
import math
import random

import numpy as np
import pytest
import torch
from scipy import stats
from torchvision.transforms.v2 import functional as torchvision_ops

from modeling_pcl import PCLConfig, PCLForPreTraining
from modeling_pcl.data import views
from modeling_pcl.data.geometric import HEAD_RADIUS
from modeling_pcl.data.view_settings import ViewSettings
from modeling_pcl.data.views import VideoFrames, ViewMaker, draw_crops, draw_symmetric_beta, draw_windows

OBJECTIVES = ("disentangling", "face_contrast", "pose_contrast")
SMALL = ViewSettings(pose_images=3, pose_negatives_per_image=5)


def make_images(count: int = 4, side_px: int = 64) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(count, 3, 8, 8, generator=generator)  # Blobs, because noise would average out.
    return (torch.nn.functional.interpolate(coarse, size=side_px, mode="bicubic").clamp(0, 1) * 255).byte()


def make_ramps(count: int, side_px: int) -> torch.Tensor:
    """Make images in which red encodes the column, green the row and blue the image."""
    ramp = torch.arange(side_px).float() / side_px * 255
    images = torch.stack([ramp.expand(side_px, -1), ramp[:, None].expand(-1, side_px), torch.zeros(side_px, side_px)])
    images = images.repeat(count, 1, 1, 1)
    images[:, 2] = torch.arange(count)[:, None, None]
    return images.byte()


@pytest.fixture
def without_photometric(monkeypatch):
    monkeypatch.setattr(views, "apply_photometric", lambda images, parameters: images)


def assert_same(first: dict, second: dict):
    assert first.keys() == second.keys()
    for name in first:
        assert torch.equal(first[name], second[name]), name


@pytest.mark.parametrize(("size_px", "side_px", "count"), [(32, 50, 4), (100, 200, 2), (64, 64, 3), (33, 20, 2)])
@pytest.mark.parametrize("face_views", ["windows", "random_resized_crop"])
def test_shapes_dtypes_and_ranges_hold_at_any_size(size_px, side_px, count, face_views):
    maker = ViewMaker(dataclasses.replace(SMALL, face_views=face_views), size_px, seed=0, world_size=2)
    images = make_images(count, side_px)
    inputs = {name: value for objective in OBJECTIVES for name, value in getattr(maker, objective)(images, 7).items()}
    shape = (3, size_px, size_px)
    used = min(count, 3)  # fewer images than `pose_images` are all used
    assert {name: tuple(value.shape) for name, value in inputs.items()} == {
        "pixel_values": (count, *shape),
        "noise": (2 * count, *shape),
        "face_views": (2 * count, *shape),
        "face_mix": (2 * count, 4 * count - 2),
        "face_permutation": (4 * count - 2,),
        "pose_views": (2 * used, *shape),
        "pose_negative_views": (used, 5, *shape),
        "pose_mix": (used, 5),
        "pose_permutation": (5,),
    }
    for name, value in inputs.items():
        assert value.dtype == (torch.int64 if name.endswith("permutation") else torch.float32), name
        if not name.endswith("permutation") and name != "noise":
            assert value.min() >= 0, name
            assert value.max() <= 1, name
    for name in ("face_permutation", "pose_permutation"):
        assert sorted(inputs[name].tolist()) == list(range(len(inputs[name])))


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_views_are_the_keyword_arguments_of_the_model(objective):
    torch.manual_seed(0)
    config = PCLConfig(image_size=32, hidden_sizes=[4, 4, 4, 4], feature_channels=4, projection_size=8, decoder_size=8)
    outputs = PCLForPreTraining(config)(**getattr(ViewMaker(SMALL, 32, seed=0), objective)(make_images(), 0))
    assert outputs[f"{objective}_loss"].isfinite()


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_views_are_a_function_of_seed_step_and_rank(objective):
    images = make_images()

    def make(seed=1, step=2, rank=0):
        return getattr(ViewMaker(SMALL, 32, seed, rank, world_size=2), objective)(images, step)

    first = make()
    assert_same(make(), first)
    for other in (make(seed=2), make(step=3), make(rank=1)):
        for name, value in other.items():
            if name not in ("pixel_values", "face_permutation", "pose_permutation"):
                assert not torch.equal(value, first[name]), name


def test_all_ranks_share_the_face_permutation_of_a_step_and_each_step_has_its_own():
    images = make_images()
    permutations = [
        [
            ViewMaker(SMALL, 32, 1, rank, world_size=3).face_contrast(images, step)["face_permutation"]
            for rank in range(3)
        ]
        for step in range(2)
    ]
    for of_ranks in permutations:
        assert all(torch.equal(permutation, of_ranks[0]) for permutation in of_ranks)
    assert not torch.equal(permutations[0][0], permutations[1][0])


def test_global_generators_are_neither_read_nor_moved():
    images, inputs = make_images(), []
    for seed in range(2):
        torch.manual_seed(seed), np.random.seed(seed), random.seed(seed)
        before = torch.get_rng_state(), str(np.random.get_state()), random.getstate()
        inputs.append([getattr(ViewMaker(SMALL, 32, seed=0), objective)(images, 0) for objective in OBJECTIVES])
        after = torch.get_rng_state(), str(np.random.get_state()), random.getstate()
        assert torch.equal(before[0], after[0])
        assert before[1:] == after[1:]
    for first, second in zip(*inputs):
        assert_same(first, second)


def test_views_are_the_same_and_without_gradient_under_autocast():
    maker, images = ViewMaker(SMALL, 32, seed=0), make_images()
    for objective in OBJECTIVES:
        expected = getattr(maker, objective)(images, 0)
        with torch.autocast("cpu", torch.bfloat16):
            inputs = getattr(maker, objective)(images, 0)
        assert_same(inputs, expected)
        assert not any(value.requires_grad for value in inputs.values())


@pytest.mark.parametrize("face_views", ["windows", "random_resized_crop"])
def test_equal_images_in_one_batch_get_different_views(face_views):
    images = make_images(1).repeat(4, 1, 1, 1)
    # Of one pair in two hundred neither view has its colours or sharpness changed; not with this seed.
    maker = ViewMaker(dataclasses.replace(SMALL, face_views=face_views), 32, seed=1)
    inputs = maker.pose_contrast(images, 0)
    batches = [maker.face_contrast(images, 0)["face_views"], inputs["pose_views"], *inputs["pose_negative_views"]]
    for batch in batches:
        for first, second in itertools.combinations(batch, 2):
            assert (first - second).abs().max() > 0.01


def test_disentangling_resizes_the_whole_image_and_its_noise_is_normal():
    images = make_images(4, 128)
    inputs = ViewMaker(ViewSettings(noise_std=0.4), 64, seed=0).disentangling(images, 0)
    expected = torchvision_ops.resize(images / 255, [64, 64], antialias=True)
    torch.testing.assert_close(inputs["pixel_values"], expected, atol=1e-6, rtol=0)
    # 98,304 draws: four standard errors of their mean and of their standard deviation.
    assert abs(inputs["noise"].mean()) < 4 * 0.4 / math.sqrt(98_304)
    assert abs(inputs["noise"].std() - 0.4) < 4 * 0.4 / math.sqrt(2 * 98_304)


def test_zero_noise_and_zero_mixing_leave_their_keys_out():
    maker = ViewMaker(dataclasses.replace(SMALL, noise_std=0.0, mixing_alpha=0.0), 32, seed=0)
    assert maker.disentangling(make_images(), 0).keys() == {"pixel_values"}
    assert maker.face_contrast(make_images(), 0).keys() == {"face_views"}
    assert maker.pose_contrast(make_images(), 0).keys() == {"pose_views", "pose_negative_views"}


def test_windows_lie_inside_the_image_in_two_different_quadrants_all_pairs_alike():
    count = 12_000
    boxes = draw_windows(count, torch.Generator().manual_seed(0))
    top, left, height, width = boxes.unbind(1)
    assert (boxes[:, 2:] == 0.4).all()
    assert boxes.min() >= -1e-6
    assert (top + height).max() <= 1 + 1e-6
    assert (left + width).max() <= 1 + 1e-6
    centres = torch.stack([top + height / 2, left + width / 2])
    nearer = torch.minimum(centres, 1 - centres)
    assert nearer.min() >= 0.2 - 1e-6
    assert nearer.max() <= 0.3 + 1e-6
    assert abs(nearer.mean() - 0.25) < 4 * 0.1 / math.sqrt(12 * 4 * count)
    first, second = (2 * (centres[0] > 0.5) + (centres[1] > 0.5)).chunk(2)
    pairs = torch.bincount(4 * first + second, minlength=16).view(4, 4)
    assert (pairs.diag() == 0).all()
    # Twelve ordered pairs, 1,000 expected of each, four standard deviations of 30.
    assert (pairs[~torch.eye(4, dtype=torch.bool)] - 1000).abs().max() < 4 * math.sqrt(1000)


def test_crops_lie_inside_the_image_with_the_stated_areas_and_aspects():
    boxes = draw_crops(20_000, 0.2, 4 / 3, torch.Generator().manual_seed(0))
    top, left, height, width = boxes.unbind(1)
    assert boxes.min() >= 0
    assert (top + height).max() <= 1 + 1e-6
    assert (left + width).max() <= 1 + 1e-6
    assert (width / height).min() >= 3 / 4 - 1e-5
    assert (width / height).max() <= 4 / 3 + 1e-5
    whole = torch.maximum(height, width) < 1  # no side was cut to the image's
    assert (height * width)[whole].min() >= 0.2 - 1e-6
    # No side is cut for areas up to 3/4: there they are uniform, and positions uniform in the room that is left.
    area = height * width
    small = area[area < 0.74]
    assert stats.kstest(small, stats.uniform(0.2, 0.54).cdf).pvalue > 0.01
    assert (
        stats.kstest((width / height).log()[area < 0.5], stats.uniform(-math.log(4 / 3), 2 * math.log(4 / 3)).cdf)[1]
        > 0.01
    )
    assert stats.kstest((top / (1 - height))[whole], stats.uniform.cdf).pvalue > 0.01


@pytest.mark.parametrize("alpha", [0.3, 1.0, 1.6, 20.0])
def test_mixing_shares_follow_the_beta_distribution(alpha):
    shares = draw_symmetric_beta(alpha, (100, 200), torch.Generator().manual_seed(0))
    assert shares.min() >= 0
    assert shares.max() <= 1
    assert stats.kstest(shares.flatten(), stats.beta(alpha, alpha).cdf).pvalue > 0.01


@pytest.mark.parametrize("alpha", [1e-3, 1e4])
def test_extreme_mixing_stays_finite(alpha):
    shares = draw_symmetric_beta(alpha, (1000, 100), torch.Generator().manual_seed(0))
    assert shares.isfinite().all()


def test_face_views_are_windows_of_their_own_image_in_different_quadrants(without_photometric):
    inputs = ViewMaker(ViewSettings(), 32, seed=0).face_contrast(make_ramps(40, 100), 0)["face_views"]
    columns, rows, images = (inputs.mean(dim=(2, 3)) * torch.tensor([1, 1, 255.0])).T
    torch.testing.assert_close(images, torch.arange(40.0).repeat(2), atol=1e-3, rtol=0)
    first, second = (2 * (rows > 0.5) + (columns > 0.5)).chunk(2)
    assert (first != second).all()
    # The ramp runs from 0 to 0.99 over the image, 0.4 * 31/32 of it between a window's outer pixel centres.
    extent = inputs[:, 0, :, -1] - inputs[:, 0, :, 0]
    torch.testing.assert_close(extent, torch.full_like(extent, 0.4 * 31 / 32), atol=0.01, rtol=0)


@pytest.mark.parametrize("face_views", ["windows", "random_resized_crop"])
def test_face_views_are_mirrored_as_often_as_asked(without_photometric, face_views):
    images = make_ramps(50, 64)

    def mirrored_share(probability):
        settings = ViewSettings(face_views=face_views, face_mirror_probability=probability)
        inputs = ViewMaker(settings, 32, seed=0).face_contrast(images, 0)["face_views"]
        return (inputs[:, 0, 0, 0] > inputs[:, 0, 0, -1]).float().mean().item()

    assert ViewSettings().face_mirror_probability == 0
    assert mirrored_share(0.0) == 0
    assert mirrored_share(1.0) == 1
    assert abs(mirrored_share(0.5) - 0.5) < 4 * math.sqrt(0.25 / 100)


def test_face_views_are_turned_as_often_as_asked_and_else_stay(without_photometric):
    images = make_images(50)

    def make(probability: float, **turns) -> torch.Tensor:
        settings = ViewSettings(face_views="random_resized_crop", face_turn_probability=probability, **turns)
        return ViewMaker(settings, 32, seed=0).face_contrast(images, 0)["face_views"]

    def turned_share(probability: float, **turns) -> float:
        differences = (make(probability, **turns) - make(0.0)).abs().flatten(1).max(dim=1).values
        return (differences > 0.01).float().mean().item()

    assert ViewSettings().face_turn_probability == 0
    assert turned_share(1.0) == 1
    assert turned_share(1.0, turn_deg=0.0, turn_out_of_plane_deg=30.0, turn_zoom=0.0, turn_shear=0.0) == 1
    assert turned_share(1e-9) == 0
    assert abs(turned_share(0.5) - 0.5) < 4 * math.sqrt(0.25 / 100)


def test_turns_between_face_views_are_differences_in_the_direction_that_is_seen(without_photometric):
    # On a ramp along the width, a turn in the plane shows as a slope along the height.
    images = make_ramps(40, 64)
    defaults = {"face_views": "random_resized_crop", "crop_area_min": 1.0, "crop_aspect_max": 1.0}
    defaults |= {"face_turn_probability": 0.5, "turn_deg": 30.0, "turn_zoom": 0.0, "turn_shear": 0.0}

    def make(**changes) -> dict[str, torch.Tensor]:
        return ViewMaker(ViewSettings(**defaults | changes), 32, seed=0).face_contrast(images, 0)

    for mirror_probability in (0.0, 1.0):
        inputs = make(face_mirror_probability=mirror_probability)
        views = inputs["face_views"][:, 0, 10:22, 10:22]
        across, down = views.diff(dim=2).mean(dim=(1, 2)), views.diff(dim=1).mean(dim=(1, 2))
        seen = torch.atan2(down * across.sign(), across.abs()).rad2deg()  # Clockwise, mirrored or not.
        first, second = seen.chunk(2)
        expected = torch.stack([torch.zeros(40), (second - first) / 30], dim=1)
        torch.testing.assert_close(inputs["face_turns"], expected, atol=0.02, rtol=0)
    assert "face_turns" not in make(face_turn_probability=0.0)


def test_turns_are_unknown_where_one_view_is_mirrored_or_of_another_frame(without_photometric):
    images = make_ramps(60, 64)
    settings = {"face_views": "random_resized_crop", "face_turn_probability": 1.0, "turn_out_of_plane_deg": 20.0}

    def make(frames=None, **changes) -> dict[str, torch.Tensor]:
        return ViewMaker(ViewSettings(**settings | changes), 32, seed=0).face_contrast(images, 0, frames)

    inputs = make(face_mirror_probability=0.5)
    rises = inputs["face_views"][:, 0, 16, 20] > inputs["face_views"][:, 0, 16, 12]
    first, second = rises.chunk(2)
    assert inputs["face_turns"].isnan().all(dim=1).equal(first != second)
    assert inputs["face_turns"].isnan().any(dim=1).equal(first != second)
    known, mirrored = make()["face_turns"], make(face_mirror_probability=1.0)["face_turns"]
    torch.testing.assert_close(known, -mirrored)
    assert known.abs().max() <= 2
    # Images are turned alternately in the plane and out of it.
    assert (known[::2, 0] == 0).all()
    assert (known[1::2, 1] == 0).all()
    assert (known[1::2, 0] != 0).all()
    frames = VideoFrames(images[:2], np.array([3, 7]))
    unknown = make(frames, face_positives="same_video")["face_turns"].isnan().all(dim=1)
    assert unknown.nonzero().flatten().tolist() == [3, 7]


def test_pose_negatives_come_from_each_images_own_mirror(without_photometric):
    images = make_images(5)
    maker = ViewMaker(SMALL, 32, seed=0)
    inputs = maker.pose_contrast(images, 0)
    whole = maker.disentangling(images, 0)["pixel_values"][:3]
    assert torch.equal(inputs["pose_views"], whole.repeat(2, 1, 1, 1))
    assert torch.equal(inputs["pose_negative_views"], whole.flip(3)[:, None].expand(-1, 5, -1, -1, -1))


def make_flat(levels: list[int], side_px: int = 40) -> torch.Tensor:
    """Make images of one grey level each."""
    return torch.tensor(levels, dtype=torch.uint8)[:, None, None, None].repeat(1, 3, side_px, side_px)


def get_grey_levels(images: torch.Tensor) -> list[int]:
    return images.flatten(-3).mean(dim=-1).mul(255).round().int().tolist()


def make_pose_negatives(images, kinds, count: int, frames=None, pose_images: int = 3, **settings) -> torch.Tensor:
    """Make pose negatives, `(pose_images, count, 3, 32, 32)`."""
    settings = ViewSettings(
        pose_images=pose_images, pose_negatives_per_image=count, pose_negatives=kinds, mixing_alpha=0.0, **settings
    )
    return ViewMaker(settings, 32, seed=0).pose_contrast(images, 0, frames)["pose_negative_views"]


def test_batch_negatives_are_the_mirrors_of_all_images_in_equal_shares(without_photometric):
    images = make_images(3)
    mirrors = make_pose_negatives(images, ["mirror"], 1)[:, 0]
    negatives = make_pose_negatives(images, ["batch"], 6)
    for image_negatives in negatives:
        assert torch.equal(image_negatives, mirrors.repeat(2, 1, 1, 1))


def test_geometric_negatives_are_mirrors_and_turned_images_by_turns(without_photometric):
    images = make_images(3)
    resized, mirrors = (make_pose_negatives(sources, ["mirror"], 1)[:, 0] for sources in (images.flip(3), images))
    negatives = make_pose_negatives(images, ["geometric"], 6)
    for image_negatives, image, mirror in zip(negatives, resized, mirrors):
        assert torch.equal(image_negatives[1::2], mirror.expand(3, -1, -1, -1))
        for turned in image_negatives[::2]:
            assert (turned - image).abs().mean() > 0.02
            # The middle of a turned image shows what the image's middle shows; a mirrored one is another face.
            torch.testing.assert_close(turned[:, 15:17, 15:17], image[:, 15:17, 15:17], atol=0.1, rtol=0)
    assert len({tuple(turned.flatten().tolist()) for turned in negatives[:, ::2].flatten(0, 1)}) == 9


def test_turns_out_of_the_plane_shift_the_middle_of_every_other_turned_image(without_photometric):
    ramps = make_ramps(2, 64)  # red tells the column
    settings = {"turn_deg": 0.0, "turn_out_of_plane_deg": 30.0, "turn_zoom": 0.0, "turn_shear": 0.0, "pose_images": 2}
    turned = make_pose_negatives(ramps, ["geometric"], 2, **settings)[:, 0]
    shift = (turned[:, 0, 15:17, 15:17].mean(dim=(1, 2)) - 31.5 / 64).abs()
    # From a quarter of 30 degrees to all of it, on a cylinder of radius HEAD_RADIUS half widths.
    assert shift.min() > 0.5 * HEAD_RADIUS * math.sin(math.radians(7.5)) - 0.01
    assert shift.max() < 0.5 * HEAD_RADIUS * math.sin(math.radians(30)) + 0.01


def test_kinds_of_negatives_share_their_number(without_photometric):
    images = make_images(2)
    mixed = make_pose_negatives(images, ["mirror", "geometric"], 8, pose_images=2)
    assert torch.equal(mixed[:, ::2], make_pose_negatives(images, ["mirror"], 4, pose_images=2))
    assert torch.equal(mixed[:, 1::2], make_pose_negatives(images, ["geometric"], 4, pose_images=2))


def test_video_negatives_are_other_frames_of_the_images_that_have_them_which_take_part_first(without_photometric):
    images = make_flat([10, 20, 30, 40])
    frames = VideoFrames(make_flat([201, 202, 203]), np.array([1, 3, 3]))
    negatives = make_pose_negatives(images, ["video"], 4, frames)
    assert [get_grey_levels(image_negatives) for image_negatives in negatives] == [
        [201] * 4,
        [202, 203, 202, 203],
        [10] * 4,
    ]


def test_without_any_frames_video_negatives_are_mirrors(without_photometric):
    images = make_images(3)
    assert torch.equal(make_pose_negatives(images, ["video"], 2), make_pose_negatives(images, ["mirror"], 2))
    empty = VideoFrames(images[:0], np.array([], dtype=np.int64))
    assert torch.equal(make_pose_negatives(images, ["video"], 2, empty), make_pose_negatives(images, ["mirror"], 2))


def test_second_face_views_are_of_another_frame_where_there_is_one(without_photometric):
    images = make_flat([10, 20, 30])
    frames = VideoFrames(make_flat([201, 202, 203]), np.array([0, 2, 2]))
    for positives, second in (("same_video", [201, 20, 202]), ("same_image", [10, 20, 30])):
        maker = ViewMaker(ViewSettings(face_positives=positives), 32, seed=0)
        views = maker.face_contrast(images, 0, frames)["face_views"]
        assert get_grey_levels(views) == [10, 20, 30, *second]


def test_frames_of_micro_batches_belong_to_the_images_of_the_joined_batch():
    parts = [VideoFrames(make_flat([1, 2]), np.array([0, 3])), VideoFrames(make_flat([3]), np.array([1]))]
    joined = VideoFrames.join(parts, batch_size=4)
    assert joined.image_of.tolist() == [0, 3, 5]
    assert get_grey_levels(joined.images / 255) == [1, 2, 3]


def test_disentangling_takes_as_many_images_as_asked_for():
    images = make_images(4)
    for count, taken in ((2, 2), (3, 3), (9, 4), (None, 4)):
        inputs = ViewMaker(ViewSettings(disentangling_images=count), 32, seed=0).disentangling(images, 0)
        assert len(inputs["pixel_values"]) == taken
        assert len(inputs["noise"]) == 2 * taken


def test_operations_of_probability_zero_are_left_out_and_nothing_is_left_of_a_list_of_them():
    none = {f"{name}_probability": 0.0 for name in ("jitter", "grey", "blur", "gradient")}
    settings = ViewSettings(**none, face_views="random_resized_crop", crop_area_min=1.0)
    images = make_images()
    inputs = ViewMaker(settings, 32, seed=0).pose_contrast(images, 0)
    whole = ViewMaker(settings, 32, seed=0).disentangling(images, 0)["pixel_values"]
    assert torch.equal(inputs["pose_views"], whole.repeat(2, 1, 1, 1))


def test_settings_are_plain_values():
    assert ViewSettings(**json.loads(json.dumps(dataclasses.asdict(SMALL)))) == SMALL


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("face_views", "crops"),
        ("face_mirror_probability", -0.1),
        ("face_mirror_probability", 1.1),
        ("crop_area_min", 0.0),
        ("crop_area_min", 1.5),
        ("crop_aspect_max", 0.9),
        ("crop_aspect_max", math.nan),
        ("mixing_alpha", -1.0),
        ("mixing_alpha", math.nan),
        ("noise_std", -0.4),
        ("noise_std", math.inf),
        ("pose_images", 0),
        ("pose_negatives_per_image", 0),
        ("disentangling_images", 1),
        ("face_positives", "same_person"),
        ("pose_negatives", []),
        ("pose_negatives", ["own"]),
        ("pose_negatives", ["mirror", "mirror"]),
        ("turn_deg", 181.0),
        ("turn_out_of_plane_deg", 60.0),
        ("turn_zoom", -0.1),
        ("turn_shear", math.nan),
        ("jitter_probability", 1.1),
        ("jitter_strength", -0.1),
        ("hue_strength", 0.5),
        ("grey_probability", math.nan),
        ("blur_probability", -1.0),
        ("blur_sigma_max_px", 0.05),
        ("gradient_probability", 2.0),
    ],
)
def test_settings_out_of_range_are_refused_by_name(name, value):
    with pytest.raises(ValueError, match=f"`{name}`"):
        ViewSettings(**{name: value})


def test_settings_that_exclude_each_other_are_refused_by_name():
    with pytest.raises(ValueError, match="`pose_negatives_per_image` must be a number of at least 2"):
        ViewSettings(pose_negatives=["mirror", "video"], pose_negatives_per_image=1)
    with pytest.raises(ValueError, match="`pose_images` times `pose_negatives_per_image` must be at least 2"):
        ViewSettings(pose_images=1, pose_negatives_per_image=1)
    with pytest.raises(ValueError, match="must not both be 0"):
        ViewSettings(pose_negatives=["geometric"], turn_deg=0.0)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_views_on_the_gpu_stay_there_and_never_wait_for_it():
    maker, images = ViewMaker(SMALL, 32, seed=0), make_images().cuda()
    for objective in OBJECTIVES:
        expected = getattr(maker, objective)(images, 0)
        torch.cuda.set_sync_debug_mode("error")
        try:
            inputs = getattr(maker, objective)(images, 0)
        finally:
            torch.cuda.set_sync_debug_mode("default")
        assert all(value.is_cuda for value in inputs.values())
        assert_same(inputs, expected)
