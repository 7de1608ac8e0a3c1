import pytest
import torch
import two_processes

from modeling_pcl import PCLForPreTraining
from modeling_pcl.training.sharding import gather_model, take_launch_request

LAUNCHED = two_processes.shards_of_a_launch()


def test_a_launch_with_shards_is_seen_once_and_kept_from_accelerate():
    environment = dict(LAUNCHED)
    assert take_launch_request(environment)
    assert "ACCELERATE_USE_FSDP" not in environment
    assert not take_launch_request(environment)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("VERSION", "1", "`--fsdp_version` must be 2, got 1"),
        ("RESHARD_AFTER_FORWARD", "false", "`--fsdp_reshard_after_forward` must be true, got false"),
        ("OFFLOAD_PARAMS", "true", "`--fsdp_offload_params` must be false, got true"),
        ("ACTIVATION_CHECKPOINTING", "true", "Give `--gradient_checkpointing true` to this script"),
    ],
)
def test_launch_options_that_are_not_supported_are_refused_by_name(name, value, message):
    with pytest.raises(ValueError, match=message):
        take_launch_request(LAUNCHED | {f"FSDP_{name}": value})


def test_the_whole_model_of_one_process_is_saved_and_opened_as_it_is(tiny_config, tmp_path):
    model = PCLForPreTraining(tiny_config).to(memory_format=torch.channels_last)
    gather_model(model).save_pretrained(tmp_path)
    opened = PCLForPreTraining.from_pretrained(tmp_path)
    for name, tensor in model.state_dict().items():
        assert torch.equal(opened.state_dict()[name], tensor)
