import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import child
import numpy as np
import pytest
import tiny
import torch
import two_pretrainings
import two_processes
from accelerate.state import AcceleratorState
from PIL import Image
from refusals import refused
from safetensors.torch import load_file
from transformers import AutoImageProcessor, AutoModel, AutoModelForPreTraining

from modeling_pcl import PCLConfig, PCLForPreTraining
from modeling_pcl import precision as precision_module
from modeling_pcl.commands.main import main
from modeling_pcl.files import only_process
from modeling_pcl.hub import push
from modeling_pcl.training import run
from modeling_pcl.training.checkpoints import CheckpointFolder
from modeling_pcl.training.monitor import Monitor
from modeling_pcl.training.options import parse_options
from modeling_pcl.training.recipes import OF_ADAM, RECIPES
from modeling_pcl.training.setup import build_config


@pytest.fixture(scope="module")
def faces(tmp_path_factory) -> Path:
    """Forty smooth images, of ten subjects by folder."""
    folder = tmp_path_factory.mktemp("faces")
    generator = np.random.default_rng(0)
    for number in range(40):
        coarse = Image.fromarray(generator.integers(0, 256, (6, 6, 3), dtype=np.uint8))
        path = folder / f"{number:02d}.png"
        coarse.resize((48, 48), Image.Resampling.BICUBIC).save(path)
    return folder


