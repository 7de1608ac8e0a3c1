import numpy as np
import pytest

from modeling_pcl.head_pose_pcl import angles_of, axes_in_image, rotation_matrix


def test_each_angle_turns_the_head_the_way_that_is_said():
    right, left = axes_in_image(30, 0, 0)["nose"], axes_in_image(-30, 0, 0)["nose"]
    assert right[0] == pytest.approx(0.5)
    assert left[0] == pytest.approx(-0.5)
    assert axes_in_image(0, 30, 0)["nose"] == pytest.approx([0, -0.5])  # up is negative
    clockwise = axes_in_image(0, 0, 30)
    assert clockwise["top"] == pytest.approx([0.5, -np.sqrt(0.75)])
    assert clockwise["left"] == pytest.approx([np.sqrt(0.75), 0.5])


def test_a_frontal_head_has_its_left_ear_on_the_right_and_its_nose_towards_us():
    axes = axes_in_image(0, 0, 0)
    assert axes["left"] == pytest.approx([1, 0])
    assert axes["top"] == pytest.approx([0, -1])
    assert axes["nose"] == pytest.approx([0, 0])


def test_the_axes_are_right_handed():
    turned = rotation_matrix(20, -35, 50)
    assert np.cross(turned[:, 0], turned[:, 1]) == pytest.approx(turned[:, 2])
    # A right-handed turn of 90 degrees takes each axis to the next but one.
    assert rotation_matrix(90, 0, 0) @ [0, 0, 1] == pytest.approx([1, 0, 0])
    assert rotation_matrix(0, 90, 0) @ [0, 1, 0] == pytest.approx([0, 0, 1])
    assert rotation_matrix(0, 0, 90) @ [1, 0, 0] == pytest.approx([0, 1, 0])


def test_the_order_of_the_turns_is_that_of_300w_lp():
    yaw, pitch, roll = np.radians([20, -35, 50])
    axes = axes_in_image(20, -35, 50)
    # The published formulas of its axes, in whose sign of yaw this package's is the negative.
    left = [np.cos(yaw) * np.cos(roll), np.cos(pitch) * np.sin(roll) + np.cos(roll) * np.sin(pitch) * np.sin(yaw)]
    assert axes["left"] == pytest.approx(left)
    assert axes["nose"] == pytest.approx([np.sin(yaw), -np.cos(yaw) * np.sin(pitch)])


@pytest.mark.parametrize("angles", [(0, 0, 0), (40, -30, 20), (-89, 170, -179), (12, 99, -99)])
def test_angles_come_back(angles):
    assert angles_of(rotation_matrix(*angles)) == pytest.approx(angles)


@pytest.mark.parametrize(
    ("matrix", "message"),
    [(np.eye(2), "not a 3 x 3"), (2 * np.eye(3), "not a 3 x 3"), (np.diag([1, 1, -1]), "mirrors")],
)
def test_what_is_no_rotation_is_refused(matrix, message):
    with pytest.raises(ValueError, match=message):
        angles_of(matrix)
