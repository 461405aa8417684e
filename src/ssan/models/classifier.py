"""The classifier of temporal segment networks (Wang et al., ECCV 2016): frame scores, averaged."""

import torch
from torch import Tensor, nn

from ssan.video.transforms import normalise


class Classifier(nn.Module):
    """A backbone over frames, dropout, a linear layer, and the mean of the frames' scores (SSAN, section 3.3).

    :param backbone: maps (b, t, 3, h, w) to (b, t, num_features) and has ``num_features``.
    :param num_classes: k.
    :param dropout: share of the features dropped in training; section 4.2 uses 0.5.
    """

    def __init__(self, backbone: nn.Module, num_classes: int, *, dropout: float = 0.5) -> None:
        super().__init__()
        self.backbone = backbone
        self.dropout = nn.Dropout(dropout)
        num_features: int = backbone.num_features  # type: ignore[assignment]
        self.fc = nn.Linear(num_features, num_classes)
        # TSN's code, and TSM's after it, start the new layer near zero, so that the first steps move the rest little.
        nn.init.normal_(self.fc.weight, std=0.001)
        nn.init.zeros_(self.fc.bias)

    def frame_scores(self, clips: Tensor) -> Tensor:
        """Clips (b, t, 3, h, w) to the logits of each frame (b, t, k).

        Pixels of type uint8 are normalised here, on the device; floating-point ones count as normalised already.
        """
        if clips.dtype == torch.uint8:
            clips = normalise(clips)
        return self.fc(self.dropout(self.backbone(clips)))

    def forward(self, clips: Tensor) -> Tensor:
        """Clips (b, t, 3, h, w) to logits (b, k), the mean over frames."""
        return self.frame_scores(clips).mean(dim=1)
