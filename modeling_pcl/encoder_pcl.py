"""The PCL encoder, and what all PCL models share: initialisation, saving, the check of images."""

import math
from importlib.metadata import entry_points
from pathlib import Path

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedModel
from transformers import initialization as init
from transformers.backbone_utils import BackboneMixin, filter_output_hidden_states
from transformers.modeling_outputs import BackboneOutput
from transformers.utils.generic import can_return_tuple

from .backbone_pcl import PCLBranch, PCLTrunk
from .configuration_pcl import SMALLEST_PX, PCLConfig
from .outputs_pcl import PCLModelOutput
from .pipelines_pcl import saved_pipelines

GENERATED_CARD = "This model card has been automatically generated"  # By transformers, in its own.


class PCLPreTrainedModel(PreTrainedModel):
    """Weight initialisation and loading, common to all PCL models."""

    config_class = PCLConfig
    base_model_prefix = "pcl"
    main_input_name = "pixel_values"
    input_modalities = ("image",)
    supports_gradient_checkpointing = True
    # Losses are means over a batch. From `**kwargs` in `forward` the Trainer would conclude that they are shares of one
    # sum over all micro-batches and processes, and train with gradients that many times too large.
    accepts_loss_kwargs = False
    _no_split_modules = ["PCLStage", "PCLBranch", "PCLProjectionHead", "PCLDecoder"]

    @property
    def pipelines(self) -> dict[str, str]:
        """Pipelines of `pipelines_pcl` that a saved folder offers: the Auto class that opens it, by their names."""
        return {}

    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path,
        *arguments,
        output_loading_info: bool = False,
        ignore_mismatched_sizes: bool = False,
        **options,
    ):
        """transformers' own, but that weights which are not finite do not open: all that they compute would be NaN.

        Raises:
            ValueError: Naming the first such tensor, or the first whose shape is not the config's.
        """
        name = pretrained_model_name_or_path
        # transformers' own error for other shapes does not name them.
        asked = {"output_loading_info": True, "ignore_mismatched_sizes": True}
        model, loading = super().from_pretrained(name, *arguments, **asked, **options)
        if loading["mismatched_keys"] and not ignore_mismatched_sizes:
            tensor, found, expected = sorted(loading["mismatched_keys"])[0]
            raise ValueError(f"`{tensor}` of {name} is {tuple(found)}, and by its config {tuple(expected)}.")
        for tensor, values in model.state_dict().items():
            if values.is_floating_point() and not values.is_meta and not values.isfinite().all():
                raise ValueError(f"the weights `{tensor}` of {name} are not finite.")
        model.config.custom_pipelines = {}  # What it says of them is of the folder, and not of this model.
        return (model, loading) if output_loading_info else model

    def save_pretrained(self, save_directory, **kwargs):
        """transformers' own, with the pipelines that the model can do."""
        before = self.config.custom_pipelines
        self.config.custom_pipelines = saved_pipelines(**self.pipelines)
        try:
            return super().save_pretrained(save_directory, **kwargs)
        finally:
            self.config.custom_pipelines = before

    def _set_gradient_checkpointing(self, enable: bool = True, gradient_checkpointing_func=checkpoint, **options):
        """transformers' own, for checkpoints through which a gradient reaches the encoder.

        Raises:
            ValueError: For `use_reentrant=True`: such a checkpoint passes a gradient on only where its input asks for
                one, and pixels do not.
        """
        # Of torch's checkpoint, None means True.
        if enable and getattr(gradient_checkpointing_func, "keywords", {}).get("use_reentrant") is not False:
            raise ValueError(
                "`use_reentrant` must be False: with True no gradient would reach the encoder. Leave "
                '`gradient_checkpointing_kwargs` out, or give {"use_reentrant": False}.'
            )
        super()._set_gradient_checkpointing(enable, gradient_checkpointing_func, **options)

    def _upload_modified_files(self, working_dir: str, repo_id: str, *arguments, **options):
        """transformers' own, with a card of what the model is, unless somebody has written the repository's."""
        folder = Path(working_dir)
        if GENERATED_CARD in (folder / "README.md").read_text(encoding="utf-8"):
            # The package's, where it is installed; weights alone have no card to write.
            for writer in entry_points(group="modeling_pcl", name="write_card"):
                writer.load()(folder, repo_id, self)
        return super()._upload_modified_files(working_dir, repo_id, *arguments, **options)

    @torch.no_grad()
    def _init_weights(self, module: nn.Module):
        """Heads and decoder: torch's defaults."""
        if isinstance(module, (nn.Linear, nn.Conv2d)):
            init.kaiming_uniform_(module.weight, a=math.sqrt(5))
            bound = 1 / math.sqrt(module.weight[0].numel())
            init.uniform_(module.bias, -bound, bound)
        elif isinstance(module, (nn.BatchNorm1d, nn.BatchNorm2d)):
            init.ones_(module.weight)
            init.zeros_(module.bias)
            init.zeros_(module.running_mean)
            init.ones_(module.running_var)
            init.zeros_(module.num_batches_tracked)


def check_images(name: str, images: torch.Tensor, channels: int, size_px: int | None = None, axes: int = 4):
    """Refuse what the encoder cannot read, or, with `size_px`, the linear layers behind its flattened maps."""
    is_sized = size_px is None or images.shape[-2:] == (size_px, size_px)
    if images.dim() != axes or images.shape[-3] != channels or not is_sized:
        sides = "height, width" if size_px is None else f"{size_px}, {size_px}"
        raise ValueError(
            f"`{name}` must be ({'batch' if axes == 4 else 'images, K'}, {channels}, {sides}), got "
            f"{tuple(images.shape)}; PCLImageProcessor makes it from images, and `image_size` builds the model for "
            "another size."
        )
    if min(images.shape[-2:]) < SMALLEST_PX:
        raise ValueError(
            f"`{name}` must be at least {SMALLEST_PX} px high and wide, got {images.shape[-2]} x {images.shape[-1]} px."
        )
    if not images.is_floating_point():
        raise ValueError(
            f"`{name}` must be floating point in [0, 1], got {images.dtype}; PCLImageProcessor makes it from images."
        )


