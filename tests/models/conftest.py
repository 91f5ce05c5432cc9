"""PyTorch's side of the comparisons: torchvision's networks, with weights that leave nothing at a special value."""

import importlib
import importlib.util
import sys

import pytest


@pytest.fixture(scope="session")
def torch():
    return pytest.importorskip("torch", reason="needs the parity extra: make test PARITY=1")


@pytest.fixture(scope="session")
def torchvision_models(torch):
    """`torchvision.models`, also where torchvision is built for CUDA and torch is not.

    Such a torchvision stops at import because its compiled operators are missing. The networks use none of them, so
    declaring the two that it asks for, without an implementation, is enough.
    """
    if importlib.util.find_spec("torchvision") is None:
        pytest.skip("needs torchvision from the parity extra: make test PARITY=1")
    try:
        return importlib.import_module("torchvision.models")
    except RuntimeError as error:
        if "torchvision::nms" not in str(error):
            raise
    for name in [name for name in sys.modules if name.partition(".")[0] == "torchvision"]:
        del sys.modules[name]
    library = torch.library.Library("torchvision", "FRAGMENT")
    for operator in ("nms", "qnms"):
        library.define(f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    register_fake = torch.library.register_fake

    def skip_torchvision(name, *args, **kwargs):
        if isinstance(name, str) and name.startswith("torchvision::"):
            return lambda function: function
        return register_fake(name, *args, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.library, "register_fake", skip_torchvision)
        models = importlib.import_module("torchvision.models")
    # The import alone needed the declarations; gone with this object, they leave the names to other tests.
    del library
    return models


@pytest.fixture(scope="session")
def randomized(torch):
    """A function that gives every batch norm of a PyTorch module random scale, shift and running statistics."""

    def randomize(module, seed=0):
        generator = torch.Generator().manual_seed(seed)
        for part in module.modules():
            if isinstance(part, torch.nn.BatchNorm1d | torch.nn.BatchNorm2d):
                part.running_mean.normal_(0.0, 0.2, generator=generator)
                part.running_var.uniform_(0.5, 1.5, generator=generator)
                if part.affine:
                    with torch.no_grad():
                        part.weight.uniform_(0.2, 0.8, generator=generator)
                        part.bias.normal_(0.0, 0.2, generator=generator)
        return module

    return randomize


@pytest.fixture(scope="session")
def arrays():
    """A function from a PyTorch module to its weights as numpy arrays that later updates do not touch."""

    def convert(module):
        return {name: value.detach().numpy().copy() for name, value in module.state_dict().items()}

    return convert
