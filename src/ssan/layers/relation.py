"""The multi-scale temporal relation network (Zhou, Andonian, Oliva, Torralba, ECCV 2018): a consensus over frames."""

import itertools

import torch
from torch import Tensor, nn

from ssan.errors import UsageError

# All subsets of 16 frames are 65,519; each further frame doubles them.
MAX_FRAMES = 16
# Relations looked at together, so that memory does not grow with the 12,870 ways to choose 8 frames of 16.
CHUNK = 1024


class TemporalRelation(nn.Module):
    """Score a clip by relations among two of its frames, among three, and so on up to all of them.

    With ``f_i`` the features of frame i, and i < j < k < ...::

        T_2 = sum over pairs (i, j)        of  h_2(relu(W_2 [relu f_i, relu f_j]))
        T_3 = sum over triples (i, j, k)   of  h_3(relu(W_3 [relu f_i, relu f_j, relu f_k]))
        scores = T_2 + T_3 + ... + T_t                                          equation 3

    ``[...]`` joins features in the order of the frames, so a relation knows that order; every scale has weights of its
    own. W_d maps to ``bottleneck`` numbers, h_d from there to the classes. Unlike a layer, this consensus is built for
    a number of frames.

    A scale sums ``num_relations`` relations (or all that it has, if those are fewer), drawn anew for every batch in
    training, as the paper's section 3.3 does for efficiency. In evaluation the authors' code draws too, so that one
    clip gets other scores each time. Unsaid by the paper, our choice: in evaluation a scale sums all its relations,
    scaled to the number that training sums. That is what the draws come to on average, exactly, and it draws nothing
    (pinned by test_evaluation_is_what_the_draws_of_training_come_to_on_average).

    The defaults of ``num_features``, ``bottleneck`` and ``num_relations`` are those of the authors' code. So is that
    dropout falls on the frames' features before they are reduced to ``num_features``, which here is the classifier's
    work; that code trains with a share of 0.8.

    :param num_classes: k.
    :param num_frames: t, between 2 and 16; clips of another length are refused.
    :param num_features: length of a frame's features, as this module wants them.
    :raises UsageError: another ``num_frames``, or a width or number below 1.
    """

    # How the names of weights begin whose first axis runs over the classes.
    class_rows = ("score.",)

    def __init__(
        self,
        num_classes: int,
        num_frames: int,
        *,
        num_features: int = 256,
        bottleneck: int = 256,
        num_relations: int = 3,
    ) -> None:
        super().__init__()
        if not 2 <= num_frames <= MAX_FRAMES:
            raise UsageError(
                f"relation: num_frames is {num_frames}; a relation needs 2, and more than {MAX_FRAMES} have too many. "
                f"Give num_frames between 2 and {MAX_FRAMES}"
            )
        for name, value in [
            ("num_features", num_features), ("bottleneck", bottleneck), ("num_relations", num_relations),
        ]:  # fmt: skip
            if type(value) is not int or value < 1:
                raise UsageError(f"relation: {name} is {value!r}; it must be at least 1, and whole")
        self.num_frames = num_frames
        self.num_features = num_features
        self.num_relations = num_relations
        scales = range(2, num_frames + 1)
        self.fuse = nn.ModuleList(nn.Linear(d * num_features, bottleneck) for d in scales)
        self.score = nn.ModuleList(nn.Linear(bottleneck, num_classes) for _ in scales)
        # (number of relations, d) frames of each scale; neither weights nor to be saved, and real on every device.
        self.relations = [
            torch.tensor(list(itertools.combinations(range(num_frames), d)), device="cpu") for d in scales
        ]

    def forward(self, features_btf: Tensor) -> Tensor:
        """Features (b, t, num_features) of a clip's frames to logits (b, k).

        :raises UsageError: a clip of another number of frames than this was built for.
        """
        if features_btf.dim() != 3 or features_btf.shape[2] != self.num_features:
            raise ValueError(
                f"relation takes (b, t, {self.num_features}); got {tuple(features_btf.shape)}: make it with "
                "num_features of the features"
            )
        t = features_btf.shape[1]
        if t != self.num_frames:
            raise UsageError(
                f"a temporal relation network has weights for the number of frames that it was trained on, "
                f"{self.num_frames}; got {t} frames. Give num_frames={self.num_frames}, or train one for {t}"
            )
        features_btf = features_btf.relu()
        scores = []
        for fuse, score, relations in zip(self.fuse, self.score, self.relations, strict=True):
            used = min(self.num_relations, len(relations))
            if self.training:
                relations = relations[torch.randperm(len(relations), device="cpu")[:used]]
            # The mean over relations moves inside the last linear layer: computed once a scale, not once a relation.
            scores.append(used * score(_mean_relation(features_btf, relations, fuse)))  # type: ignore[arg-type]
        return torch.stack(scores).sum(dim=0)

    def extra_repr(self) -> str:
        return f"num_frames={self.num_frames}, num_relations={self.num_relations}"


def _mean_relation(features_btf: Tensor, relations_rd: Tensor, fuse: nn.Linear) -> Tensor:
    """The mean of relu(fuse([f_i, f_j, ...])) over relations: (b, t, f) and frame numbers (r, d) to (b, bottleneck).

    A linear layer of joined features is a sum of one linear layer a position, each of which meets a frame only once
    however many relations that frame is in.
    """
    r, d = relations_rd.shape
    weight_hdf = fuse.weight.unflatten(1, (d, -1))
    projected_btdh = torch.einsum("btf,hdf->btdh", features_btf, weight_hdf)
    positions = torch.arange(d, device=features_btf.device)
    # Sums over thousands, in at least single precision.
    total = torch.zeros_like(projected_btdh[:, 0, 0], dtype=torch.promote_types(projected_btdh.dtype, torch.float32))
    for part_rd in relations_rd.to(features_btf.device).split(CHUNK):
        total = total + (projected_btdh[:, part_rd, positions].sum(dim=2) + fuse.bias).relu().sum(
            dim=1, dtype=total.dtype
        )
    return (total / r).to(projected_btdh.dtype)
