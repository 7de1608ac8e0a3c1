import pytest
import torch
from accelerate import Accelerator

from modeling_pcl.training.monitor import Monitor, check_finite_weights


def make_monitor() -> Monitor:
    return Monitor(Accelerator(cpu=True), steps=10, start=0, images_per_step=4)


def test_flush_returns_the_means_since_the_last_flush():
    monitor = make_monitor()
    for step, loss in enumerate((9.0, 1.0, 3.0), start=1):
        monitor.add(step, {"face_contrast_loss": torch.tensor(loss)})
        if step == 1:
            monitor.flush(1e-4)
    assert monitor.flush(1e-4) == {"face_contrast_loss": 2.0}
    assert monitor.flush(1e-4) == {}


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_loss_that_is_not_finite_is_named_with_its_first_step(bad):
    monitor = make_monitor()
    for step, value in enumerate((1.0, bad, bad), start=4):
        monitor.add(step, {"face_contrast_loss": torch.tensor(1.0), "pose_contrast_loss": torch.tensor(value)})
    with pytest.raises(FloatingPointError, match="at step 5 `pose_contrast_loss` is"):
        monitor.flush(1e-4)


def test_weights_that_are_not_finite_are_named():
    layer = torch.nn.Linear(2, 2)
    check_finite_weights(layer, 3)
    layer.bias.data[1] = float("inf")
    with pytest.raises(FloatingPointError, match="after step 3 the weights `bias`"):
        check_finite_weights(layer, 3)
