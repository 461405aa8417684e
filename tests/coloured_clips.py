"""Clips whose class is their colour, by persons who light it differently."""

from pathlib import Path

import numpy as np
import simplejpeg

COLOURS = {"blue": (40, 60, 220), "green": (40, 200, 60), "red": (220, 50, 40)}
PERSONS = ("ann", "bob", "cy", "dan")


def write_clip(folder: Path, colour: tuple[int, int, int], light: float, seed: int, num_frames: int = 4) -> None:
    """A folder of frames of one colour, with noise."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(seed)
    for number in range(num_frames):
        noise = rng.normal(size=(32, 32, 3)) * 12
        frame = np.clip(np.array(colour) * light + noise, 0, 255).astype(np.uint8)
        jpeg = simplejpeg.encode_jpeg(np.ascontiguousarray(frame), quality=90)
        (folder / f"{number:03d}.jpg").write_bytes(jpeg)


def write_people(root: Path, persons: tuple[str, ...] = PERSONS, each: int = 2) -> Path:
    seed = 0
    for label, colour in COLOURS.items():
        for number, person in enumerate(persons):
            for take in range(each):
                write_clip(root / label / f"{person}_{take}", colour, 0.7 + 0.1 * number, seed)
                seed += 1
    return root
