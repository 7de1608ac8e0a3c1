"""The optimizers of a run: Adam as published, AdamW, and Muon, with which an encoder without norms learns early."""

from collections import defaultdict
from collections.abc import Sequence

import torch
from torch import nn
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.optim.adam import adam

from ..decoder_pcl import PCLDecoder

MOMENTUM = 0.95
NEWTON_SCHULZ_STEPS = 5
NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)  # As steep at 0 as five steps allow; singular values end in about [0.7, 1.2].
ADAM_BETAS, ADAM_EPS = (0.9, 0.95), 1e-8


def make_optimizer(
    model: nn.Module, name: str, learning_rate: float, weight_decay: float, adam_learning_rate: float = 1e-3
) -> torch.optim.Optimizer:
    """Make the optimizer of a model's trained parameters.

    Args:
        model: Its parameters with `requires_grad` are trained.
        name: `"adam"`, as published, with L2 decay; `"adamw"`, with decoupled decay; or `"muon"`.
        learning_rate: Of all parameters; with Muon, of the weights of convolutions and linear layers.
        weight_decay: Likewise.
        adam_learning_rate: With Muon, of biases, norms, and the decoder's last convolution.

    Raises:
        ValueError: If there is no optimizer of this name.
    """
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    if name == "adam":
        return torch.optim.Adam(parameters, lr=learning_rate, weight_decay=weight_decay, fused=True)
    if name == "adamw":
        return torch.optim.AdamW(parameters, lr=learning_rate, weight_decay=weight_decay, fused=True)
    if name == "muon":
        # With steps of Muon's length its outputs leave the reach of tanh: whole patches stay one colour.
        drawing = [module.blocks[-1].conv.weight for module in model.modules() if isinstance(module, PCLDecoder)]
        return Muon(parameters, learning_rate, weight_decay, adam_learning_rate, drawing)
    raise ValueError(f'`optimizer` must be "adam", "adamw" or "muon", got {name!r}.')


class Muon(torch.optim.Optimizer):
    """Momentum whose matrices are made orthogonal, for weights; Adam for biases, norms and weights that are named.

    A convolution's weight counts as the matrix `(out, in * k * k)`. Its update is the Nesterov momentum of the gradient
    with all singular values brought close to 1, times sqrt(max(1, rows / columns)).

    torch's own Muon is not used: it takes matrices only, knows neither shards nor Adam for the rest, and orthogonalises
    in bfloat16, 1 % off in every update; here it is the float type of the weights. On one CPU core bfloat16 halves the
    40 ms of a 512 x 512 matrix, but takes half as long again as float32 for one of 64 x 288.

    Args:
        parameters: All that are trained. Of two axes and more they are weights, of fewer biases and norms; those in
            shards are put together for the update, which needs the whole matrix.
        learning_rate: Of weights, positive.
        weight_decay: Of weights, decoupled, at least 0.
        adam_learning_rate: Of biases, norms and `by_adam`, which do not decay.
        by_adam: Weights among `parameters` that Adam trains.

    Source:
        Jordan et al. 2024, Muon: an optimizer for hidden layers in neural networks.
    """

    def __init__(
        self,
        parameters: list[nn.Parameter],
        learning_rate: float,
        weight_decay: float = 0.0,
        adam_learning_rate: float = 1e-3,
        by_adam: Sequence[nn.Parameter] = (),
    ):
        named = set(by_adam)
        weights = [parameter for parameter in parameters if parameter.dim() >= 2 and parameter not in named]
        others = [parameter for parameter in parameters if parameter.dim() < 2 or parameter in named]
        groups = [
            {"params": weights, "lr": learning_rate, "weight_decay": weight_decay, "method": "muon"},
            {"params": others, "lr": adam_learning_rate, "weight_decay": 0.0, "method": "adam"},
        ]
        super().__init__([group for group in groups if group["params"]], {"lr": learning_rate})

    @torch.no_grad()
    def step(self, closure=None):
        """Make one step; parameters without a gradient stay."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            trained = [parameter for parameter in group["params"] if parameter.grad is not None]
            if trained:
                (self._step_weights if group["method"] == "muon" else self._step_others)(trained, group)
        return loss

    def _step_weights(self, weights: list[nn.Parameter], group: dict):
        # Weights of one shape share their products: of the small ones, a fifth less time than one by one.
        of_one_shape = defaultdict(list)
        for weight in weights:
            of_one_shape[tuple(weight.shape)].append(weight)
        for alike in of_one_shape.values():
            matrices = torch.stack([self._nesterov(weight) for weight in alike])  # (weights, rows, columns)
            rows, columns = matrices.shape[1:]
            rate = group["lr"] * max(1, rows / columns) ** 0.5
            for weight, update in zip(alike, orthogonalise(matrices)):
                weight.mul_(1 - group["lr"] * group["weight_decay"])
                weight.add_(_like(weight, update), alpha=-rate)

    def _nesterov(self, weight: nn.Parameter) -> torch.Tensor:
        """Add the gradient to the momentum, and look one step ahead; the whole matrix, `(rows, columns)`."""
        state = self.state[weight]
        if not state:
            state["momentum"] = torch.zeros_like(weight)
        momentum = state["momentum"].mul_(MOMENTUM).add_(weight.grad)
        ahead = momentum.mul(MOMENTUM).add_(weight.grad)
        return (ahead.full_tensor() if isinstance(ahead, DTensor) else ahead).flatten(1)

    def _step_others(self, parameters: list[nn.Parameter], group: dict):
        states = [self.state[parameter] for parameter in parameters]
        for parameter, state in zip(parameters, states):
            if not state:
                state["step"] = torch.zeros(())
                state["exp_avg"], state["exp_avg_sq"] = torch.zeros_like(parameter), torch.zeros_like(parameter)
        averages, squares, steps = ([state[name] for state in states] for name in ("exp_avg", "exp_avg_sq", "step"))
        adam(
            parameters,
            [parameter.grad for parameter in parameters],
            averages,
            squares,
            [],
            steps,
            amsgrad=False,
            beta1=ADAM_BETAS[0],
            beta2=ADAM_BETAS[1],
            lr=group["lr"],
            weight_decay=group["weight_decay"],
            eps=ADAM_EPS,
            maximize=False,
        )


def orthogonalise(matrices: torch.Tensor) -> torch.Tensor:
    """Bring the singular values of matrices close to 1, by Newton-Schulz steps of the fifth order.

    Args:
        matrices: `(count, rows, columns)`, float.

    Returns:
        As `matrices`; where these are zero, zeros.
    """
    is_tall = matrices.shape[1] > matrices.shape[2]
    wide = matrices.mT if is_tall else matrices  # The products below are of the shorter side.
    # The iteration converges for singular values in (0, sqrt(3)); divided by the Frobenius norm they are at most 1.
    wide = wide / wide.norm(dim=(1, 2), keepdim=True).clamp_min(1e-12)
    first, third, fifth = NEWTON_SCHULZ
    for _ in range(NEWTON_SCHULZ_STEPS):
        gram = wide @ wide.mT
        wide = torch.baddbmm(wide, torch.baddbmm(gram, gram, gram, beta=third, alpha=fifth), wide, beta=first)
    return wide.mT if is_tall else wide


def _like(weight: nn.Parameter, matrix: torch.Tensor) -> torch.Tensor:
    """A whole matrix in the shape of a weight, and in its shards."""
    full_matrix = matrix.reshape(weight.shape)
    if not isinstance(weight, DTensor):
        return full_matrix
    # Every process has computed the whole, so that none has to send it.
    return distribute_tensor(full_matrix, weight.device_mesh, weight.placements, src_data_rank=None)
