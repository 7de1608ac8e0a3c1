import functools

import child
import pytest
import tiny
import torch
import two_processes
from torch import nn

from modeling_pcl import PCLForHeadPoseEstimation, PCLForImageClassification, PCLForPreTraining
from modeling_pcl.distributed_pcl import gather_rows, rank, world_size
from modeling_pcl.training.batch_norm import synchronise_batch_norm

# All in float64: what differs is the order of summation, about 1e-15 of the largest summand, which the batch norms'
# division by small deviations and a temperature of 0.07 bring to 1e-12; a bias that a batch norm takes off again has
# nothing else in its gradient. A gradient without the gather's part is wrong by tens of per cent, of about 1.
CLOSE = {"rtol": 1e-9, "atol": 1e-9}


@pytest.fixture(scope="module")
def processes(tmp_path_factory: pytest.TempPathFactory) -> list[dict]:
    """What each of two gloo processes found."""
    folder = tmp_path_factory.mktemp("two_processes")
    child.run_together(two_processes.work, (str(folder),), two_processes.PROCESSES)
    return [torch.load(folder / f"{index}.pt") for index in range(two_processes.PROCESSES)]


@functools.cache
def in_one_process(*objectives: str) -> dict[str, dict[str, torch.Tensor]]:
    """The same on the whole batch, with torch's own batch norms."""
    model = two_processes.pretraining_model()
    outputs = model(**two_processes.inputs(model.config, objectives))
    outputs.loss.backward()
    return two_processes.results(outputs, model)


def mean_over(processes: list[dict], run: str, kind: str) -> dict[str, torch.Tensor]:
    found = [process[run][kind] for process in processes]
    assert found[0].keys() == found[1].keys()
    return {name: torch.stack([values[name] for values in found]).mean(0) for name in found[0]}


@pytest.mark.distributed
def test_gathered_rows_are_those_of_all_processes_in_order(processes):
    expected = torch.cat([process["gather"]["rows"] for process in processes])
    for process in processes:
        torch.testing.assert_close(process["gather"]["gathered"], expected, rtol=0, atol=0)


@pytest.mark.distributed
def test_gradient_of_gathered_rows_comes_from_all_processes(processes):
    # Process r weights the squares by 1 + r, so a row's gradient is 2 * row * (1 + 2) wherever it came from.
    for process in processes:
        torch.testing.assert_close(process["gather"]["gradient"], 6 * process["gather"]["rows"], rtol=0, atol=0)


@pytest.mark.distributed
@pytest.mark.parametrize("objectives", ["face_contrast", "all"])
@pytest.mark.parametrize("share_out", ["unwrapped", "Replicas", "shards", "checkpointed_shards"])
def test_two_processes_find_what_one_finds_on_the_whole_batch(processes, objectives, share_out):
    run = f"{objectives}, {share_out}"
    expected = in_one_process(*(["face_contrast"] if objectives == "face_contrast" else tiny.INPUTS))
    terms = mean_over(processes, run, "terms")
    for name in set(expected["terms"]) - {"orthogonality_loss", "mirror_orthogonality_loss"}:
        torch.testing.assert_close(
            terms[name], expected["terms"][name], **CLOSE, msg=lambda text, n=name: f"{n}: {text}"
        )
    # The loss is a mean over processes, so each process holds a part of the gradient, and their mean is the whole.
    gradients = mean_over(processes, run, "gradients")
    assert expected["gradients"].keys() <= gradients.keys()
    for name, gradient in expected["gradients"].items():
        torch.testing.assert_close(gradients[name], gradient, **CLOSE, msg=lambda text, n=name: f"{n}: {text}")
    for process in processes:
        for name, buffer in expected["buffers"].items():
            torch.testing.assert_close(process[run]["buffers"][name], buffer, **CLOSE)


@pytest.mark.distributed
@pytest.mark.parametrize("objectives", ["face_contrast", "all"])
@pytest.mark.parametrize("share_out", ["Replicas", "shards"])
def test_every_process_ends_with_the_same_gradient(processes, objectives, share_out):
    first, second = (process[f"{objectives}, {share_out}"]["gradients"] for process in processes)
    for name in first:
        torch.testing.assert_close(first[name], second[name], rtol=0, atol=0)


@functools.cache
def stepped_in_one_process(schedule: str) -> dict[str, torch.Tensor]:
    return two_processes.steps(two_processes.unwrapped, *two_processes.SCHEDULES[schedule])


