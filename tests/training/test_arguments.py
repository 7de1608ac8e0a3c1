import pytest

from modeling_pcl.training.arguments import (
    CorpusArguments,
    LoggingArguments,
    ModelArguments,
    TrainingArguments,
    check_arguments,
)
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
        check_arguments(CorpusArguments(), ModelArguments(), TrainingArguments(**training), LoggingArguments(**logging))


@pytest.mark.parametrize("option", ["width", "max_grad_norm", "adam_learning_rate"])
@pytest.mark.parametrize("value", ["0", "-1", "nan", "inf"])
def test_factors_and_rates_are_positive_numbers(option, value):
    with pytest.raises(ValueError, match=f"`--{option}` must be a positive number"):
        parse_options([f"--{option}={value}"])


@pytest.mark.parametrize("option", ["load_size_px=0", "num_workers=-1"])
def test_how_a_corpus_is_read_is_checked_before_it_is_opened(option):
    with pytest.raises(ValueError, match=f"`--{option.partition('=')[0]}` must be at least"):
        parse_options([f"--{option}", "--corpus=/nowhere"])


def test_the_defaults_are_accepted():
    parse_options([])


@pytest.mark.parametrize(
    ("words", "warmup"), [("--steps 450", 40), ("--steps 10", 5), ("--steps 9 --warmup_steps 7", 7)]
)
def test_a_short_run_by_a_recipe_is_warmed_up_for_half_of_it(words, warmup):
    assert parse_options(["--recipe", "small", *words.split()]).training.warmup_steps == warmup