@pytest.fixture(scope="module")
def tiny_config(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("config") / "config.json"
    sizes = {"image_size": 32, "hidden_sizes": [4, 4, 4, 8], "feature_channels": 4, "projection_size": 8}
    path.write_text(json.dumps({"model_type": "pcl", "decoder_size": 16, **sizes}))
    return path


OPTIONS = {
    "steps": 7,
    "batch_size": 8,
    "save_steps": 3,
    "picture_steps": 0,
    "logging_steps": 1,
    "num_workers": 0,
    "pose_images": 2,
    "pose_negatives_per_image": 4,
    "mixed_precision": "no",
    "report_to": "none",
    "learning_rate": 1e-3,
}


@pytest.fixture
def options(faces, tiny_config, tmp_path) -> dict:
    return OPTIONS | {"corpus": faces, "config": tiny_config, "output_dir": tmp_path / "run"}


def command_line(options: dict, *flags: str) -> list[str]:
    return [text for name, value in options.items() for text in (f"--{name}", str(value))] + list(flags)


def train(monkeypatch, options: dict, *flags: str) -> Path:
    monkeypatch.setattr(sys, "argv", ["pcl", *command_line(options, *flags)])
    main("pretrain")
    return options["output_dir"]


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


def assert_same_weights(first: Path, second: Path):
    ours, theirs = weights(first), weights(second)
    assert ours.keys() == theirs.keys()
    assert [name for name in ours if not torch.equal(ours[name], theirs[name])] == []


def test_a_run_leaves_a_model_that_auto_classes_open_and_a_record(monkeypatch, options):
    folder = train(monkeypatch, options | {"picture_steps": 7, "report_to": "tensorboard"})
    pre_trained = AutoModelForPreTraining.from_pretrained(folder)
    encoder = AutoModel.from_pretrained(folder)
    for name, tensor in encoder.state_dict().items():
        assert torch.equal(tensor, pre_trained.pcl.state_dict()[name])
    assert AutoImageProcessor.from_pretrained(folder).crop_size["height"] == 32
    record = json.loads((folder / "run.json").read_text())
    assert record["options"]["steps"] == 7
    assert record["images_seen"] == 56
    assert record["steps_per_epoch"] == 5
    assert record["finished"] >= record["started"]
    with Image.open(folder / "pictures" / "step-00000007.png") as picture:
        assert picture.width > 500
    assert list(folder.glob("logs/**/events.out.tfevents*"))
    assert sorted(path.name for path in (folder / "checkpoints").iterdir()) == ["step-00000006", "step-00000007"]


def test_losses_fall(monkeypatch, options):
    means = []
    flush = Monitor.flush

    def record(self, learning_rate):
        means.append(flush(self, learning_rate))
        return means[-1]

    monkeypatch.setattr(Monitor, "flush", record)
    changes = {"steps": 36, "save_steps": 0, "learning_rate": 2e-3, "face_views": "random_resized_crop"}
    # All eight images take part in the pose contrast: the batch norm of two images' views is too noisy to learn from.
    temperatures = {"face_temperature": 0.2, "pose_temperature": 0.2, "logging_steps": 12, "pose_images": 8}
    train(monkeypatch, options | changes | temperatures)
    assert means[-1]["disentangling_loss"] < 0.8 * means[0]["disentangling_loss"], means
    for name in ("face_contrast_loss", "pose_contrast_loss"):
        assert means[-1][name] < 0.95 * means[0][name], (name, means)


def test_simclr_trains_the_face_objective_alone_on_unmixed_mirrored_crops(monkeypatch, options):
    monkeypatch.setattr(sys, "argv", ["pcl", *command_line(options, "--method", "simclr")])
    parsed = parse_options(sys.argv[1:])
    assert parsed.views.face_views == "random_resized_crop"
    assert parsed.views.face_mirror_probability == 0.5
    assert parsed.views.mixing_alpha == 0
    training = run.Pretraining(parsed)
    before = {name: tensor.clone() for name, tensor in training.model.state_dict().items()}
    terms = run.train_step(training, training.read_batches(iter(training.loader)))
    assert set(terms) == {"face_contrast_loss"}
    changed = {name for name, tensor in training.model.state_dict().items() if not torch.equal(tensor, before[name])}
    parts = {name.removeprefix("pcl.").split(".")[0] for name in changed}
    assert parts == {"trunk", "face_branch", "face_projection"}


def test_options_beside_a_method_hold_against_its_defaults(monkeypatch, options):
    arguments = command_line(options, "--method", "simclr", "--face_views", "windows", "--disentangling_weight", "0.5")
    monkeypatch.setattr(sys, "argv", ["pretrain.py", *arguments])
    parsed = parse_options(sys.argv[1:])
    assert parsed.views.face_views == "windows"
    assert parsed.objective.disentangling_weight == 0.5
    assert parsed.objective.pose_contrast_weight == 0


def parse(*arguments: str):
    return parse_options([*arguments])


def test_the_published_recipe_is_what_the_defaults_are():
    assert parse("--recipe", "published").flat() == parse().flat()
    assert build_config(parse()).to_dict() == PCLConfig().to_dict()


def test_a_recipe_sets_views_objectives_and_optimizer_and_options_beside_it_hold():
    small = parse("--recipe", "small", "--optimizer", "adam", "--crop_area_min", "0.3")
    assert small.training.optimizer == "adam"
    # What Muon has is twenty times too high for it.
    assert {name: getattr(small.training, name) for name in OF_ADAM} == OF_ADAM
    assert parse("--recipe", "small", "--optimizer", "adamw", "--learning_rate", "5e-3").training.learning_rate == 5e-3
    assert small.views.crop_area_min == 0.3
    assert small.views.gradient_probability == 0
    assert small.views.pose_negatives == RECIPES["small"]["pose_negatives"]
    assert build_config(small).disentangling_weight == RECIPES["small"]["disentangling_weight"]
    changed = {name for name, value in small.flat().items() if value != parse().flat()[name]}
    assert changed == set(RECIPES["small"]) - {"optimizer"} | {"recipe"}


def test_a_recipe_leaves_the_sizes_of_a_model_that_training_starts_from(tmp_path):
    tiny.save(tmp_path, PCLForPreTraining)
    words = ("--recipe", "small", "--init_from", str(tmp_path))
    config, start = build_config(parse(*words)), tiny.config()
    assert (config.decoder_size, config.projection_hidden_size) == (start.decoder_size, start.projection_hidden_size)
    assert config.face_temperature == RECIPES["small"]["face_temperature"]
    assert build_config(parse(*words, "--decoder_size", "64")).decoder_size == 64


@pytest.mark.parametrize("order", [("recipe", "method"), ("method", "recipe")])
def test_simclr_goes_with_a_recipe(order):
    words = {"recipe": "small", "method": "simclr"}
    options = parse(*(text for name in order for text in (f"--{name}", words[name])))
    weights = build_config(options).objective_weights
    assert weights == {"disentangling": 0, "face_contrast": 1, "pose_contrast": 0}
    assert build_config(options).turn_weight == 0
    assert options.training.optimizer == "muon"


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_every_optimizer_trains_and_resumes_bit_for_bit(monkeypatch, options, tmp_path, optimizer):
    changes = {"recipe": "small", "optimizer": optimizer, "warmup_steps": 1, "steps": 6, "decoder_size": 16}
    whole = train(monkeypatch, options | changes)
    stopped = options | changes | {"output_dir": tmp_path / "stopped"}
    shutil.copytree(whole / "checkpoints/step-00000003", stopped["output_dir"] / "checkpoints/step-00000003")
    assert_same_weights(whole, train(monkeypatch, stopped, "--resume"))
    optimizers = [run / "checkpoints/step-00000006/optimizer.pt" for run in (whole, stopped["output_dir"])]
    assert optimizers[0].read_bytes() == optimizers[1].read_bytes()
    start_weights = weights(whole / "checkpoints/step-00000003/model")
    assert not torch.equal(
        start_weights["pcl.trunk.stages.0.conv2.weight"], weights(whole)["pcl.trunk.stages.0.conv2.weight"]
    )


def test_a_run_of_constant_rate_may_be_resumed_with_more_steps_and_decays_at_its_end(monkeypatch, options):
    rates, flush = {}, Monitor.flush

    def record(self, learning_rate):
        rates[self.pending[-1][0]] = learning_rate
        return flush(self, learning_rate)

    monkeypatch.setattr(Monitor, "flush", record)
    options |= {"lr_scheduler_type": "warmup_stable_decay", "warmup_steps": 2, "steps": 4}
    train(monkeypatch, options)
    with refused("`--warmup_steps` was 2, is 1"):
        train(monkeypatch, options | {"steps": 9, "warmup_steps": 1}, "--resume")
    train(monkeypatch, options | {"steps": 9, "decay_steps": 4}, "--resume")
    # What is logged is the rate of the step to come: of none after the fourth, where the first run ended. The decay is
    # 1 - sqrt of the share that is done.
    shares = [0.5, 1, 1, 0, 1, 1 - 0.25**0.5, 1 - 0.5**0.5, 1 - 0.75**0.5, 0]
    assert [rates[step] for step in range(1, 10)] == pytest.approx([1e-3 * share for share in shares], abs=1e-9)


def test_views_of_other_frames_come_from_the_videos_of_the_corpus(monkeypatch, options, faces, tmp_path):
    folder = tmp_path / "videos"
    folder.mkdir()
    rows = ["file_name,video"]
    for number, path in enumerate(sorted(faces.iterdir())):
        shutil.copy(path, folder)
        rows.append(f"{path.name},{'' if number < 8 else f'v{number // 4}'}")
    (folder / "metadata.csv").write_text("\n".join(rows))
    changes = {"corpus": folder, "steps": 2, "gradient_accumulation_steps": 2, "face_positives": "same_video"}
    output = train(monkeypatch, options | changes, "--pose_negatives", "video", "geometric")
    assert json.loads((output / "run.json").read_text())["options"]["pose_negatives"] == ["video", "geometric"]
    with refused("need a column `video`"):
        train(monkeypatch, options | {"face_positives": "same_video", "output_dir": tmp_path / "none"})


def test_accumulated_micro_batches_read_that_many_batches(monkeypatch, options):
    folder = train(monkeypatch, options | {"gradient_accumulation_steps": 2, "steps": 3, "max_grad_norm": 1.0})
    record = json.loads((folder / "run.json").read_text())
    assert record["images_seen"] == 48
    state = torch.load(folder / "checkpoints/step-00000003/process-0.pt", weights_only=True)
    assert state["loader"] == {"batch": 6}


@pytest.mark.parametrize(("is_fast", "precision"), [(True, "bf16"), (False, "no")])
def test_autocast_is_by_default_what_the_device_is_fast_in_and_recorded(is_fast, precision, monkeypatch, options):
    monkeypatch.setattr(precision_module, "has_fast_bfloat16", lambda device_type: is_fast)
    del options["mixed_precision"]
    folder = train(monkeypatch, options | {"steps": 1})
    assert json.loads((folder / "run.json").read_text())["options"]["mixed_precision"] == precision


@pytest.mark.slow
def test_a_killed_run_resumes_bit_for_bit_from_the_middle_of_an_epoch(monkeypatch, options, tmp_path):
    changes = {"steps": 11, "save_steps": 3, "num_workers": 1, "mixed_precision": "bf16"}
    flags = ("--streaming", "--steps_per_epoch", "5")
    whole, killed = (options | changes | {"output_dir": tmp_path / name} for name in ("whole", "killed"))
    run = child.start_command("pretrain", command_line(killed, *flags), tmp_path / "log.txt")
    checkpoints = killed["output_dir"] / "checkpoints"
    while run.is_alive() and not list(checkpoints.glob("step-0000000[36]")):
        time.sleep(0.005)
    run.kill()
    run.join()
    train(monkeypatch, whole, *flags)
    newest = CheckpointFolder(checkpoints).newest()
    step = json.loads((newest / "state.json").read_text())["step"]
    assert step < 11
    assert step % 5  # Five batches are an epoch, so this is within one.
    train(monkeypatch, killed, "--resume", *flags)
    assert_same_weights(whole["output_dir"], killed["output_dir"])
    optimizers = [
        torch.load(run["output_dir"] / "checkpoints/step-00000011/optimizer.pt", weights_only=True)
        for run in (whole, killed)
    ]
    for ours, theirs in zip(*(state["optimizer"]["state"].values() for state in optimizers)):
        assert torch.equal(ours["exp_avg_sq"], theirs["exp_avg_sq"])
    assert optimizers[0]["scheduler"]["last_epoch"] == optimizers[1]["scheduler"]["last_epoch"] == 11


def test_a_run_is_not_written_over(monkeypatch, options):
    train(monkeypatch, options | {"steps": 3})
    with refused("exists already: give `--resume`"):
        train(monkeypatch, options | {"steps": 3})


def test_resuming_with_other_options_is_refused_by_name(monkeypatch, options):
    train(monkeypatch, options | {"steps": 3})
    with refused("`--batch_size` was 8, is 4"):
        train(monkeypatch, options | {"steps": 3, "batch_size": 4}, "--resume")


def test_resuming_a_stream_with_another_number_of_workers_is_refused(monkeypatch, options):
    flags = ("--streaming", "--steps_per_epoch", "5")
    train(monkeypatch, options | {"steps": 3}, *flags)
    with refused("`num_workers` was 1 for the loader of `position`, but is 2"):
        train(monkeypatch, options | {"steps": 3, "num_workers": 2}, "--resume", *flags)


def test_resuming_before_the_first_checkpoint_starts_and_says_so(monkeypatch, options, caplog):
    folder = train(monkeypatch, options | {"steps": 1}, "--resume")
    assert "holds no complete checkpoint to resume from: starting at step 0" in caplog.text
    assert json.loads((folder / "run.json").read_text())["resumed_from_step"] == 0


def test_a_second_run_in_the_same_folder_is_refused_before_anything_is_cleaned(monkeypatch, options):
    unfinished = CheckpointFolder(options["output_dir"] / "checkpoints").begin(1)
    with only_process(options["output_dir"]), refused("Another process is writing to `--output_dir`"):
        train(monkeypatch, options, "--resume")
    assert unfinished.exists()
    train(monkeypatch, options | {"steps": 1})
    assert not unfinished.exists()


@pytest.mark.parametrize(("number", "workers"), [(signal.SIGTERM, 0), (signal.SIGINT, 1)])
def test_a_signal_ends_a_run_after_its_step_and_it_goes_on_bit_for_bit(monkeypatch, options, tmp_path, number, workers):
    step = run.train_step

    def interrupted_step(training, batches):
        if training.state.step == 4:
            os.kill(os.getpid(), number)
        return step(training, batches)

    options |= {"save_steps": 0, "num_workers": workers}
    with monkeypatch.context() as patch, refused("^stopped at step 5, which is saved", status=128 + number):
        patch.setattr(run, "train_step", interrupted_step)
        train(patch, options)
    assert CheckpointFolder(options["output_dir"] / "checkpoints").newest().name == "step-00000005"
    AcceleratorState._reset_state(reset_partial_state=True)
    resumed = train(monkeypatch, options, "--resume")
    assert_same_weights(train(monkeypatch, options | {"output_dir": tmp_path / "whole"}), resumed)


def test_a_run_whose_newest_checkpoint_is_damaged_goes_on_from_the_older_to_the_same_end(monkeypatch, options, caplog):
    folder = train(monkeypatch, options)
    whole, damaged = weights(folder), folder / "checkpoints/step-00000007/process-0.pt"
    damaged.write_bytes(damaged.read_bytes()[:-1])
    (folder / "model.safetensors").unlink()
    train(monkeypatch, options, "--resume")
    assert "step-00000007 is damaged, process-0.pt does not have its hash: going on from step-00000006" in caplog.text
    assert not [name for name, tensor in weights(folder).items() if not torch.equal(tensor, whole[name])]
    for path in folder.glob("checkpoints/*/state.json"):
        path.write_text("")
    with refused("Every checkpoint in .* is damaged .*state.json is empty"):
        train(monkeypatch, options, "--resume")


def test_a_disk_without_space_for_a_checkpoint_ends_in_one_line_and_leaves_no_half_of_it(monkeypatch, options):
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        # Between run.json, of 3 kB, and optimizer.pt, of 200 kB.
        resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, before[1]))
        with refused("^error: The checkpoint of step 3 cannot be written: .*too large.*goes on from step 0"):
            train(monkeypatch, options)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert list((options["output_dir"] / "checkpoints").iterdir()) == []


