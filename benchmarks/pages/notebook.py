"""The notebook's outputs, made by running its cells in order, in one Python without Jupyter.

    python -m benchmarks.pages.notebook

Writes examples/first_look.ipynb with what its cells print; its text and its code are edited there.
"""

import copy
import io
import json
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

from ssan.files import writing

NOTEBOOK = Path(__file__).parents[2] / "examples" / "first_look.ipynb"


def run(notebook: dict[str, Any]) -> dict[str, Any]:
    """The notebook with the outputs that its cells give, which is what they print."""
    done, names, number = copy.deepcopy(notebook), {"__name__": "__main__"}, 0
    for cell in done["cells"]:
        if cell["cell_type"] != "code":
            continue
        number += 1
        printed = io.StringIO()
        with redirect_stdout(printed):
            exec(compile("".join(cell["source"]), f"{NOTEBOOK.name} [{number}]", "exec"), names)
        text = printed.getvalue().splitlines(keepends=True)
        cell["execution_count"] = number
        cell["outputs"] = [{"name": "stdout", "output_type": "stream", "text": text}] if text else []
    return done


def read() -> dict[str, Any]:
    content: dict[str, Any] = json.loads(NOTEBOOK.read_text(encoding="utf-8"))
    return content


if __name__ == "__main__":
    with writing(NOTEBOOK) as handle:
        handle.write(json.dumps(run(read()), indent=1, ensure_ascii=False) + "\n")
