"""Features of frames in memory: which second of one video looks most like another video.

    python examples/features_of_array.py runs/mine long.mp4 short.mp4

Frames may come from anywhere (a camera, OpenCV, a simulation), as uint8 in RGB: OpenCV's are turned from BGR by
``frames[..., ::-1]``. Here they are read from a file, a second at a time.
"""

import sys

import numpy as np

import ssan


def main(model: str, long: str, short: str) -> None:
    encoder = ssan.load_model(model)
    pieces: list[np.ndarray] = []
    with ssan.open_video(long) as video:
        for second in range(max(1, int(video.duration_seconds))):
            first, stop = video.span(second, second + 1)
            clip = video.read(range(first, stop))
            pieces.append(clip.frames.permute(0, 2, 3, 1).numpy())  # (t, h, w, 3); t differs from second to second
    features = encoder.features([*pieces, short])  # a row for each second, and one for the other video
    features /= np.linalg.norm(features, axis=1, keepdims=True)
    likeness = features[:-1] @ features[-1]
    best = int(likeness.argmax())
    print(
        f"{len(pieces)} seconds of {features.shape[1]} features; second {best} is most like it ({likeness[best]:.3f})"
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