class PCLEncoderPreTrainedModel(PCLPreTrainedModel):
    """What is encoder and nothing else: its convolutions start as published."""

    # A pre-training checkpoint opens without a warning about the parts that the encoder does not have.
    _keys_to_ignore_on_load_unexpected = [r"^(face_projection|pose_projection|decoder|classifier|regressor)\."]

    @torch.no_grad()
    def _init_weights(self, module: nn.Module):
        """Convolutions: N(0, 2 / (k * k * out_channels)) and zero bias."""
        if isinstance(module, nn.Conv2d):
            fan_out = module.kernel_size[0] * module.kernel_size[1] * module.out_channels
            init.normal_(module.weight, mean=0.0, std=math.sqrt(2 / fan_out))
            init.zeros_(module.bias)


class PCLModel(PCLEncoderPreTrainedModel):
    """The PCL encoder: one trunk, and on it a face-aware and a pose-related branch.

    Example:
        ```python
        >>> from modeling_pcl import PCLConfig, PCLModel
        >>> import torch
        >>> PCLModel(PCLConfig())(torch.rand(1, 3, 64, 64)).face_features.shape
        torch.Size([1, 2048])
        ```
    """

    _auto_class = "AutoModel"

    def __init__(self, config: PCLConfig):
        super().__init__(config)
        self.trunk = PCLTrunk(config)
        self.face_branch = PCLBranch(config)
        self.pose_branch = PCLBranch(config)
        self.post_init()

    @property
    def pipelines(self) -> dict[str, str]:
        return {"FaceFeatureExtractionPipeline": "AutoModel", "FaceVerificationPipeline": "AutoModel"}

    @can_return_tuple
    def forward(
        self, pixel_values: torch.FloatTensor, output_hidden_states: bool | None = None, **kwargs
    ) -> PCLModelOutput:
        """Encode faces.

        Args:
            pixel_values: `(batch, num_channels, height, width)`, values in [0, 1], no mean or std taken off; any size
                from 32 px, as `PCLImageProcessor` makes them.
            output_hidden_states: Whether to return the five stages' maps; None takes the config's word.
            return_dict: False for a plain tuple without the absent entries.

        Raises:
            ValueError: If `pixel_values` has another number of axes or channels, fewer than 32 px, or is not floating
                point.
        """
        check_images("pixel_values", pixel_values, self.config.num_channels)
        if output_hidden_states is None:
            output_hidden_states = self.config.output_hidden_states
        # Models loaded in half precision take the float32 that the processor gives.
        hidden_states = self.trunk(pixel_values.to(self.dtype))
        trunk = hidden_states[-1]
        return PCLModelOutput(
            last_hidden_state=trunk,
            pooler_output=trunk.flatten(1),  # (batch, 128, 4, 4) -> (batch, 2048)
            face_features=self.face_branch(trunk).flatten(1),
            pose_features=self.pose_branch(trunk).flatten(1),
            hidden_states=hidden_states if output_hidden_states else None,
        )


class PCLBackbone(BackboneMixin, PCLEncoderPreTrainedModel):
    """The trunk as a backbone for detectors and the like: the feature maps of the stages that are asked for.

    `config.out_features` names them, out of `config.stage_names`, as ResNet's does; `config.out_indices` counts them:
    `stem` and `stage1` at 1/2 of the image's side, `stage2` at 1/4, `stage3` at 1/8, `stage4`, the trunk map, at 1/16.
    A folder of any PCL model opens as one.

    Example:
        ```python
        >>> from modeling_pcl import PCLBackbone, PCLConfig
        >>> import torch
        >>> backbone = PCLBackbone(PCLConfig(out_features=["stage2", "stage4"]))
        >>> [tuple(features.shape) for features in backbone(torch.rand(1, 3, 64, 64)).feature_maps]
        [(1, 128, 16, 16), (1, 128, 4, 4)]
        ```
    """

    _auto_class = "AutoBackbone"
    _keys_to_ignore_on_load_unexpected = [
        *PCLEncoderPreTrainedModel._keys_to_ignore_on_load_unexpected,
        r"^(pcl\.)?(face_branch|pose_branch)\.",
    ]
    has_attentions = False

    def __init__(self, config: PCLConfig):
        super().__init__(config)
        half, quarter, eighth, _ = config.hidden_sizes
        self.num_features = [half, half, quarter, eighth, config.feature_channels]
        self.trunk = PCLTrunk(config)
        self.post_init()

    @can_return_tuple
    @filter_output_hidden_states
    def forward(
        self, pixel_values: torch.FloatTensor, output_hidden_states: bool | None = None, **kwargs
    ) -> BackboneOutput:
        """Compute the feature maps of faces.

        Args:
            pixel_values: `(batch, num_channels, height, width)`, as for `PCLModel`.
            output_hidden_states: Whether to return all five stages' maps too; None takes the config's word.
            return_dict: False for a plain tuple without the absent entries.

        Raises:
            ValueError: If `pixel_values` is not what `PCLModel` reads.
        """
        check_images("pixel_values", pixel_values, self.config.num_channels)
        hidden_states = self.trunk(pixel_values.to(self.dtype))
        maps = dict(zip(self.stage_names, hidden_states))
        return BackboneOutput(feature_maps=tuple(maps[name] for name in self.out_features), hidden_states=hidden_states)
