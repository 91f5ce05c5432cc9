"""The networks that `experiments.benchmark_pytorch` times beside ours, as PyTorch's users write them.

Each takes a description: the fields of our module of that name, as a mapping. PyTorch's default initialisation serves,
since only their speed and size matter here; that ours compute the same as PyTorch's is what tests/models/ shows.
"""

import itertools

import torch
from torch import nn
from torch.nn import functional
from torch.nn.utils.parametrizations import spectral_norm

STAGE_BLOCKS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3)}


class ResidualBlock(nn.Module):
    """ResNet's basic block, as in torchvision."""

    def __init__(self, before, after, stride):
        super().__init__()
        self.conv1, self.norm1 = nn.Conv2d(before, after, 3, stride, 1, bias=False), nn.BatchNorm2d(after)
        self.conv2, self.norm2 = nn.Conv2d(after, after, 3, 1, 1, bias=False), nn.BatchNorm2d(after)
        self.shortcut = None
        if stride != 1 or before != after:
            self.shortcut = nn.Sequential(nn.Conv2d(before, after, 1, stride, bias=False), nn.BatchNorm2d(after))

    def forward(self, x):
        y = functional.relu(self.norm1(self.conv1(x)), inplace=True)
        y = self.norm2(self.conv2(y))
        return functional.relu(y + (x if self.shortcut is None else self.shortcut(x)), inplace=True)


def resnet(fields):
    """`models.resnet.ResNet` of depth 18 or 34 with the stem for small images."""
    before = round(64 * fields["width_multiplier"])
    layers = [nn.Conv2d(3, before, 3, 1, 1, bias=False), nn.BatchNorm2d(before), nn.ReLU(inplace=True)]
    for stage, blocks in enumerate(STAGE_BLOCKS[fields["depth"]]):
        after = round(64 * fields["width_multiplier"]) * 2**stage
        for block in range(blocks):
            layers.append(ResidualBlock(before, after, 2 if stage and not block else 1))
            before = after
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten())


def projector(fields, width):
    """`models.heads.Projector` with its norms as published."""
    layers = []
    for _ in range(fields["layers"] - 1):
        layers += [nn.Linear(width, fields["hidden"], bias=False), nn.BatchNorm1d(fields["hidden"]), nn.ReLU(True)]
        width = fields["hidden"]
    last = nn.BatchNorm1d(fields["output"], affine=False)
    return nn.Sequential(*layers, nn.Linear(width, fields["output"], bias=False), last)


def predictor(fields, width):
    """`models.heads.Predictor` with its norms as published."""
    hidden = fields["hidden"]
    first = [nn.Linear(width, hidden, bias=False), nn.BatchNorm1d(hidden), nn.ReLU(True)]
    return nn.Sequential(*first, nn.Linear(hidden, fields["output"]))


class DCGANGenerator(nn.Module):
    """`models.dcgan.Generator` without classes."""

    def __init__(self, fields, latent):
        super().__init__()
        channels = (*fields["channels"], fields["image_channels"])
        self.base_px = fields["size_px"] // 2 ** len(fields["channels"])
        self.dense = nn.Linear(latent, self.base_px**2 * channels[0], bias=False)
        layers = [nn.BatchNorm2d(channels[0]), nn.ReLU(True)]
        for before, after in itertools.pairwise(channels[:-1]):
            layers += [nn.ConvTranspose2d(before, after, 4, 2, 1, bias=False), nn.BatchNorm2d(after), nn.ReLU(True)]
        self.layers = nn.Sequential(*layers, nn.ConvTranspose2d(channels[-2], channels[-1], 4, 2, 1), nn.Tanh())

    def forward(self, latent, label=None):
        x = self.dense(latent).unflatten(1, (-1, self.base_px, self.base_px))
        return self.layers(x.contiguous(memory_format=torch.channels_last))


