"""Pre-train PCL on images of faces. After an interruption, the same command with --resume continues the run.

pcl pretrain --corpus path/to/images --output_dir runs/mine
pcl pretrain --recipe small --width 0.25 --corpus path/to/images --output_dir runs/small
accelerate launch --multi_gpu --num_processes 8 -m modeling_pcl.commands.pretrain --corpus … --output_dir runs/mine
"""

from pathlib import Path

from ..training.options import Options, parse_options
from .main import main


def parse(argv: list[str], prog: str) -> Options:
    return parse_options(argv, prog, __doc__)


def run(options: Options):
    from ..training.run import pretrain

    logging_options, folder = options.logging, Path(options.training.output_dir)
    is_main_process = pretrain(options)
    if is_main_process and logging_options.push_to_hub:
        return push_result(folder, logging_options.hub_model_id, logging_options.hub_private)


def push_result(folder: Path, repo_id: str, private: bool) -> str:
    """Push the finished model as `pcl push` does, without ONNX files.

    Raises:
        ValueError: If the push failed. The message says how to try again.
    """
    from huggingface_hub import HfApi

    from ..hub.arguments import PushArguments
    from ..hub.push import push

    try:
        return push(HfApi(), PushArguments(model=folder, repo_id=repo_id, onnx=False, private=private))
    except (ValueError, OSError) as error:
        advice = f"The model is safe in {folder}; `pcl push {folder} {repo_id}` sends it."
        raise ValueError(f"{error}\n{advice}") from error


if __name__ == "__main__":
    main("pretrain")
