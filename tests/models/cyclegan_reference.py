"""CycleGAN's networks in PyTorch, layer by layer as the reference implementation builds them (models/networks.py)."""

import functools


def generator(
    torch, channels=3, made=3, width=64, blocks=9, *, dropout=False, norm=None, resize=False, halvings=2, outer_px=7
):
    """`ResnetGenerator`, where halvings and outer_px are constants.

    `norm(features)` makes its norms, `resize` puts `Upsample` for transposed convolutions.
    """
    nn, margin_px = torch.nn, outer_px // 2
    norm = norm or nn.InstanceNorm2d

    class Block(nn.Module):
        def __init__(self, features):
            super().__init__()
            first = [nn.ReflectionPad2d(1), nn.Conv2d(features, features, 3), norm(features), nn.ReLU(True)]
            between = [nn.Dropout(0.5)] if dropout else []
            second = [nn.ReflectionPad2d(1), nn.Conv2d(features, features, 3), norm(features)]
            self.conv_block = nn.Sequential(*first, *between, *second)

        def forward(self, x):
            return x + self.conv_block(x)

    class Generator(nn.Module):
        def __init__(self):
            super().__init__()
            model = [nn.ReflectionPad2d(margin_px), nn.Conv2d(channels, width, outer_px), norm(width), nn.ReLU(True)]
            for i in range(halvings):
                features = width * 2**i
                model += [nn.Conv2d(features, 2 * features, 3, 2, 1), norm(2 * features), nn.ReLU(True)]
            model += [Block(2**halvings * width) for _ in range(blocks)]
            for i in range(halvings):
                features = width * 2 ** (halvings - i)
                if resize:
                    model += [nn.Upsample(scale_factor=2, mode="nearest"), nn.ReflectionPad2d(1)]
                    model += [nn.Conv2d(features, features // 2, 3)]
                else:
                    model += [nn.ConvTranspose2d(features, features // 2, 3, 2, 1, output_padding=1)]
                model += [norm(features // 2), nn.ReLU(True)]
            model += [nn.ReflectionPad2d(margin_px), nn.Conv2d(width, made, outer_px), nn.Tanh()]
            self.model = nn.Sequential(*model)

        def forward(self, x):
            return self.model(x)

    return Generator()


def unet(torch, channels=3, made=3, width=64, halvings=8):
    """`UnetGenerator`, built from the innermost block outwards, its activations in place as there."""
    nn = torch.nn
    norm = functools.partial(nn.InstanceNorm2d, affine=False, track_running_stats=False)

    class Block(nn.Module):
        def __init__(self, outer, inner, given=None, submodule=None, outermost=False, innermost=False):
            super().__init__()
            self.outermost = outermost
            down = nn.Conv2d(outer if given is None else given, inner, 4, 2, 1)
            up = nn.ConvTranspose2d(inner if innermost else 2 * inner, outer, 4, 2, 1)
            if outermost:
                model = [down, submodule, nn.ReLU(True), up, nn.Tanh()]
            elif innermost:
                model = [nn.LeakyReLU(0.2, True), down, nn.ReLU(True), up, norm(outer)]
            else:
                model = [nn.LeakyReLU(0.2, True), down, norm(inner), submodule, nn.ReLU(True), up, norm(outer)]
            self.model = nn.Sequential(*model)

        def forward(self, x):
            return self.model(x) if self.outermost else torch.cat([x, self.model(x)], 1)

    class Generator(nn.Module):
        def __init__(self):
            super().__init__()
            block = Block(width * 8, width * 8, innermost=True)
            for _ in range(halvings - 5):
                block = Block(width * 8, width * 8, submodule=block)
            for features in (4, 2, 1):
                block = Block(width * features, width * features * 2, submodule=block)
            self.model = Block(made, width, channels, block, outermost=True)

        def forward(self, x):
            return self.model(x)

    return Generator()


def discriminator(torch, channels=3, width=64, strides=3, *, norm=None, bias=True):
    """`NLayerDiscriminator`."""
    nn = torch.nn
    norm = norm or nn.InstanceNorm2d

    class Discriminator(nn.Module):
        def __init__(self):
            super().__init__()
            model = [nn.Conv2d(channels, width, 4, 2, 1), nn.LeakyReLU(0.2, True)]
            before = width
            for n in range(1, strides + 1):
                features = width * min(2**n, 8)
                stride = 2 if n < strides else 1
                model += [nn.Conv2d(before, features, 4, stride, 1, bias=bias), norm(features), nn.LeakyReLU(0.2, True)]
                before = features
            self.model = nn.Sequential(*model, nn.Conv2d(before, 1, 4, 1, 1))

        def forward(self, x):
            return self.model(x)

    return Discriminator()
