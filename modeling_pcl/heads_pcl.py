"""Models with one linear layer on the encoder, for classification and head pose."""

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
    """The encoder with one linear layer that reads the feature `config.head_feature`.

    The parameters of a branch that the layer does not read are frozen: distributed training would otherwise wait for
    gradients that never come.
    """

    @classmethod
    def from_pretrained(cls, *args, output_loading_info: bool = False, **kwargs):
        # Loading replaces the parameters that __init__ froze.
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
    """A linear layer on the encoder for one label (expression), several labels (action units) or a number (age).

    `config.problem_type` selects the loss as in other transformers models: `"single_label_classification"`,
    `"multi_label_classification"` or `"regression"`; None infers it from the labels. With `"regression"` and several
    labels, `logits` is an identity embedding.
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
            labels: `(batch,)` integers for one label, `(batch, num_labels)` floats for several; None computes no loss.
            output_hidden_states: Whether to return the maps of the five stages; None uses the value in the config.
            return_dict: Whether to return an output class instead of a tuple without the entries that are None.

        Returns:
            `logits` `(batch, num_labels)`, before softmax or sigmoid.

        Raises:
            ValueError: If `pixel_values` is not `image_size` px high and wide.
        """
        logits, hidden_states = self._logits(self.classifier, pixel_values, output_hidden_states)
        loss = None if labels is None else self.loss_function(labels, logits, self.config)
        return ImageClassifierOutputWithNoAttention(loss=loss, logits=logits, hidden_states=hidden_states)


class PCLForHeadPoseEstimation(_PCLWithHead):
    """A linear layer on the encoder that estimates yaw, pitch and roll."""

    # transformers has no Auto class for head pose; its image classification includes regression.
    _auto_class = "AutoModelForImageClassification"

    def __init__(self, config: PCLConfig):
        config = deepcopy(config)  # The caller may use the config for another head.
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
            labels: `(batch, 3)` yaw, pitch, roll in degrees; `loss` is then the mean absolute error. None computes no
                loss.
            output_hidden_states: Whether to return the maps of the five stages; None uses the value in the config.
            return_dict: Whether to return an output class instead of a tuple without the entries that are None.

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
