"""The training steps that `experiments.benchmark_pytorch` times beside ours, in PyTorch's fastest common form.

Images lie channels last, on the GPU if there is one, where networks run under autocast in bfloat16 and compiled. The
data set lies in memory as bytes; augmentation works on whole batches there, which is faster than the image by image of
torchvision in a DataLoader that most code has.
"""

import dataclasses
import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch.nn import functional

from experiments import pytorch_augment
from experiments import pytorch_networks as networks
from ssl_jax.types import UsageError


@dataclasses.dataclass(frozen=True)
class Peer:
    """One method in PyTorch.

    Attributes:
        parameters: by network, how many numbers are trained.
        prepare: augmented tensors from a batch of images as bytes.
        step: one update of every network, on what `prepare` gave.
        batches: batches of a shuffled data set, without end.
    """

    parameters: Mapping[str, int]
    prepare: Callable[[Mapping[str, torch.Tensor]], Any]
    step: Callable[[Any], torch.Tensor]
    batches: Iterator[Mapping[str, torch.Tensor]]


def peer(description: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> Peer:
    """The peer of a method of ours.

    Args:
        description: `method` and `preprocess` as nested fields with `type`, `optimizers` as config sections, and
            `batch_size`.
        arrays: the data set, uint8 [n, h, w, c] by name, and labels.

    Raises:
        UsageError: for a method or network that has none here.
    """
    torch.manual_seed(0)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if device.type == "cuda":  # as those set it who want speed: kernels chosen by timing, TF32 as in JAX
        torch.backends.cudnn.benchmark = True
        torch.set_float32_matmul_precision("high")
    makers = {"SimSiam": _simsiam, "GAN": _gan, "CycleGAN": _cyclegan}
    name = description["method"]["type"].rpartition(".")[2]
    if name not in makers:
        raise UsageError(f"config.method is {name}, which has no peer in PyTorch here: take {', '.join(makers)}")
    step, modules, prepare = makers[name](description, arrays, device)
    counts = {key: sum(p.numel() for p in module.parameters()) for key, module in modules.items()}
    batches = _batches(arrays, description["batch_size"], device)
    return Peer(counts, prepare, step, batches)


def _batches(arrays, size, device):
    """Shuffled epochs of a set in device memory; of two sets the second is drawn with replacement, as in CycleGAN."""
    held = {name: torch.from_numpy(array).to(device) for name, array in arrays.items()}
    names = list(held)
    rows = max(len(array) for array in held.values())
    while True:
        for chosen in torch.randperm(rows, device=device).split(size):
            if len(chosen) < size:
                break
            batch = {}
            for name in names:
                of_b = name == "image_b"
                place = torch.randint(len(held[name]), (size,), device=device) if of_b else chosen % len(held[name])
                batch[name] = held[name][place]
            yield batch


def _ready(module, device, compiled=True):
    module = module.to(device).to(memory_format=torch.channels_last)
    # A program for each of the few batch sizes: by itself PyTorch makes one for any size when it meets a second.
    return torch.compile(module, dynamic=False) if compiled and device.type == "cuda" else module


def _fast(device):
    return torch.autocast("cuda", torch.bfloat16, enabled=device.type == "cuda")


def _sgd(module_groups, section):
    rate = section["base_learning_rate"] * section["batch_size"] / 256
    options = {"momentum": section["momentum"], "weight_decay": section["weight_decay"]}
    return torch.optim.SGD([{"params": group} for group in module_groups], lr=rate, **options)


def _adam(parameters, section):
    constant = [value if isinstance(value, float) else 0.9 for value in (section["b1"], section["b2"])]
    return torch.optim.Adam(list(parameters), lr=2e-4, betas=tuple(constant), fused=True)


def _simsiam(description, arrays, device):
    method = description["method"]
    if method["encoder"]["type"] != "models.resnet.ResNet" or method["encoder"]["depth"] not in (18, 34):
        raise UsageError("the peer of SimSiam has a ResNet of depth 18 or 34: give such a config")
    encoder = networks.resnet(method["encoder"])
    width = round(512 * method["encoder"]["width_multiplier"])
    projector = networks.projector(method["projector"], width)
    predictor = networks.predictor(method["predictor"], method["projector"]["output"])
    modules = {"encoder": encoder, "projector": projector, "predictor": predictor}
    whole = {name: _ready(module, device) for name, module in modules.items()}
    groups = [[*encoder.parameters(), *projector.parameters()], predictor.parameters()]
    optimizer, scheduled = _sgd(groups, description["optimizers"]["all"]), [0]

    def step(views):
        scheduled[0] += 1
        optimizer.param_groups[0]["lr"] = optimizer.param_groups[1]["lr"] * math.cos(math.pi * scheduled[0] / 1e6)
        with _fast(device):
            z_1, z_2 = (whole["projector"](whole["encoder"](view)) for view in views)
            p_1, p_2 = whole["predictor"](z_1), whole["predictor"](z_2)
        pairs = ((p_1.float(), z_2.float().detach()), (p_2.float(), z_1.float().detach()))
        loss = -sum(functional.cosine_similarity(p, z, dim=1).mean() for p, z in pairs) / 2
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        return loss.detach()

    def prepare(batch):
        view = description["preprocess"]["first"]
        return [pytorch_augment.view_of(batch["image"], view) for _ in range(2)]

    return step, modules, prepare


def _gan(description, arrays, device):
    method = description["method"]
    generator, discriminator = method["generator"], method["discriminator"]
    kind = generator["type"].split(".")[1]
    classes = {"dcgan": ("DCGANGenerator", "DCGANDiscriminator"), "sngan": ("SNGANGenerator", "SNGANDiscriminator")}
    classes["r3gan"] = ("R3GANGenerator", "R3GANDiscriminator")
    if kind not in classes:
        raise UsageError(f"the generator is {generator['type']}, which has no peer in PyTorch here")
    make, judge = (getattr(networks, name) for name in classes[kind])
    size_px, channels = arrays["image"].shape[1], arrays["image"].shape[3]
    modules = {"generator": make(generator, method["latent"])}
    modules["discriminator"] = judge(discriminator, size_px, channels)
    penalised = kind == "r3gan"
    # Compiled functions of PyTorch have no second derivative.
    g, d = _ready(modules["generator"], device), _ready(modules["discriminator"], device, compiled=not penalised)
    average = torch.optim.swa_utils.AveragedModel(
        modules["generator"], multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(0.999), use_buffers=True
    )
    optimizers = [_adam(modules[name].parameters(), description["optimizers"][name]) for name in modules]
    updates, together = (
        method["discriminator_steps"],
        not any(isinstance(part, torch.nn.BatchNorm2d) for part in modules["discriminator"].modules()),
    )

    def judged(images, labels):
        if not together:
            return [d(part, labels).float() for part in images]
        everyone = None if labels is None else labels.repeat(len(images))
        return d(torch.cat(images), everyone).float().chunk(len(images))

    def step(batch):
        images, labels = batch
        modules["discriminator"].requires_grad_(True)
        for update in range(updates):
            real = images[update::updates]
            label = None if labels is None else labels[update::updates]
            with torch.no_grad(), _fast(device):
                fake = g(torch.randn(len(real), method["latent"], device=device), label).float()
            if penalised:
                real, fake = real.detach().requires_grad_(True), fake.requires_grad_(True)
            with _fast(device):
                of_real, of_fake = judged((real, fake), label)
            loss = _discriminator_loss(method["loss"], of_real, of_fake).mean()
            if penalised:
                if device.type == "cuda":  # the slope of a slope in float32, as ours
                    of_real, of_fake = judged((real, fake), label)
                slopes = torch.autograd.grad(of_real.sum() + of_fake.sum(), (real, fake), create_graph=True)
                loss = loss + sum(0.025 * slope.square().sum((1, 2, 3)).mean() for slope in slopes)
            optimizers[1].zero_grad(set_to_none=True)
            loss.backward()
            optimizers[1].step()
        modules["discriminator"].requires_grad_(False)
        real = real.detach()
        with _fast(device):
            fake = g(torch.randn(len(real), method["latent"], device=device), label)
            logits = judged((real, fake) if method["loss"] == "relativistic" else (fake,), label)
        loss = _generator_loss(method["loss"], logits[0], logits[-1]).mean()
        optimizers[0].zero_grad(set_to_none=True)
        loss.backward()
        optimizers[0].step()
        average.update_parameters(modules["generator"])
        return loss.detach()

    def prepare(batch):
        labels = None if method["classes"] is None else batch["label"].long()
        return pytorch_augment.view_of(batch["image"], description["preprocess"]["view"]), labels

    return step, modules, prepare


def _discriminator_loss(name, real, fake):
    if name == "non_saturating":
        return functional.softplus(-real) + functional.softplus(fake)
    if name == "hinge":
        return functional.relu(1 - real) + functional.relu(1 + fake)
    if name == "relativistic":
        return functional.softplus(fake - real)
    raise UsageError(f"loss={name!r} has no peer in PyTorch here")


def _generator_loss(name, real, fake):
    if name == "non_saturating":
        return functional.softplus(-fake)
    return -fake if name == "hinge" else functional.softplus(real - fake)


def _cyclegan(description, arrays, device):
    method = description["method"]
    channels = {domain: arrays[f"image_{domain}"].shape[3] for domain in "ab"}
    modules = {}
    for source, target in ("ab", "ba"):
        made = networks.cyclegan_generator(method["generator"], channels[source], channels[target])
        modules[f"generator_{source}{target}"] = made
        modules[f"discriminator_{target}"] = networks.patch_discriminator(method["discriminator"], channels[target])
    fast = {name: _ready(module, device) for name, module in modules.items()}
    optimizers = {}
    for kind in ("generator", "discriminator"):
        owned = [p for name, module in modules.items() if name.startswith(kind) for p in module.parameters()]
        optimizers[kind] = (_adam(owned, description["optimizers"][kind]), owned)
    cycle, identity = method["cycle_a"], method["identity"]
    pools = {domain: [] for domain in "ab"}

    def from_pool(domain, images):
        """Half of the images as they are, half an earlier one in their place, once the pool is full."""
        handed_on = []
        for image in images:
            pool = pools[domain]
            if len(pool) < method["pool"]["size"]:
                pool.append(image)
                handed_on.append(image)
            elif torch.rand(()) > 0.5:
                place = int(torch.randint(len(pool), ()))
                handed_on.append(pool[place])
                pool[place] = image
            else:
                handed_on.append(image)
        return torch.stack(handed_on)

    def step(real):
        for parameter in optimizers["discriminator"][1]:
            parameter.requires_grad_(False)
        fake, total = {}, 0.0
        with _fast(device):
            for source, target in ("ab", "ba"):
                if identity:
                    # Instance norm takes each image by itself, so one pass of both gives what two would.
                    both = fast[f"generator_{source}{target}"](torch.cat([real[source], real[target]])).float()
                    fake[target], same = both.chunk(2)
                    total = total + cycle * identity * functional.l1_loss(same, real[target])
                else:
                    fake[target] = fast[f"generator_{source}{target}"](real[source]).float()
            for source, target in ("ab", "ba"):
                back = fast[f"generator_{target}{source}"](fake[target]).float()
                logits = fast[f"discriminator_{target}"](fake[target]).float()
                total = total + cycle * functional.l1_loss(back, real[source]) + (logits - 1).square().mean()
        _update(optimizers["generator"][0], total)
        for parameter in optimizers["discriminator"][1]:
            parameter.requires_grad_(True)
        judged = 0.0
        with _fast(device):
            for domain in "ab":
                seen = from_pool(domain, fake[domain].detach())
                logits = fast[f"discriminator_{domain}"](torch.cat([real[domain], seen])).float()
                of_real, of_fake = logits.chunk(2)
                judged = judged + 0.5 * ((of_real - 1).square().mean() + of_fake.square().mean())
        _update(optimizers["discriminator"][0], judged)
        return total.detach()

    def prepare(batch):
        views = description["preprocess"]
        return {
            name[-1]: pytorch_augment.view_of(images, views[name[-1]] or views["a"]) for name, images in batch.items()
        }

    return step, modules, prepare


def _update(optimizer, loss):
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    optimizer.step()
