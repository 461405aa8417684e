"""The classifier of temporal segment networks (Wang et al., ECCV 2016): frame scores, averaged or related."""

import torch
from torch import Tensor, nn

from ssan.layers.attention_over_frames import AttentionOverFrames
from ssan.video.preprocess import normalise


class MeanOverFrames(nn.Module):
    """The consensus of TSN, and of SSAN (section 3.3): (b, t, k), the scores of each frame, to their mean (b, k)."""

    def forward(self, scores_btk: Tensor) -> Tensor:
        return scores_btk.mean(dim=1)


class Classifier(nn.Module):
    """A backbone over frames, dropout, a linear layer, and a consensus of the frames.

    :param backbone: maps (b, t, 3, h, w) to (b, t, num_features) and has ``num_features``.
    :param num_classes: k.
    :param dropout: share of the features dropped in training; section 4.2 uses 0.5.
    :param consensus: maps (b, t, consensus.num_features) to logits (b, k), such as ``TemporalRelation``; the linear
        layer then has as many outputs. Without one it has k, each frame's scores, and the consensus is their mean.
    """

    def __init__(
        self, backbone: nn.Module, num_classes: int, *, dropout: float = 0.5, consensus: nn.Module | None = None
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.dropout = nn.Dropout(dropout)
        num_features: int = backbone.num_features  # type: ignore[assignment]
        num_outputs: int = num_classes if consensus is None else consensus.num_features  # type: ignore[assignment]
        self.fc = nn.Linear(num_features, num_outputs)
        # TSN's code, and TSM's and TRN's after it, start the new layer near zero: the first steps move the rest little.
        nn.init.normal_(self.fc.weight, std=0.001)
        nn.init.zeros_(self.fc.bias)
        self.consensus = MeanOverFrames() if consensus is None else consensus

    @property
    def class_rows(self) -> tuple[str, ...]:
        """How the names of those weights begin whose first axis runs over the classes."""
        if isinstance(self.consensus, MeanOverFrames | AttentionOverFrames):
            return ("fc.",)
        return tuple(f"consensus.{name}" for name in getattr(self.consensus, "class_rows", ()))

    def frame_scores(self, clips: Tensor) -> Tensor:
        """Clips (b, t, 3, h, w) to what the consensus takes: by default the logits of each frame (b, t, k).

        Pixels of type uint8 are normalised here, on the device; floating-point ones count as normalised already.
        """
        return self.fc(self.dropout(self.time_features(clips)))

    def features(self, clips: Tensor) -> Tensor:
        """Clips (b, t, 3, h, w) to the mean over frames of what the linear layer takes, (b, num_features).

        Pixels are treated as by ``frame_scores``. With the mean as the consensus, the linear layer makes the logits of
        these: it is where a frozen network's description of a clip is taken (section 4.2, retrieval).
        """
        return self.time_features(clips).mean(dim=1)

    def time_features(self, clips: Tensor) -> Tensor:
        """Clips (b, t, 3, h, w) to what the linear layer takes at each time, (b, t, num_features).

        Pixels are treated as by ``frame_scores``; ``features`` is the mean of these over the times.
        """
        if clips.dtype == torch.uint8:
            clips = normalise(clips).to(self.fc.weight.dtype)
        return self.backbone(clips)

    def forward(self, clips: Tensor) -> Tensor:
        """Clips (b, t, 3, h, w) to logits (b, k)."""
        return self.consensus(self.frame_scores(clips))
