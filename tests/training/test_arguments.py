import pytest

from modeling_pcl.training.arguments import LoggingArguments, TrainingArguments, check_arguments


@pytest.mark.parametrize(
    ("training", "logging", "name"),
    [
        ({"steps": 0}, {}, "steps"),
        ({"batch_size": 0}, {}, "batch_size"),
        ({"steps_per_epoch": 0}, {}, "steps_per_epoch"),
        ({"learning_rate": 0.0}, {}, "learning_rate"),
        ({"steps": 5, "warmup_steps": 5}, {}, "warmup_steps"),
        ({"adam_learning_rate": -1.0}, {}, "adam_learning_rate"),
        ({"steps": 9, "warmup_steps": 5, "decay_steps": 5}, {}, "decay_steps"),
        ({"decay_steps": 5}, {}, "decay_steps"),
        ({}, {"save_total_limit": 0}, "save_total_limit"),
        ({}, {"push_to_hub": True}, "hub_model_id"),
    ],
)
def test_values_that_no_run_can_have_are_refused_by_name(training, logging, name):
    with pytest.raises(ValueError, match=f"`--{name}"):
        check_arguments(TrainingArguments(**training), LoggingArguments(**logging))


def test_the_defaults_are_accepted():
    check_arguments(TrainingArguments(), LoggingArguments())
