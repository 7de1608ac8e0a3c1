import pytest

from modeling_pcl.training.arguments import LoggingArguments, ModelArguments, TrainingArguments, check_arguments
from modeling_pcl.training.options import parse_options

NAN, INFINITY = float("nan"), float("inf")


@pytest.mark.parametrize(
    ("training", "logging", "name"),
    [
        ({"steps": 0}, {}, "steps"),
        ({"batch_size": 1}, {}, "batch_size"),
        ({"learning_rate": INFINITY}, {}, "learning_rate"),
        ({"learning_rate": NAN}, {}, "learning_rate"),
        ({"weight_decay": -0.1}, {}, "weight_decay"),
        ({"max_grad_norm": NAN}, {}, "max_grad_norm"),
        ({"seed": -1}, {}, "seed"),
        ({"seed": 2**32}, {}, "seed"),
        ({}, {"save_steps": -1}, "save_steps"),
        ({}, {"logging_steps": 0}, "logging_steps"),
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
        check_arguments(ModelArguments(), TrainingArguments(**training), LoggingArguments(**logging))


@pytest.mark.parametrize("width", [0.0, -1.0, NAN, INFINITY])
def test_a_width_is_a_positive_number(width):
    with pytest.raises(ValueError, match="`--width` must be a positive number"):
        check_arguments(ModelArguments(width=width), TrainingArguments(), LoggingArguments())


def test_the_defaults_are_accepted():
    check_arguments(ModelArguments(), TrainingArguments(), LoggingArguments())


@pytest.mark.parametrize(
    ("words", "warmup"), [("--steps 450", 40), ("--steps 10", 5), ("--steps 9 --warmup_steps 7", 7)]
)
def test_a_short_run_by_a_recipe_is_warmed_up_for_half_of_it(words, warmup):
    assert parse_options(["--recipe", "small", *words.split()]).training.warmup_steps == warmup
