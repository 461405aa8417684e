"""Version of the package, on the ground: nothing needs to import the whole for it."""

__version__ = "0.1.0"