@pytest.mark.parametrize("option", ["config", "init_from"])
def test_a_broken_model_to_start_from_is_one_line(monkeypatch, options, tmp_path, option):
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "config.json").write_text("[1]")
    del options["config"]
    with refused(r"^error: The config `.*broken` does not open: .*config.json must hold a JSON object, got a list"):
        train(monkeypatch, options | {option: tmp_path / "broken"})


def test_a_decoder_of_another_size_learns_on_an_encoder_that_stays(monkeypatch, options, tmp_path):
    first = train(monkeypatch, options | {"steps": 1})
    AcceleratorState._reset_state(reset_partial_state=True)
    changes = {"init_from": first, "decoder_size": 32, "output_dir": tmp_path / "drawing", "freeze_encoder": True}
    changes |= {"face_contrast_weight": 0, "pose_contrast_weight": 0, "steps": 3}
    del options["config"]
    second = train(monkeypatch, options | changes)
    before, after = weights(first), weights(second)
    assert all(torch.equal(before[name], after[name]) for name in before if not name.startswith("decoder."))
    assert after["decoder.fc.weight"].shape[0] == 32
    with refused(r"The model `.*run` does not open: it is of other sizes than the options ask for: .*face_projection"):
        train(monkeypatch, options | {"init_from": first, "projection_size": 12, "output_dir": tmp_path / "other"})


