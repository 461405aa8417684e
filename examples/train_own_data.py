"""Train on a data set of your own, and see what the model makes of the videos that it was not trained on.

    python examples/train_own_data.py videos runs/mine finetune/ssan_mobilenet_v2 init=imagenet

``videos`` has train/CLASS/FILE and val/CLASS/FILE, or is a data set in any layout that ``ssan data`` reads. The third
word is a recipe, by its name in ``ssan recipes list`` or its file, and what follows are keys of it that are to differ.
"""

import sys

import yaml

import ssan


def main(data: str, out: str, recipe: str, *keys: str) -> None:
    changes = {key: yaml.safe_load(value) for key, _, value in (word.partition("=") for word in keys)}
    done = ssan.train(recipe, data, out, changes=changes, quiet=True)
    print(f"{done['num_train']} videos, {done['epochs']} epochs; best epoch {done['best_epoch']}")

    val = ssan.read_dataset(data, "val")
    answers = ssan.load_model(out).predict(val, top=1)
    right = sum(answer.label == sample.label for answer, sample in zip(answers, val, strict=True))
    print(f"{right} of {len(val)} validation videos right")
    for answer, sample in zip(answers, val, strict=True):
        if answer.label != sample.label:
            print(f"{sample.path}: {answer.label or answer.error}, and is {sample.label}")


if __name__ == "__main__":
    main(*sys.argv[1:])
