"""What of a network is new and trained, what is frozen, and over which videos BatchNorm takes its statistics."""

import itertools

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from ssan.attachment.attach import attached_layers
from ssan.errors import UsageError
from ssan.models.classifier import Classifier
from ssan.models.slots import layers_in_slots
from ssan.training.optim import NORMS


def new_layers(model: Classifier) -> list[nn.Module]:
    """What no image network brings along: the classifier, the consensus, and the layers in slots or attached."""
    return [model.fc, model.consensus, *layers_in_slots(model).values(), *attached_layers(model).values()]


def new_parameters(model: Classifier) -> set[str]:
    """The names of the parameters of ``new_layers``."""
    new = {id(parameter) for layer in new_layers(model) for parameter in layer.parameters()}
    return {name for name, parameter in model.named_parameters() if id(parameter) in new}


def new_norm_weights(model: Classifier) -> set[str]:
    """The names of the weights of the norms in the layers in slots or attached: what lets these layers in."""
    layers = [*layers_in_slots(model).values(), *attached_layers(model).values()]
    norms = [module for layer in layers for module in layer.modules() if isinstance(module, NORMS)]
    scales = {id(norm.weight) for norm in norms if norm.weight is not None}
    return {name for name, parameter in model.named_parameters() if id(parameter) in scales}


def is_last(name: str) -> bool:
    """Whether a parameter belongs to what turns features into scores: the classifier, and the consensus if it learns.

    Unsaid by TSM's recipe, our choice: with temporal relations that is all of their layers. TSM's code treats every
    linear layer so, and has one; those of a layer in a slot are none of these (pinned in tests/training/test_scale.py).
    """
    return name.startswith(("fc.", "consensus."))


def freeze_batch_norm(model: Classifier, *, of_new_layers: bool = True) -> list[nn.Module]:
    """Stop training the backbone's BatchNorm, and return what is to be in evaluation mode while the rest trains.

    The weight and bias of those in new layers learn either way: from the identity start they are what lets the layer
    in.

    :param of_new_layers: whether those of new layers use their stored statistics too. These are 0 and 1 at first and
        then stay so: such a layer's output is never normalised. If not, they use the statistics of batches and gather
        them, as in any training.
    """
    of_backbone = batch_norms_of_backbone(model)
    for module in of_backbone:
        module.requires_grad_(False)
    return [module for module in model.modules() if isinstance(module, _BatchNorm)] if of_new_layers else of_backbone


def batch_norms_of_backbone(model: Classifier) -> list[nn.Module]:
    """All BatchNorm but that of new layers."""
    new = {id(module) for layer in new_layers(model) for module in layer.modules()}
    return [module for module in model.modules() if isinstance(module, _BatchNorm) and id(module) not in new]


def freeze_stages(model: Classifier, num_stages: int) -> list[nn.Module]:
    """Stop training the first stages of the backbone and what is before them; returns their BatchNorm, for evaluation.

    New layers in their slots are trained all the same.

    :param num_stages: of the backbone's ``stages``, in their order; 0 freezes nothing.
    :raises UsageError: the backbone does not say its stages, or has fewer.
    """
    if not num_stages:
        return []
    stages = getattr(model.backbone, "stages", None)
    if not isinstance(stages, dict):
        raise UsageError(
            f"frozen_stages is {num_stages}, but a {type(model.backbone).__name__} does not say which blocks its "
            "stages are made of (stages, names to lists of blocks); leave the key out, and freeze them where the "
            "network is made (requires_grad_(False))"
        )
    if num_stages > len(stages):
        raise UsageError(
            f"frozen_stages is {num_stages}, but the backbone has {len(stages)}: {', '.join(stages)}; expected as many "
            "or fewer"
        )
    of_stages = list(stages.values())
    begins = next(iter(of_stages[0]))
    frozen = list(itertools.takewhile(lambda module: module is not begins, model.backbone.modules()))
    frozen += [module for blocks in of_stages[:num_stages] for block in blocks for module in block.modules()]
    new = {id(module) for layer in new_layers(model) for module in layer.modules()}
    frozen = [module for module in frozen if id(module) not in new]
    for module in frozen:
        for parameter in module.parameters(recurse=False):
            parameter.requires_grad_(False)
    return [module for module in frozen if isinstance(module, _BatchNorm)]


def synchronise_batch_norm(model: nn.Module, device: str) -> None:
    """Let every BatchNorm take its statistics over the batches of all processes; names and weights stay.

    :raises UsageError: not on GPUs, where torch can do it, or something is hooked to a BatchNorm, and would be lost.
    """
    if device != "cuda":
        raise UsageError(
            f"sync_bn is true, but torch synchronises BatchNorm on GPUs alone, and this run computes on {device}; "
            "leave sync_bn out, or freeze the statistics with freeze_bn=true"
        )
    for name, part in model.named_modules():
        if isinstance(part, _BatchNorm) and (part._forward_hooks or part._forward_pre_hooks):
            raise UsageError(
                f"sync_bn is true, but a layer is attached to the BatchNorm {name}, which would be replaced; attach it "
                "to the convolution beside, or leave sync_bn out"
            )
    nn.SyncBatchNorm.convert_sync_batchnorm(model)