def test_a_loss_that_is_not_finite_stops_the_run_and_keeps_the_last_good_checkpoint(monkeypatch, options):
    step = run.train_step

    def broken_step(training, images):
        terms = step(training, images)
        if training.state.step == 5:
            terms["face_contrast_loss"] = terms["face_contrast_loss"] * float("nan")
        return terms

    monkeypatch.setattr(run, "train_step", broken_step)
    with refused(r"at step 5 `face_contrast_loss` is nan.*step-00000003"):
        train(monkeypatch, options)
    AutoModel.from_pretrained(options["output_dir"] / "checkpoints" / "step-00000003" / "model")


def test_too_many_broken_files_stop_the_run_and_name_the_option(monkeypatch, options, faces, tmp_path):
    folder = tmp_path / "some-broken"
    folder.mkdir()
    for number, path in enumerate(sorted(faces.iterdir())):
        (folder / path.name).write_bytes(path.read_bytes()[: 60 if number % 4 == 0 else None])
    with refused("max_broken_share"):
        train(monkeypatch, options | {"corpus": folder, "steps": 30})
    output = train(monkeypatch, options | {"corpus": folder, "max_broken_share": 0.5, "output_dir": tmp_path / "ok"})
    assert json.loads((output / "run.json").read_text())["broken_files"] > 0


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"batch_size": 64}, "40"),
        ({"steps": 0}, "`--steps` must be at least 1"),
        ({"corpus": "/nowhere/faces"}, "/nowhere/faces"),
        ({"config": "/nowhere/config.json"}, "/nowhere/config.json"),
        ({"init_from": "/nowhere/model"}, "/nowhere/model"),
        ({"freeze_encoder": True}, "`--freeze_encoder` needs `--init_from`"),
        (
            {"disentangling_weight": 0, "face_contrast_weight": 0, "pose_contrast_weight": 0},
            "Every objective's weight is 0",
        ),
        ({"face_temperature": -1}, "^error: `face_temperature` must be"),
        ({"mixing_alpha": -1}, "mixing_alpha"),
        ({"pose_negatives": "own"}, "`pose_negatives` must name some of mirror, geometric, video, batch"),
    ],
)
def test_bad_options_end_in_one_clear_line(monkeypatch, options, changes, message):
    with refused(message):
        train(monkeypatch, options | changes)


