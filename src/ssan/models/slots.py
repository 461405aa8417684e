"""Slots of a backbone, and layers put into them: which stages, which slot, every block or every second one."""

from collections.abc import Callable
from dataclasses import dataclass

from torch import nn

from ssan.errors import UsageError, unknown


@dataclass(frozen=True)
class SlotChoice:
    """Where layers go.

    :param stages: names such as ``res2``; the paper's default is ``res2`` and ``res3`` (section 3.3).
    :param slot: the slot's name in the block, such as ``after_conv1``; blocks of a named stage without that slot are
        passed over, but at least one must have it.
    :param every: 1 for every block of a stage, 2 for the first, the third and so on.
    """

    stages: tuple[str, ...] = ("res2", "res3")
    slot: str = "after_conv1"
    every: int = 1


def fill_slots(backbone: nn.Module, layer: Callable[[int], nn.Module], choice: SlotChoice) -> list[str]:
    """Fill slots of ``backbone`` with ``layer(channels)`` and return the module names that were filled.

    :raises UsageError: a stage or slot that the backbone does not have, a slot that is filled, or ``every`` below 1.
    """
    stages: dict[str, list[nn.Module]] = backbone.stages  # type: ignore[assignment]
    if choice.every < 1:
        raise UsageError(f"places: every is {choice.every}; it must be 1 (each block), 2 (each second block) or more")
    if not choice.stages:
        raise UsageError(f"places: no stage is named; known: {', '.join(stages)}")
    names = {id(module): name for name, module in backbone.named_modules()}
    filled: list[str] = []
    for stage in choice.stages:
        if stage not in stages:
            raise UsageError("places: " + unknown("stage", stage, stages))
        slots = {slot for block in stages[stage] for slot in block.slot_channels}  # type: ignore[union-attr]
        if choice.slot not in slots:
            raise UsageError(f"places: {stage} has " + unknown("slot", choice.slot, slots))
        for block in stages[stage][:: choice.every]:
            channels: dict[str, int] = block.slot_channels  # type: ignore[assignment]
            if choice.slot in channels:
                there = getattr(block, choice.slot)
                if not isinstance(there, nn.Identity):
                    raise UsageError(
                        f"places: {choice.slot} of {stage} already has a {type(there).__name__}; name another slot"
                    )
                setattr(block, choice.slot, layer(channels[choice.slot]))
                filled.append(f"{names[id(block)]}.{choice.slot}")
    return filled


def slots_of(backbone: nn.Module) -> set[str]:
    """The names of all slots that a backbone's blocks have, filled or not."""
    return {slot for block in backbone.modules() for slot in getattr(block, "slot_channels", ())}


def layers_in_slots(network: nn.Module) -> dict[str, nn.Module]:
    """The layers that fill slots of a network's blocks, by their module names."""
    return {
        f"{name}.{slot}" if name else slot: layer
        for name, block in network.named_modules()
        for slot in getattr(block, "slot_channels", ())
        if not isinstance(layer := getattr(block, slot), nn.Identity)
    }
