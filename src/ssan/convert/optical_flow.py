"""Optical flow between two frames, by OpenCV, and as grey pictures as two-stream networks read it.

Source: L. Wang et al., Temporal Segment Networks, ECCV 2016, section 4.1, and its tools: flow clipped to [-20, 20]
pixels and mapped linearly to 0..255, x and y in a JPEG file each.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from ssan.errors import UsageError, VideoError, unknown

Flow = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""Two RGB pictures (h, w, 3) -> for each pixel of the first how far it has moved, (h, w, 2), x and y in pixels."""


def _dis(cv2: Any) -> Any:
    return cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM).calc


def _tvl1(cv2: Any) -> Any:
    return cv2.optflow.DualTVL1OpticalFlow_create().calc


def _farneback(cv2: Any) -> Any:
    def calc(first: np.ndarray, second: np.ndarray, _: None) -> Any:
        # Pyramid of 3 levels, each half of the one before; window 15, 3 iterations; polynomials over 5 pixels.
        return cv2.calcOpticalFlowFarneback(first, second, None, 0.5, 3, 15, 3, 5, 1.2, 0)

    return calc


METHODS: dict[str, Callable[[Any], Any]] = {"dis": _dis, "tvl1": _tvl1, "farneback": _farneback}
"""Dense inverse search (Kroeger et al., ECCV 2016), TV-L1 (Zach et al., DAGM 2007; TSN's), Farneback (SCIA 2003)."""


def flow_between(method: str) -> Flow:
    """The flow from one picture to the next by a method; one thread, so that several videos go side by side.

    :raises UsageError: OpenCV, or its part with this method, is not installed.
    """
    if method not in METHODS:
        raise UsageError(unknown("method of optical flow", method, METHODS))
    try:
        import cv2
    except ImportError:
        raise UsageError("optical flow needs OpenCV, which is not installed: pip install 'ssan[flow]'") from None
    if method == "tvl1" and not hasattr(cv2, "optflow"):
        raise UsageError(
            "TV-L1 is in OpenCV's contrib part, which is not installed: pip install opencv-contrib-python-headless, or "
            "--method dis"
        )
    cv2.setNumThreads(1)
    calc = METHODS[method](cv2)

    def flow(first: np.ndarray, second: np.ndarray) -> np.ndarray:
        greys = [cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY) for picture in (first, second)]
        try:
            return np.asarray(calc(*greys, None))
        except cv2.error as error:
            height, width = greys[0].shape
            raise VideoError(
                f"OpenCV finds no flow between pictures of {width} x {height} pixels ({error.err}); expected larger "
                "ones. Leave it out",
                code="decode_error",
            ) from error

    return flow


def as_pictures(flow: np.ndarray, bound: float) -> np.ndarray:
    """Flow (h, w, 2) in pixels as grey pictures (2, h, w) of x and y: [-bound, bound] as 0..255, no motion as 128.

    >>> as_pictures(np.array([[[-30.0, 0.0], [10.0, 20.0]]]), 20.0).tolist()
    [[[0, 191]], [[128, 255]]]
    """
    share = (np.clip(flow, -bound, bound) + bound) / (2 * bound)
    return np.ascontiguousarray(np.rint(share * 255).astype(np.uint8).transpose(2, 0, 1))