def test_a_misspelt_option_is_refused_by_name(monkeypatch, options):
    with refused("--batchsize", status=2):
        train(monkeypatch, options, "--batchsize", "8")


@pytest.mark.slow
@pytest.mark.distributed
def test_two_launched_processes_share_every_batch(options):
    options |= {"steps": 2, "batch_size": 4, "picture_steps": 2}
    launcher = ["-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2", "--main_process_port", "0"]
    words = ["-m", "modeling_pcl.commands.pretrain", *command_line(options, "--sync_batch_norm")]
    command = [sys.executable, *launcher, *words]
    launched = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=240)
    assert launched.returncode == 0, launched.stdout
    record = json.loads((options["output_dir"] / "run.json").read_text())
    assert record["processes"] == 2, launched.stdout
    assert record["images_seen"] == 16
    assert record["steps_per_epoch"] == 5  # 40 images by 2 processes of 4.
    assert launched.stdout.count("The model is in") == 1
    with Image.open(options["output_dir"] / "pictures" / "step-00000002.png") as picture:
        assert picture.width > 500
    AutoModelForPreTraining.from_pretrained(options["output_dir"])


@pytest.fixture(scope="module")
def two_runs(faces, tiny_config, tmp_path_factory) -> Path:
    """Runs of two processes, see `two_pretrainings`."""
    folder = tmp_path_factory.mktemp("two_runs")
    options = OPTIONS | {"corpus": faces, "config": tiny_config, "steps": 4, "batch_size": 4}
    options |= {"save_steps": two_pretrainings.CUT_STEP, "picture_steps": 4}
    arguments = (str(folder), command_line(options, "--sync_batch_norm"))
    child.run_together(two_pretrainings.work, arguments, two_processes.PROCESSES)
    return folder


