"""The PCL encoder and the base class of all PCL models."""

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
from .pipelines_pcl import describe_pipelines

GENERATED_CARD = "This model card has been automatically generated"  # A sentence of the card that transformers writes.


class PCLPreTrainedModel(PreTrainedModel):
    """Base class of all PCL models: weight initialisation, loading and saving."""

    config_class = PCLConfig
    base_model_prefix = "pcl"
    main_input_name = "pixel_values"
    input_modalities = ("image",)
    supports_gradient_checkpointing = True
    # The losses are means over a batch. Because `forward` takes `**kwargs`, the Trainer would otherwise assume that
    # they are already divided by the number of items in all micro-batches and processes, and its gradients would be
    # too large by the number of micro-batches and processes.
    accepts_loss_kwargs = False
    _no_split_modules = ["PCLStage", "PCLBranch", "PCLProjectionHead", "PCLDecoder"]

    @property
    def pipelines(self) -> dict[str, str]:
        """Auto class that opens a saved folder, for each pipeline class of `pipelines_pcl` that the folder offers."""
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
        """Load a model as transformers does, and check the shapes and values of its weights.

        Raises:
            ValueError: If a tensor has another shape than the config says (unless `ignore_mismatched_sizes`), or holds
                values that are not finite. The message names the first such tensor.
        """
        name = pretrained_model_name_or_path
        # Mismatched shapes are reported below, because the error of transformers does not name them.
        loading_options = {"output_loading_info": True, "ignore_mismatched_sizes": True}
        model, loading = super().from_pretrained(name, *arguments, **loading_options, **options)
        if loading["mismatched_keys"] and not ignore_mismatched_sizes:
            tensor, shape, expected_shape = sorted(loading["mismatched_keys"])[0]
            raise ValueError(f"`{tensor}` of {name} is {tuple(shape)}, and by its config {tuple(expected_shape)}.")
        for tensor, values in model.state_dict().items():
            if values.is_floating_point() and not values.is_meta and not values.isfinite().all():
                raise ValueError(f"the weights `{tensor}` of {name} are not finite.")
        model.config.custom_pipelines = {}  # They describe the folder; `save_pretrained` writes them for the new one.
        return (model, loading) if output_loading_info else model

    def save_pretrained(self, save_directory, **kwargs):
        """Save the model as transformers does, with the pipelines that it supports in its config."""
        original = self.config.custom_pipelines
        self.config.custom_pipelines = describe_pipelines(**self.pipelines)
        try:
            return super().save_pretrained(save_directory, **kwargs)
        finally:
            self.config.custom_pipelines = original

    def _set_gradient_checkpointing(self, enable: bool = True, gradient_checkpointing_func=checkpoint, **options):
        """Enable gradient checkpointing as transformers does, but only with `use_reentrant=False`.

        Raises:
            ValueError: For `use_reentrant=True`. A reentrant checkpoint only passes a gradient on if its input requires
                one, and pixels do not.
        """
        # An absent `use_reentrant` counts as True, as in torch's checkpoint.
        if enable and getattr(gradient_checkpointing_func, "keywords", {}).get("use_reentrant") is not False:
            raise ValueError(
                "`use_reentrant` must be False: with True no gradient would reach the encoder. Leave "
                '`gradient_checkpointing_kwargs` out, or give {"use_reentrant": False}.'
            )
        super()._set_gradient_checkpointing(enable, gradient_checkpointing_func, **options)

    def _upload_modified_files(self, working_dir: str, repo_id: str, *arguments, **options):
        """Upload as transformers does, with this package's model card in place of the generated one.

        A card that a person wrote is kept.
        """
        folder = Path(working_dir)
        if GENERATED_CARD in (folder / "README.md").read_text(encoding="utf-8"):
            # An entry point and not an import: this file is also remote code, where the card writer does not exist.
            for writer in entry_points(group="modeling_pcl", name="write_card"):
                writer.load()(folder, repo_id, self)
        return super()._upload_modified_files(working_dir, repo_id, *arguments, **options)

    @torch.no_grad()
    def _init_weights(self, module: nn.Module):
        """Initialise heads and decoder with torch's defaults, as the authors do."""
        # transformers would overwrite linear layers and convolutions with N(0, 0.02).
        if isinstance(module, (nn.Linear, nn.Conv2d)):
            init.kaiming_uniform_(module.weight, a=math.sqrt(5))
            bound = 1 / math.sqrt(module.weight[0].numel())
            if module.bias is not None:
                init.uniform_(module.bias, -bound, bound)
        elif isinstance(module, (nn.BatchNorm1d, nn.BatchNorm2d)):
            # Buffers too: `from_pretrained` builds the model on the meta device, where they have no values.
            init.ones_(module.weight)
            init.zeros_(module.bias)
            init.zeros_(module.running_mean)
            init.ones_(module.running_var)
            init.zeros_(module.num_batches_tracked)


