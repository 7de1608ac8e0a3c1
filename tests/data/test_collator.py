import numpy as np
import pytest
import tiny
import torch
from PIL import Image
from transformers import Trainer, TrainingArguments

from modeling_pcl import PCLDataCollator, PCLForPreTraining
from modeling_pcl.data.view_settings import ViewSettings

FEW = ViewSettings(pose_images=2, pose_negatives_per_image=4)
PIXELS = np.random.default_rng(0).integers(0, 256, (6, 50, 60, 3), dtype=np.uint8)
EXAMPLES = [{"image": Image.fromarray(image), "label": 0} for image in PIXELS]


def test_a_batch_is_what_pre_training_takes():
    config = tiny.config()
    inputs = PCLDataCollator(config, FEW)(EXAMPLES)
    assert inputs["pixel_values"].shape == (6, 3, 32, 32)
    assert inputs["face_views"].shape == (12, 3, 32, 32)
    assert inputs["pose_negative_views"].shape == (2, 4, 3, 32, 32)
    outputs = PCLForPreTraining(config)(**inputs)
    assert outputs.loss.isfinite()
    for objective in ("disentangling", "face_contrast", "pose_contrast"):
        assert outputs[f"{objective}_loss"] is not None


def test_an_objective_without_weight_has_no_views():
    inputs = PCLDataCollator(tiny.config(disentangling_weight=0, pose_contrast_weight=0), FEW)(EXAMPLES)
    assert set(inputs) == {"face_views", "face_mix", "face_permutation"}


def test_views_are_drawn_anew_and_again_by_the_same_seed():
    collate = PCLDataCollator(tiny.config(), FEW)
    first, second = collate(EXAMPLES), collate(EXAMPLES)
    assert not torch.equal(first["face_views"], second["face_views"])
    torch.manual_seed(0)
    assert torch.equal(collate(EXAMPLES)["face_views"], first["face_views"])


@pytest.mark.parametrize("rank", [0, 1])
def test_several_processes_share_the_permutation_and_not_the_views(rank, monkeypatch):
    alone = PCLDataCollator(tiny.config(), FEW)(EXAMPLES)
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", str(rank))
    torch.manual_seed(0)
    inputs = PCLDataCollator(tiny.config(), FEW)(EXAMPLES)
    assert inputs["face_mix"].shape == (12, 2 * 12 - 2)
    assert torch.equal(inputs["face_views"], alone["face_views"]) == (rank == 0)
    torch.manual_seed(0)
    monkeypatch.setenv("RANK", "0")
    assert torch.equal(PCLDataCollator(tiny.config(), FEW)(EXAMPLES)["face_permutation"], inputs["face_permutation"])


def test_examples_without_an_image_and_a_single_one_are_refused():
    collate = PCLDataCollator(tiny.config(), FEW)
    with pytest.raises(ValueError, match=r"no column `image` or `pixel_values`.*remove_unused_columns=False"):
        collate([{"label": 0}] * 2)
    with pytest.raises(ValueError, match=r"at least 2 images, got 1.*dataloader_drop_last=True"):
        collate(EXAMPLES[:1])


def test_the_trainer_trains_and_gives_eval_loss(tmp_path):
    config = tiny.config()
    options = {"per_device_train_batch_size": 3, "max_steps": 2, "report_to": [], "save_strategy": "no"}
    arguments = TrainingArguments(
        str(tmp_path), use_cpu=True, remove_unused_columns=False, disable_tqdm=True, learning_rate=1e-2, **options
    )
    model = PCLForPreTraining(config)
    before = model.pcl.trunk.stages[0].conv1.weight.clone()
    trainer = Trainer(model, arguments, PCLDataCollator(config, FEW), train_dataset=EXAMPLES, eval_dataset=EXAMPLES)
    trainer.train()
    assert not torch.equal(model.pcl.trunk.stages[0].conv1.weight, before)
    assert 0 < trainer.evaluate()["eval_loss"] < 100