@pytest.mark.slow
@pytest.mark.distributed
@pytest.mark.parametrize("run", ["fsdp", "ddp-fsdp", "fsdp-ddp"])
def test_shards_change_nothing_from_the_start_or_on_resume_either_way_bit_for_bit(two_runs, run):
    # With two processes: a sum of two does not depend on its order, and half of it is exact.
    assert_same_weights(two_runs / "ddp", two_runs / run)
    record = json.loads((two_runs / run / "run.json").read_text())
    assert record["options"]["fsdp"] is run.endswith("fsdp")
    ours, theirs = (
        torch.load(two_runs / name / "checkpoints/step-00000004/optimizer.pt", weights_only=True)
        for name in ("ddp", run)
    )
    assert ours["scheduler"] == theirs["scheduler"]
    assert ours["optimizer"]["state"].keys() == theirs["optimizer"]["state"].keys()
    for name, state in ours["optimizer"]["state"].items():
        for key, value in state.items():
            assert torch.equal(value, theirs["optimizer"]["state"][name][key]), (name, key)
    picture, expected = (
        np.asarray(Image.open(two_runs / name / "pictures/step-00000004.png")) for name in (run, "ddp")
    )
    assert np.array_equal(picture, expected)


def test_resuming_with_another_number_of_processes_is_refused(monkeypatch, options):
    folder = train(monkeypatch, options | {"steps": 3})
    path = folder / "checkpoints" / "step-00000003" / "state.json"
    state = json.loads(path.read_text()) | {"processes": 2}
    path.write_text(json.dumps({name: value for name, value in state.items() if name not in ("files", "sha256")}))
    with refused("written by 2 processes, this run has 1"):
        train(monkeypatch, options | {"steps": 3}, "--resume")