def check_images(name: str, images: torch.Tensor, channels: int, size_px: int | None = None, axes: int = 4):
    """Check that images can be encoded.

    Args:
        name: Name of the argument in the error message.
        images: `(batch, channels, height, width)`, or `(images, K, channels, height, width)` with `axes=5`.
        channels: Expected number of channels.
        size_px: Expected height and width, in px; None allows any size from 32 px.
        axes: Expected number of axes, 4 or 5.

    Raises:
        ValueError: If the shape or the dtype is not as expected.
    """
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
    """Base class of models that consist of the encoder only, with its published initialisation."""

    # A pre-training checkpoint then opens without a warning about the parts that the encoder does not have.
    _keys_to_ignore_on_load_unexpected = [r"^(face_projection|pose_projection|decoder|classifier|regressor)\."]

    @torch.no_grad()
    def _init_weights(self, module: nn.Module):
        """Initialise convolutions with N(0, 2 / (k * k * out_channels)) and zero bias, as the authors do."""
        if isinstance(module, nn.Conv2d):
            fan_out = module.kernel_size[0] * module.kernel_size[1] * module.out_channels
            init.normal_(module.weight, mean=0.0, std=math.sqrt(2 / fan_out))
            init.zeros_(module.bias)


class PCLModel(PCLEncoderPreTrainedModel):
    """The PCL encoder: a trunk with a face-aware and a pose-related branch on top of it.

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
        self,
        pixel_values: torch.FloatTensor,
        output_hidden_states: bool | None = None,
        mirror_invariant_face: bool | None = None,
        **kwargs,
    ) -> PCLModelOutput:
        """Encode faces.

        Args:
            pixel_values: `(batch, num_channels, height, width)`, values in [0, 1] without mean and standard deviation
                normalisation, any size from 32 px, as `PCLImageProcessor` returns them.
            output_hidden_states: Whether to return the maps of the five stages; None uses the value in the config.
            mirror_invariant_face: Whether `face_features` is the mean over the image and its mirror; None uses the
                value in the config.
            return_dict: Whether to return a `PCLModelOutput` instead of a tuple without the entries that are None.

        Raises:
            ValueError: If `pixel_values` has another number of axes or channels, a side below 32 px, or is not
                floating point.
        """
        check_images("pixel_values", pixel_values, self.config.num_channels)
        if output_hidden_states is None:
            output_hidden_states = self.config.output_hidden_states
        if mirror_invariant_face is None:
            mirror_invariant_face = self.config.mirror_invariant_face
        # The processor returns float32, also for models that were loaded in half precision.
        images = pixel_values.to(self.dtype)
        if mirror_invariant_face:
            images = torch.cat([images, images.flip(3)])
        hidden_states = self.trunk(images)
        face_features = self.face_branch(hidden_states[-1]).flatten(1)
        if mirror_invariant_face:
            batch = pixel_values.shape[0]  # By slices: `chunk` would fix the batch in exported models.
            face_features = (face_features[:batch] + face_features[batch:]) / 2
            hidden_states = tuple(state[:batch] for state in hidden_states)
        trunk = hidden_states[-1]
        return PCLModelOutput(
            last_hidden_state=trunk,
            pooler_output=trunk.flatten(1),  # (batch, 128, 4, 4) -> (batch, 2048)
            face_features=face_features,
            pose_features=self.pose_branch(trunk).flatten(1),
            hidden_states=hidden_states if output_hidden_states else None,
        )


class PCLBackbone(BackboneMixin, PCLEncoderPreTrainedModel):
    """The trunk as a backbone for detectors and similar models, returning the feature maps of chosen stages.

    `config.out_features` names the stages, from `config.stage_names`, and `config.out_indices` gives their indices:
    `stem` and `stage1` have 1/2 of the image's side, `stage2` 1/4, `stage3` 1/8 and `stage4`, the trunk map, 1/16.
    A saved folder of any PCL model can be opened as a backbone.

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
        """Compute feature maps.

        Args:
            pixel_values: `(batch, num_channels, height, width)`, as for `PCLModel`.
            output_hidden_states: Whether to also return the maps of all five stages; None uses the value in the config.
            return_dict: Whether to return a `BackboneOutput` instead of a tuple without the entries that are None.

        Raises:
            ValueError: As for `PCLModel`.
        """
        check_images("pixel_values", pixel_values, self.config.num_channels)
        hidden_states = self.trunk(pixel_values.to(self.dtype))
        maps = dict(zip(self.stage_names, hidden_states))
        return BackboneOutput(feature_maps=tuple(maps[name] for name in self.out_features), hidden_states=hidden_states)
