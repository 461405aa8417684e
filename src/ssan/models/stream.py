"""Streams of frames through a network, as a video is filmed: online TSM (Lin, Gan, Han, ICCV 2019, section 4.2)."""

import torch
from torch import Tensor, nn

from ssan.errors import UsageError
from ssan.layers import TemporalShift
from ssan.models.classifier import Classifier, MeanOverFrames


class FrameStream:
    """Score new frames with what earlier ones left behind, each frame computed once.

    ::

        stream = FrameStream(build("tsm_mobilenet_v2", 27, layer_options={"direction": "past"}))
        for frame in camera:                            # (b, 3, h, w)
            scores = stream(frame)                      # (b, k)

    The scores of a frame are those that ``model.frame_scores`` gives it in the whole clip, up to the order in which a
    device adds up products; their mean over frames is the clip's score. What is kept between frames is, for each shift,
    the moved channels of one frame, whatever the length of the video.

    :param model: put into evaluation mode. Its only layers between frames are shifts with ``direction="past"``, and its
        scores the mean over frames; the model itself stays as it was, and can be used on whole clips in between.
    :raises UsageError: a model that needs frames still to come, or the whole clip.
    """

    def __init__(self, model: Classifier) -> None:
        self.model = model.eval()
        self._shifts = [module for module in model.modules() if isinstance(module, TemporalShift)]
        waiting = [shift for shift in self._shifts if shift.direction != "past"] + _others_between_frames(model)
        if not isinstance(model.consensus, MeanOverFrames):
            waiting.append(model.consensus)
        if waiting:
            raise UsageError(
                f"{type(waiting[0]).__name__} looks at frames that are still to come, so the model cannot be fed frame "
                "by frame. Give a tsm_* model trained with layer.direction=past"
            )
        self._before: dict[TemporalShift, Tensor] = {}

    def __call__(self, frames: Tensor) -> Tensor:
        """The next frame (b, 3, h, w) to its logits (b, k), or several (b, t, 3, h, w) to theirs (b, t, k)."""
        clips = frames.unsqueeze(1) if frames.dim() == 4 else frames
        hooks = [shift.register_forward_pre_hook(self._hand_over, with_kwargs=True) for shift in self._shifts]
        try:
            with torch.no_grad():
                scores = self.model.frame_scores(clips)
        finally:
            for hook in hooks:
                hook.remove()
        return scores.squeeze(1) if frames.dim() == 4 else scores

    def reset(self) -> None:
        """Forget the frames so far: the next one begins another video, which may have another size."""
        self._before.clear()

    def _hand_over(
        self, shift: nn.Module, args: tuple[Tensor], kwargs: dict[str, Tensor]
    ) -> tuple[tuple[Tensor], dict[str, Tensor]]:
        """Give a shift what it kept of the last frame, and keep what it will need of this one."""
        assert isinstance(shift, TemporalShift)
        before, carried = self._before.get(shift), shift.carried(args[0])
        if before is not None and before.shape != carried.shape:
            raise UsageError(
                f"the frames so far left {tuple(before.shape)} behind and these would leave {tuple(carried.shape)}: "
                "another size or another number of videos. A new video needs reset() before its first frame"
            )
        self._before[shift] = carried
        return args, {**kwargs, "before": before} if before is not None else kwargs


def _others_between_frames(model: Classifier) -> list[nn.Module]:
    """What stands in the backbone's slots and is no shift."""
    blocks = [block for stage in model.backbone.stages.values() for block in stage]  # type: ignore[operator]
    filled = [getattr(block, slot) for block in blocks for slot in block.slot_channels]
    return [layer for layer in filled if not isinstance(layer, TemporalShift | nn.Identity)]
