"""Random views of a batch of images in PyTorch, for `experiments.benchmark_pytorch` to time beside ours."""

import math

import torch
from torch.nn import functional


def view_of(images, view):
    """A random view of images uint8 [b, h, w, c] as floats, channels last: what `augment.View` does, but for its blur,
    with one order of the jitter for all, and no antialiasing.
    """
    x = images.permute(0, 3, 1, 2).to(torch.float32).div_(255)
    count, device = len(x), x.device

    def draw(low, high):
        return torch.empty(count, 1, 1, 1, device=device).uniform_(low, high)

    crop, jitter = view["crop"], view["jitter"]
    mirrored = draw(0, 1) < view["flip"]["probability"] if view["flip"] else draw(1, 2) < 0
    if crop and "scale" in crop:
        area, shape = draw(*crop["scale"]), torch.exp(draw(*map(math.log, crop["ratio"])))
        wide, tall = (area * shape).sqrt().clamp(max=1), (area / shape).sqrt().clamp(max=1)
        right, down = draw(-1, 1) * (1 - wide), draw(-1, 1) * (1 - tall)
        wide, nothing = torch.where(mirrored, -wide, wide), torch.zeros_like(wide)
        grid = torch.cat([wide, nothing, right, nothing, tall, down], 1).reshape(count, 2, 3)
        size = (count, x.shape[1], crop["size_px"], crop["size_px"])
        x = functional.grid_sample(x, functional.affine_grid(grid, size, align_corners=False), align_corners=False)
    else:
        if crop:
            top, left = (int(torch.randint(side - crop["size_px"] + 1, ())) for side in x.shape[2:])
            x = x[:, :, top : top + crop["size_px"], left : left + crop["size_px"]]
        x = torch.where(mirrored, x.flip(3), x)
    if jitter:
        x = _jittered(x, jitter, draw)
    if view["grayscale"]:
        x = torch.where(draw(0, 1) < view["grayscale"]["probability"], _grey(x).expand_as(x), x)
    mean, deviation = (torch.tensor(view[key], device=device).reshape(1, -1, 1, 1) for key in ("mean", "deviation"))
    return x.sub_(mean).div_(deviation).contiguous(memory_format=torch.channels_last)


def _jittered(x, jitter, draw):
    """Brightness, contrast, saturation and a turn of the hue, in this order."""
    changed = x
    for name in ("brightness", "contrast", "saturation"):
        factor = draw(1 - jitter[name], 1 + jitter[name])
        base = {"brightness": 0.0, "contrast": _grey(changed).mean((2, 3), keepdim=True)}.get(name, _grey(changed))
        changed = (factor * changed + (1 - factor) * base).clamp(0, 1)
    turn = draw(-jitter["hue"], jitter["hue"]) * 2 * math.pi
    grey = _grey(changed)
    red, blue = changed[:, :1] - grey, changed[:, 2:] - grey
    red, blue = turn.cos() * red - turn.sin() * blue, turn.sin() * red + turn.cos() * blue
    green = -(0.299 * red + 0.114 * blue) / 0.587
    turned = torch.cat([red, green, blue], 1).add(grey).clamp(0, 1)
    return torch.where(draw(0, 1) < jitter["probability"], turned, x)


def _grey(x):
    return (x * x.new_tensor([0.299, 0.587, 0.114]).reshape(1, 3, 1, 1)).sum(1, keepdim=True)
