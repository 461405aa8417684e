"""Label every video in a folder, and keep the labels in a table.

    python examples/label_folder.py runs/mine inbox labels.csv

A video that cannot be read has its error in the table, and the others are labelled all the same.
"""

import csv
import sys

import ssan


def main(model: str, folder: str, table: str) -> None:
    answers = ssan.load_model(model).predict(folder, top=3)
    with open(table, "w", newline="", encoding="utf-8") as handle:
        rows = csv.writer(handle)
        rows.writerow(["path", "label", "score", "error"])
        for answer in answers:
            if answer.error is None:
                label, score = answer.top[0]
                rows.writerow([answer.path, label, f"{score:.4f}", ""])
            else:
                rows.writerow([answer.path, "", "", f"{answer.error.code}: {answer.error.message}"])
    failed = sum(not answer.ok for answer in answers)
    print(f"{table}: {len(answers) - failed} videos labelled, {failed} could not be read")


if __name__ == "__main__":
    main(*sys.argv[1:])