@pytest.mark.distributed
@pytest.mark.parametrize("schedule", two_processes.SCHEDULES)
@pytest.mark.parametrize("share_out", ["Replicas", "shards"])
def test_two_processes_step_to_where_one_does_on_the_whole_batch(processes, schedule, share_out):
    expected = stepped_in_one_process(schedule)
    before = two_processes.pretraining_model().pcl.trunk.stages[0].conv1.weight
    assert (expected["pcl.trunk.stages.0.conv1.weight"] - before).abs().max() > 1e-6
    for process in processes:
        for name, weight in expected.items():
            found = process[f"{schedule}, {share_out}"][name]
            torch.testing.assert_close(found, weight, **CLOSE, msg=lambda text, n=name: f"{n}: {text}")


@functools.cache
def stepped_by_muon() -> dict[str, torch.Tensor]:
    groups = [tuple(two_processes.tiny.INPUTS)]
    return two_processes.steps(two_processes.unwrapped, groups, 1, two_processes.muon, two_processes.MUON_ITERATIONS)


@pytest.mark.distributed
@pytest.mark.parametrize("share_out", ["Replicas", "shards"])
def test_muon_makes_the_same_steps_in_two_processes_as_in_one(processes, share_out):
    for process in processes:
        for name, weight in stepped_by_muon().items():
            # Biases before a batch norm have no gradient but rounding, which Adam brings to the size of its rate.
            if weight.dim() >= 2:
                found = process[f"muon, {share_out}"][name]
                # Orthogonalisation turns the smallest singular values with the rest: rounding grows a thousandfold.
                torch.testing.assert_close(found, weight, rtol=0, atol=1e-7, msg=lambda text, n=name: f"{n}: {text}")


@pytest.mark.distributed
def test_shards_are_halves_and_make_a_whole_model_in_the_main_process(processes):
    expected = two_processes.pretraining_model().state_dict()
    first, second = (process["shards"] for process in processes)
    assert first["local_rows"] + second["local_rows"] == expected["decoder.fc.weight"].shape[0]
    assert abs(first["local_rows"] - second["local_rows"]) <= 1
    assert second["whole"] is None
    assert first["whole"].keys() == expected.keys()
    for name, weight in expected.items():
        assert torch.equal(first["whole"][name], weight)


@pytest.mark.distributed
def test_weights_that_are_not_finite_in_one_shard_stop_every_process(processes):
    for process in processes:
        assert process["shards"]["error"] == "after step 7 the weights `decoder.fc.weight` are not finite"


@pytest.mark.distributed
def test_synchronised_batch_norm_equals_torch_on_all_rows_in_half_precision(processes):
    rows = torch.cat([process["batch_norm"]["rows"] for process in processes])
    norm = nn.BatchNorm2d(3)
    expected = norm(rows)
    trained = torch.cat([process["batch_norm"]["trained"] for process in processes])
    assert trained.dtype == expected.dtype == torch.bfloat16
    torch.testing.assert_close(trained, expected)
    evaluated = torch.cat([process["batch_norm"]["evaluated"] for process in processes])
    torch.testing.assert_close(evaluated, norm.eval()(rows.float()))


def test_one_process_is_rank_0_of_1_and_gathers_its_own_rows():
    rows = torch.randn(3, 2)
    assert (world_size(), rank()) == (1, 0)
    assert gather_rows(rows) is rows


def test_synchronising_keeps_the_names_and_outputs_of_a_single_process(tiny_config):
    inputs = tiny.all_inputs(tiny_config)
    model = PCLForPreTraining(tiny_config).train()
    twin = PCLForPreTraining(tiny_config).train()
    twin.load_state_dict(model.state_dict())
    assert synchronise_batch_norm(twin) is twin
    assert twin.state_dict().keys() == model.state_dict().keys()
    assert not any(type(module) in (nn.BatchNorm1d, nn.BatchNorm2d) for module in twin.modules())
    torch.testing.assert_close(twin(**inputs).loss, model(**inputs).loss)
    for name, buffer in model.named_buffers():
        torch.testing.assert_close(twin.get_buffer(name), buffer)


@pytest.mark.distributed
@pytest.mark.parametrize("is_checkpointed", [False, True], ids=["", "checkpointed"])
@pytest.mark.parametrize("model_class", [PCLForImageClassification, PCLForHeadPoseEstimation])
def test_the_trainer_trains_a_head_in_two_processes_as_in_one(processes, model_class, is_checkpointed, tmp_path):
    expected = two_processes.train_head(model_class, tmp_path, is_checkpointed=False)
    for process in processes:
        found = process[f"{model_class.__name__}, {is_checkpointed}"]
        torch.testing.assert_close(found, expected, **CLOSE)
