"""``python -m ssan``: the same as the command ``ssan``."""

from ssan.cli.main import run

if __name__ == "__main__":
    run()
