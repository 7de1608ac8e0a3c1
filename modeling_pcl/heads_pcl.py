"""One linear layer on the encoder: classification and head pose."""

from copy import deepcopy

import torch
from torch import nn
from torch.nn import functional as F
from transformers.modeling_outputs import ImageClassifierOutputWithNoAttention
from transformers.utils.generic import can_return_tuple

from .configuration_pcl import PCLConfig
from .encoder_pcl import PCLModel, PCLPreTrainedModel, check_images
from .features_pcl import feature_parts, read_feature
from .head_pose_pcl import ANGLES


class _PCLWithHead(PCLPreTrainedModel):
    """The encoder under one linear layer that reads the feature named by `config.head_feature`.

    A branch that the layer does not read asks for no gradient: of several processes each would wait for it.
    """

    @classmethod
    def from_pretrained(cls, *args, output_loading_info: bool = False, **kwargs):
        # Loading puts other parameters in the place of those that __init__ froze.
        model, loading = super().from_pretrained(*args, output_loading_info=True, **kwargs)
        model._freeze_unread_branches()
        return (model, loading) if output_loading_info else model

    def _freeze_unread_branches(self):
        for name in {"face", "pose"} - set(feature_parts(self.config.head_feature)):
            getattr(self.pcl, f"{name}_branch").requires_grad_(False)

    def _logits(self, head: nn.Linear, pixel_values: torch.Tensor, output_hidden_states: bool | None):
        check_images("pixel_values", pixel_values, self.config.num_channels, self.config.image_size)
        outputs = self.pcl(pixel_values, output_hidden_states=output_hidden_states, return_dict=True)
        return head(read_feature(outputs, self.config.head_feature)), outputs.hidden_states


class PCLForImageClassification(_PCLWithHead):
    """A linear layer on the encoder: one label of several (expression), many at once (action units), a number (age).

    `config.problem_type` selects the loss as everywhere in transformers: `"single_label_classification"`,
    `"multi_label_classification"` or `"regression"` (then several `logits` are an embedding); None infers it from the
    labels.
    """

    _auto_class = "AutoModelForImageClassification"

    def __init__(self, config: PCLConfig):
        super().__init__(config)
        self.num_labels = config.num_labels
        self.pcl = PCLModel(config)
        self.classifier = nn.Linear(config.head_size, config.num_labels)
        self.post_init()
        self._freeze_unread_branches()

    @property
    def pipelines(self) -> dict[str, str]:
        name = "FaceVerificationPipeline" if self.config.is_embedding else "FaceClassificationPipeline"
        return {name: "AutoModelForImageClassification"}

    @can_return_tuple
    def forward(
        self,
        pixel_values: torch.FloatTensor,
        labels: torch.Tensor | None = None,
        output_hidden_states: bool | None = None,
        **kwargs,
    ) -> ImageClassifierOutputWithNoAttention:
        """Classify faces.

        Args:
            pixel_values: `(batch, num_channels, image_size, image_size)`, values in [0, 1].
            labels: `(batch,)` integers for one label, `(batch, num_labels)` floats for many; gives `loss`.
            output_hidden_states: Whether to return the five stages' maps.
            return_dict: False for a plain tuple without the absent entries.

        Returns:
            `logits` `(batch, num_labels)`, before softmax or sigmoid.

        Raises:
            ValueError: If `pixel_values` is not `image_size` px high and wide.
        """
        logits, hidden_states = self._logits(self.classifier, pixel_values, output_hidden_states)
        loss = None if labels is None else self.loss_function(labels, logits, self.config)
        return ImageClassifierOutputWithNoAttention(loss=loss, logits=logits, hidden_states=hidden_states)


class PCLForHeadPoseEstimation(_PCLWithHead):
    """A linear layer on the encoder that gives the three head angles."""

    # transformers has no Auto class for head pose, and its image classification knows regression.
    _auto_class = "AutoModelForImageClassification"

    def __init__(self, config: PCLConfig):
        config = deepcopy(config)  # The caller's may be of another head.
        config.problem_type, config.id2label = "regression", dict(enumerate(ANGLES))
        config.label2id = {angle: number for number, angle in enumerate(ANGLES)}
        super().__init__(config)
        self.pcl = PCLModel(config)
        self.regressor = nn.Linear(config.head_size, 3)
        self.post_init()
        self._freeze_unread_branches()

    @property
    def pipelines(self) -> dict[str, str]:
        return {"HeadPoseEstimationPipeline": "AutoModelForImageClassification"}

    @can_return_tuple
    def forward(
        self,
        pixel_values: torch.FloatTensor,
        labels: torch.FloatTensor | None = None,
        output_hidden_states: bool | None = None,
        **kwargs,
    ) -> ImageClassifierOutputWithNoAttention:
        """Estimate head pose.

        Args:
            pixel_values: `(batch, num_channels, image_size, image_size)`, values in [0, 1].
            labels: `(batch, 3)` yaw, pitch, roll in degrees; gives `loss`, the mean absolute error.
            output_hidden_states: Whether to return the five stages' maps.
            return_dict: False for a plain tuple without the absent entries.

        Returns:
            `logits` `(batch, 3)`: yaw, pitch, roll in degrees.

        Raises:
            ValueError: If `pixel_values` is not `image_size` px high and wide, or `labels` is not `(batch, 3)`.
        """
        logits, hidden_states = self._logits(self.regressor, pixel_values, output_hidden_states)
        if labels is not None and labels.shape != logits.shape:
            raise ValueError(f"`labels` must be {tuple(logits.shape)}: yaw, pitch, roll; got {tuple(labels.shape)}.")
        loss = None if labels is None else F.l1_loss(logits.float(), labels.float())
        return ImageClassifierOutputWithNoAttention(loss=loss, logits=logits, hidden_states=hidden_states)
