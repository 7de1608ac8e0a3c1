"""Output classes of the PCL models."""

from dataclasses import dataclass

import torch
from transformers.utils import ModelOutput


@dataclass
class PCLModelOutput(ModelOutput):
    """Output of `PCLModel`.

    Args:
        last_hidden_state: Trunk map, `(batch, feature_channels, h, w)`; h and w are the image's sides / 16, rounded up.
        pooler_output: The flattened trunk map, `(batch, feature_channels * h * w)`. It is not averaged over positions.
        face_features: Flattened face-aware features, same shape as `pooler_output`; with `mirror_invariant_face`, the
            mean of those of the image and of its mirror.
        pose_features: Flattened pose-related features, same shape as `pooler_output`.
        hidden_states: Maps after each of the five stages, the trunk map last; None unless they were requested.
    """

    last_hidden_state: torch.FloatTensor | None = None
    pooler_output: torch.FloatTensor | None = None
    face_features: torch.FloatTensor | None = None
    pose_features: torch.FloatTensor | None = None
    hidden_states: tuple[torch.FloatTensor, ...] | None = None


@dataclass
class PCLForPreTrainingOutput(ModelOutput):
    """Output of `PCLForPreTraining`: scalar losses, each None if the inputs of its objective were not given, and maps.

    Args:
        loss: Sum of the computed objectives, each multiplied by its weight in the config.
        disentangling_loss: Objective 1: the four reconstructions plus the weighted orthogonality terms.
        face_contrast_loss: Objective 2, InfoNCE over both views, plus the weighted loss of the turns if there is one.
        pose_contrast_loss: Objective 3, InfoNCE over both views.
        face_pose_loss: L1 distance of the image's face in the image's pose to the image.
        face_mirror_pose_loss: L1 distance of the image's face in the mirror's pose to the mirror.
        mirror_face_pose_loss: L1 distance of the mirror's face in the image's pose to the image.
        mirror_face_mirror_pose_loss: L1 distance of the mirror's face in the mirror's pose to the mirror.
        orthogonality_loss: Orthogonality of the images' features, unweighted.
        mirror_orthogonality_loss: Orthogonality of the mirrors' features, unweighted.
        turn_loss: Mean squared error of the predicted turns between face views, unweighted.
        hidden_states: Maps after each of the encoder's five stages, concatenated over all inputs of the encoder:
            images, their mirrors, face views, pose views, pose negatives; None unless they were requested.
    """

    loss: torch.FloatTensor | None = None
    disentangling_loss: torch.FloatTensor | None = None
    face_contrast_loss: torch.FloatTensor | None = None
    pose_contrast_loss: torch.FloatTensor | None = None
    face_pose_loss: torch.FloatTensor | None = None
    face_mirror_pose_loss: torch.FloatTensor | None = None
    mirror_face_pose_loss: torch.FloatTensor | None = None
    mirror_face_mirror_pose_loss: torch.FloatTensor | None = None
    orthogonality_loss: torch.FloatTensor | None = None
    mirror_orthogonality_loss: torch.FloatTensor | None = None
    turn_loss: torch.FloatTensor | None = None
    hidden_states: tuple[torch.FloatTensor, ...] | None = None