def test_a_launch_that_would_start_fewer_processes_than_asked_for_is_refused(monkeypatch, options):
    monkeypatch.setenv("ACCELERATE_USE_CPU", "True")
    monkeypatch.setenv("MASTER_PORT", "29500")
    with refused("--multi_gpu --num_processes N"):
        train(monkeypatch, options)


def test_the_finished_model_is_uploaded_without_its_checkpoints(monkeypatch, options, hub):
    monkeypatch.setattr(push, "check_parity", lambda folder: {})  # It opens the folder in a new process.
    folder = train(monkeypatch, options | {"hub_model_id": "user/faces"}, "--push_to_hub")
    files = hub.files("user/faces")
    assert files["model.safetensors"] == (folder / "model.safetensors").read_bytes()
    assert {"config.json", "modeling_pcl.py", "preprocessor_config.json", "run.json"} <= set(files)
    assert not [name for name in files if name.startswith(("checkpoints", "logs", "pictures"))]
    assert "hf download user/faces" in files["README.md"].decode()
    assert str(folder) not in files["run.json"].decode()


def test_a_failed_upload_says_where_the_model_is(monkeypatch, options, hub):
    hub.tokens.clear()
    with refused(r"The Hub does not know who is asking[\s\S]*safe in .*run.*pcl push"):
        train(monkeypatch, options | {"hub_model_id": "user/faces"}, "--push_to_hub")
    assert (options["output_dir"] / "model.safetensors").exists()


def test_a_corpus_of_broken_images_is_told_without_the_traceback_of_a_worker(refused, tmp_path):
    (tmp_path / "faces").mkdir()
    for number in range(8):
        (tmp_path / f"faces/{number}.png").write_bytes(b"no image")
    corpus = ("--corpus", tmp_path / "faces", "--output_dir", tmp_path / "run")
    message = refused("pretrain", *corpus, "--width", 0.05, "--batch_size", 4, "--pose_images", 2, "--num_workers", 1)
    assert "cannot be decoded (no image format that PIL knows)" in message
    assert "Traceback" not in message
