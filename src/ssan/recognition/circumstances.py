"""What a run took place in and what its network costs, for the journal: nothing here decides anything."""

from typing import Any

from torch import nn

from ssan.models.counting import multiply_adds, num_parameters
from ssan.recipe import Recipe
from ssan.training.environment import environment


def circumstances(model: nn.Module, recipe: Recipe, device: str, processes: int) -> dict[str, Any]:
    """``environment`` and ``cost``, as the journal's ``start`` has them; what is not known is None.

    :param recipe: complete: with ``crop_px``.
    :param device: ``cpu`` or ``cuda``.
    :param processes: that train together, on all machines.
    """
    return {"environment": environment(device, processes), "cost": cost(model, recipe)}


def cost(model: nn.Module, recipe: Recipe) -> dict[str, Any]:
    """Parameters, and multiply-adds of one clip of the recipe's frames and size."""
    assert recipe.crop_px is not None
    try:
        macs = multiply_adds(model, recipe.num_frames, recipe.crop_px)
    except (RuntimeError, TypeError, ValueError):
        # A network of one's own may ask for the values of its features, or hold what cannot be copied; it can be
        # trained all the same.
        macs = None
    return {
        "params": num_parameters(model),
        "macs": macs,
        "num_frames": recipe.num_frames,
        "crop_px": recipe.crop_px,
    }
