"""Ten updates of SimSiam against PyTorch's, written here as the authors' training script does it."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssl_jax import optim, types
from ssl_jax.methods import simsiam
from ssl_jax.models import heads, pytorch, resnet

BATCH, IMAGE_PX, STEPS = 8, 12, 10
CHANNELS = (16, 32, 64, 128)
HIDDEN, OUTPUT, BOTTLENECK = 128, 24, 12
BASE_RATE, MOMENTUM, DECAY = 0.8, 0.9, 1e-2


def torch_block(torch, before, after, stride):
    """A basic residual block under torchvision's names."""
    nn = torch.nn

    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv1 = nn.Conv2d(before, after, 3, stride=stride, padding=1, bias=False)
            self.bn1 = nn.BatchNorm2d(after)
            self.conv2 = nn.Conv2d(after, after, 3, padding=1, bias=False)
            self.bn2 = nn.BatchNorm2d(after)
            self.downsample = None
            if stride != 1 or before != after:
                self.downsample = nn.Sequential(
                    nn.Conv2d(before, after, 1, stride=stride, bias=False), nn.BatchNorm2d(after)
                )

        def forward(self, x):
            y = self.bn2(self.conv2(torch.relu(self.bn1(self.conv1(x)))))
            return torch.relu(y + (x if self.downsample is None else self.downsample(x)))

    return Block()


def torch_simsiam(torch):
    """The whole model as the authors' code nests it, on a narrow ResNet-18 for small images."""
    nn = torch.nn
    encoder = nn.Sequential()
    encoder.add_module("conv1", nn.Conv2d(3, CHANNELS[0], 3, padding=1, bias=False))
    encoder.add_module("bn1", nn.BatchNorm2d(CHANNELS[0]))
    encoder.add_module("relu", nn.ReLU())
    before = CHANNELS[0]
    for stage, after in enumerate(CHANNELS, start=1):
        first = torch_block(torch, before, after, 1 if stage == 1 else 2)
        encoder.add_module(f"layer{stage}", nn.Sequential(first, torch_block(torch, after, after, 1)))
        before = after
    encoder.add_module("pool", nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten()))
    last = nn.Linear(HIDDEN, OUTPUT)
    last.bias.requires_grad = False
    projector = [nn.Linear(before, HIDDEN, bias=False), nn.BatchNorm1d(HIDDEN), nn.ReLU()]
    projector += [nn.Linear(HIDDEN, HIDDEN, bias=False), nn.BatchNorm1d(HIDDEN), nn.ReLU()]
    encoder.add_module("fc", nn.Sequential(*projector, last, nn.BatchNorm1d(OUTPUT, affine=False)))
    predictor = [nn.Linear(OUTPUT, BOTTLENECK, bias=False), nn.BatchNorm1d(BOTTLENECK), nn.ReLU()]
    return nn.ModuleDict({"encoder": encoder, "predictor": nn.Sequential(*predictor, nn.Linear(BOTTLENECK, OUTPUT))})


def train_torch(torch, model, views):
    """Ten updates; returns the losses before each."""
    peak = BASE_RATE * BATCH / 256
    groups = [{"params": model["encoder"].parameters()}, {"params": model["predictor"].parameters()}]
    optimizer = torch.optim.SGD(groups, peak, momentum=MOMENTUM, weight_decay=DECAY)
    similarity = torch.nn.CosineSimilarity(dim=1)
    losses = []
    for step, (view_1, view_2) in enumerate(views):
        optimizer.param_groups[0]["lr"] = peak * 0.5 * (1.0 + math.cos(math.pi * step / STEPS))
        z_1, z_2 = (model["encoder"](torch.tensor(view).permute(0, 3, 1, 2)) for view in (view_1, view_2))
        p_1, p_2 = model["predictor"](z_1), model["predictor"](z_2)
        loss = -(similarity(p_1, z_2.detach()).mean() + similarity(p_2, z_1.detach()).mean()) * 0.5
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


def test_ten_updates_equal_pytorchs():
    torch = pytest.importorskip("torch", reason="needs the parity extra: make test PARITY=1")
    torch.manual_seed(0)
    model = torch_simsiam(torch).double().train()
    generator = np.random.default_rng(0)
    # In float64, since float32 rounding flips ReLUs; only the learning rate stays float32, which costs some 1e-7.
    # The second view is brighter than the first: one batch of both would have other statistics than each has.
    views = generator.normal(size=(STEPS, 2, BATCH, IMAGE_PX, IMAGE_PX, 3)) + np.array([0.0, 1.0]).reshape(
        2, 1, 1, 1, 1
    )
    with jax.enable_x64(True):
        method = simsiam.SimSiam(
            encoder=resnet.ResNet(stem="cifar", width_multiplier=0.25, dtype="float64"),
            projector=heads.Projector(HIDDEN, OUTPUT, dtype="float64"),
            predictor=heads.Predictor(BOTTLENECK, OUTPUT, dtype="float64"),
            optimizer=optim.sgd(
                BASE_RATE, BATCH, STEPS, momentum=MOMENTUM, weight_decay=DECAY, constant_rate=("predictor",)
            ),
        )
        spec = {"view_1": jax.ShapeDtypeStruct((BATCH, IMAGE_PX, IMAGE_PX, 3), jnp.float64)}
        template = jax.eval_shape(lambda key: method.init(key, spec), jax.random.key(0))
        wide = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, jnp.float64), template)

        def converted():
            state_dict = {name: value.detach().numpy().copy() for name, value in model.state_dict().items()}
            return pytorch.from_simsiam_checkpoint(state_dict, wide.params, wide.stats)

        params, stats = converted()
        initial = params
        state = types.TrainState(
            step=jnp.int32(0), params=params, stats=stats, opt={"all": method.optimizer.init(params)}, memory={}
        )
        step = jax.jit(method.step)
        losses = []
        for view_1, view_2 in views:
            state, metrics = step(state, {"view_1": view_1, "view_2": view_2}, jax.random.key(0))
            losses.append(float(metrics["loss"]))
        np.testing.assert_allclose(losses, train_torch(torch, model, views), atol=1e-4)
        params, stats = converted()
    assert max(jax.tree.leaves(jax.tree.map(lambda a, b: np.abs(a - b).max(), params, initial))) > 0.1
    for found, expected in ((state.params, params), (state.stats, stats)):
        jax.tree_util.tree_map_with_path(
            lambda path, a, b: np.testing.assert_allclose(a, b, atol=1e-5, err_msg=jax.tree_util.keystr(path)),
            found,
            expected,
        )