class DCGANDiscriminator(nn.Module):
    """`models.dcgan.Discriminator` without classes, with batch norm or spectral norm."""

    def __init__(self, fields, size_px, image_channels):
        super().__init__()
        wrap = spectral_norm if fields["norm"] == "spectral" else lambda layer: layer
        layers, before = [], image_channels
        for layer, after in enumerate(fields["channels"]):
            batch = fields["norm"] == "batch" and layer > 0
            layers.append(wrap(nn.Conv2d(before, after, 4, 2, 1, bias=not batch)))
            layers += [nn.BatchNorm2d(after)] if batch else []
            layers.append(nn.LeakyReLU(0.2, True))
            before = after
        self.layers = nn.Sequential(*layers)
        self.logit = wrap(nn.Linear(before * (size_px // 2 ** len(fields["channels"])) ** 2, 1))

    def forward(self, images, label=None):
        return self.logit(self.layers(images).flatten(1)).squeeze(1)


class ConditionalNorm(nn.Module):
    """Batch norm with a scale and a bias a class."""

    def __init__(self, channels, classes):
        super().__init__()
        self.norm = nn.BatchNorm2d(channels, affine=False)
        self.scale, self.bias = nn.Embedding(classes, channels), nn.Embedding(classes, channels)

    def forward(self, x, label):
        return self.norm(x) * self.scale(label)[:, :, None, None] + self.bias(label)[:, :, None, None]


class UpBlock(nn.Module):
    """`models.sngan.UpBlock`, its shortcut before the doubling."""

    def __init__(self, before, channels, classes):
        super().__init__()
        self.shortcut = nn.Conv2d(before, channels, 1)
        self.conv1 = nn.Conv2d(before, channels, 3, padding=1, bias=False)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)
        self.norm1, self.norm2 = ConditionalNorm(before, classes), ConditionalNorm(channels, classes)

    def forward(self, x, label):
        y = functional.interpolate(functional.relu(self.norm1(x, label)), scale_factor=2)
        y = self.conv2(functional.relu(self.norm2(self.conv1(y), label)))
        return y + functional.interpolate(self.shortcut(x), scale_factor=2)


class SNGANGenerator(nn.Module):
    """`models.sngan.Generator` with classes, from 4 px."""

    def __init__(self, fields, latent):
        super().__init__()
        channels, classes = fields["channels"], fields["classes"]
        self.dense = nn.Linear(latent, 16 * channels)
        blocks = (fields["size_px"] // 4).bit_length() - 1
        self.blocks = nn.ModuleList(UpBlock(channels, channels, classes) for _ in range(blocks))
        self.norm = nn.BatchNorm2d(channels)
        self.image = nn.Conv2d(channels, fields["image_channels"], 3, padding=1)

    def forward(self, latent, label):
        x = self.dense(latent).unflatten(1, (-1, 4, 4)).contiguous(memory_format=torch.channels_last)
        for block in self.blocks:
            x = block(x, label)
        return torch.tanh(self.image(functional.relu(self.norm(x))))


class DownBlock(nn.Module):
    """`models.sngan.DownBlock`, its shortcut after the mean."""

    def __init__(self, before, channels, halves, first):
        super().__init__()
        self.halves, self.first = halves, first
        self.conv1 = spectral_norm(nn.Conv2d(before, channels, 3, padding=1))
        self.conv2 = spectral_norm(nn.Conv2d(channels, channels, 3, padding=1))
        self.shortcut = spectral_norm(nn.Conv2d(before, channels, 1)) if halves or before != channels else None

    def forward(self, x):
        shortcut = functional.avg_pool2d(x, 2) if self.halves else x
        shortcut = shortcut if self.shortcut is None else self.shortcut(shortcut)
        y = self.conv2(functional.relu(self.conv1(x if self.first else functional.relu(x))))
        return (functional.avg_pool2d(y, 2) if self.halves else y) + shortcut


class SNGANDiscriminator(nn.Module):
    """`models.sngan.Discriminator` with classes."""

    def __init__(self, fields, size_px, image_channels):
        super().__init__()
        channels = fields["channels"]
        self.blocks = nn.Sequential(
            *(DownBlock(channels if i else image_channels, channels, i < 2, i == 0) for i in range(4))
        )
        self.logit = spectral_norm(nn.Linear(channels, 1))
        self.embedding = spectral_norm(nn.Embedding(fields["classes"], channels))

    def forward(self, images, label):
        x = functional.relu(self.blocks(images)).sum((2, 3))
        return self.logit(x).squeeze(1) + (x * self.embedding(label)).sum(1)


class CycleGANBlock(nn.Module):
    """The residual block of CycleGAN's generator."""

    def __init__(self, channels):
        super().__init__()
        layers = [nn.ReflectionPad2d(1), nn.Conv2d(channels, channels, 3), nn.InstanceNorm2d(channels), nn.ReLU(True)]
        layers += [nn.ReflectionPad2d(1), nn.Conv2d(channels, channels, 3), nn.InstanceNorm2d(channels)]
        self.layers = nn.Sequential(*layers)

    def forward(self, x):
        return x + self.layers(x)


def cyclegan_generator(fields, before, made):
    """`models.cyclegan.ResNetGenerator` with mirrored borders and transposed convolutions."""
    width = fields["width"]
    layers = [nn.ReflectionPad2d(3), nn.Conv2d(before, width, 7), nn.InstanceNorm2d(width), nn.ReLU(True)]
    for channels in (width, 2 * width):
        layers += [nn.Conv2d(channels, 2 * channels, 3, 2, 1), nn.InstanceNorm2d(2 * channels), nn.ReLU(True)]
    layers += [CycleGANBlock(4 * width) for _ in range(fields["blocks"])]
    for channels in (4 * width, 2 * width):
        layers.append(nn.ConvTranspose2d(channels, channels // 2, 3, 2, 1, output_padding=1))
        layers += [nn.InstanceNorm2d(channels // 2), nn.ReLU(True)]
    return nn.Sequential(*layers, nn.ReflectionPad2d(3), nn.Conv2d(width, made, 7), nn.Tanh())


def patch_discriminator(fields, image_channels):
    """`models.cyclegan.PatchGAN`."""
    before, after = image_channels, fields["width"]
    layers = [nn.Conv2d(before, after, 4, 2, 1), nn.LeakyReLU(0.2, True)]
    for layer in range(1, fields["strides"] + 1):
        before, after = after, fields["width"] * min(2**layer, 8)
        layers += [nn.Conv2d(before, after, 4, 2 if layer < fields["strides"] else 1, 1)]
        layers += [nn.InstanceNorm2d(after), nn.LeakyReLU(0.2, True)]
    return nn.Sequential(*layers, nn.Conv2d(after, 1, 4, 1, 1))


def r3gan_block(width, fields):
    """`models.r3gan.Block` without its shortcut."""
    hidden = 2 * width
    groups = hidden // fields["channels_per_group"]
    layers = [nn.Conv2d(width, hidden, 1), nn.LeakyReLU(0.2, True)]
    layers += [nn.Conv2d(hidden, hidden, 3, padding=1, groups=groups), nn.LeakyReLU(0.2, True)]
    return nn.Sequential(*layers, nn.Conv2d(hidden, width, 1, bias=False))


class R3GANStage(nn.Module):
    """A change of size by the filter 1, 3, 3, 1, a change of width where there is one, and residual blocks."""

    def __init__(self, before, width, fields, resize):
        super().__init__()
        self.resize = resize
        taps = torch.tensor([1.0, 3.0, 3.0, 1.0])
        self.register_buffer("filter", (taps[:, None] * taps / 64)[None, None])
        self.width = None if before == width else nn.Conv2d(before, width, 1, bias=False)
        self.blocks = nn.ModuleList(r3gan_block(width, fields) for _ in range(fields["blocks"]))

    def forward(self, x):
        if self.resize == "up":
            x = self._filtered(x if self.width is None else self.width(x))
        else:
            x = self._filtered(x) if self.resize == "down" else x
            x = x if self.width is None else self.width(x)
        for block in self.blocks:
            x = x + block(x)
        return x

    def _filtered(self, x):
        taps = self.filter.to(x.dtype).expand(x.shape[1], 1, 4, 4)
        if self.resize == "up":
            return functional.conv_transpose2d(x, 4 * taps, stride=2, padding=1, groups=x.shape[1])
        return functional.conv2d(x, taps, stride=2, padding=1, groups=x.shape[1])


class R3GANGenerator(nn.Module):
    """`models.r3gan.Generator` with classes, from 4 px."""

    def __init__(self, fields, latent):
        super().__init__()
        widths = fields["widths"]
        self.embedding = nn.Embedding(fields["classes"], latent)
        self.latent = nn.Linear(2 * latent, widths[0], bias=False)
        self.basis = nn.Parameter(torch.randn(1, widths[0], 4, 4))
        before = [widths[0], *widths[:-1]]
        stages = [R3GANStage(before[i], width, fields, "up" if i else "") for i, width in enumerate(widths)]
        self.stages = nn.Sequential(*stages)
        self.image = nn.Conv2d(widths[-1], fields["image_channels"], 1, bias=False)

    def forward(self, latent, label):
        x = self.latent(torch.cat([latent, self.embedding(label)], 1))[:, :, None, None] * self.basis
        return self.image(self.stages(x.contiguous(memory_format=torch.channels_last)))


class R3GANDiscriminator(nn.Module):
    """`models.r3gan.Discriminator` with classes, to 4 px."""

    def __init__(self, fields, size_px, image_channels):
        super().__init__()
        widths = fields["widths"]
        self.image = nn.Conv2d(image_channels, widths[0], 1, bias=False)
        before = [widths[0], *widths[:-1]]
        stages = [R3GANStage(before[i], width, fields, "down" if i else "") for i, width in enumerate(widths)]
        self.stages = nn.Sequential(*stages)
        self.basis = nn.Parameter(torch.randn(widths[-1], 4, 4) / 4)
        self.logit = nn.Linear(widths[-1], widths[-1], bias=False)
        self.embedding = nn.Embedding(fields["classes"], widths[-1])

    def forward(self, images, label):
        x = (self.stages(self.image(images)) * self.basis).sum((2, 3))
        return (self.logit(x) * self.embedding(label)).sum(1)
