"""Build a repository from a run, check that it opens without this package, and push it to the Hub in one commit:

    pcl push runs/mine user/pcl --license cc-by-nc-4.0 --training_data voxceleb

MODEL is a folder that `pcl pretrain` or `pcl probe` wrote. The command writes weights, config, code, image processor,
card, results, ONNX files, parity tensors and a handler for Inference Endpoints to its folder `repository`, and makes
the files on the Hub equal to that folder; `--dry_run` only shows what would change. A second push without changes
makes no commit. Log in with `hf auth login`, or set HF_TOKEN.
"""

from ..hub.arguments import PushArguments
from ..options import Parser
from .main import main


def parse(argv: list[str], prog: str) -> PushArguments:
    (arguments,) = Parser(PushArguments, prog=prog, description=__doc__).parse_args_into_dataclasses(argv)
    return arguments


def run(arguments: PushArguments) -> str:
    from huggingface_hub import HfApi

    from ..hub.push import push

    return push(HfApi(), arguments)


if __name__ == "__main__":
    main("push")
