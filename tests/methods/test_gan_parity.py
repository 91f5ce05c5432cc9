"""The contest against PyTorch's: losses, penalties, Adam, and three alternating steps as the papers' codes take them.

All in float64 on both sides, since float32 rounding flips ReLUs; schedules and rates stay float32, which costs some
1e-8. Latents and interpolation shares are the method's own, so that both sides see the same images.
"""

import contextlib

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from ssl_jax import losses, optim, rng, schedules
from ssl_jax.methods.gan import GAN
from ssl_jax.models import dcgan
from ssl_jax.regularizers import GradientPenalty
from ssl_jax.types import TrainState

BATCH, LATENT, STEPS = 6, 5, 3
IMAGE = (8, 8, 3)
GENERATED, JUDGED = (6, 4), (5, 7)
RATE = 0.01


@pytest.fixture(scope="module")
def torch():
    return pytest.importorskip("torch", reason="needs the parity extra: make test PARITY=1")


# The networks in PyTorch, under this project's names.


def torch_generator(torch):
    nn = torch.nn
    parts = {"dense1": nn.Linear(LATENT, 2 * 2 * GENERATED[0], bias=False), "norm1": nn.BatchNorm2d(GENERATED[0])}
    parts |= {"conv2": nn.ConvTranspose2d(*GENERATED, 4, stride=2, padding=1, bias=False)}
    parts |= {"norm2": nn.BatchNorm2d(GENERATED[1]), "conv3": nn.ConvTranspose2d(GENERATED[1], 3, 4, 2, 1)}

    class Generator(nn.ModuleDict):
        def forward(self, latent):
            x = self["dense1"](latent).reshape(-1, 2, 2, GENERATED[0]).permute(0, 3, 1, 2)
            x = torch.relu(self["norm1"](x))
            x = torch.relu(self["norm2"](self["conv2"](x)))
            return torch.tanh(self["conv3"](x))

    return Generator(parts).double().train()


def torch_discriminator(torch, norm):
    nn = torch.nn
    parts = {"conv1": nn.Conv2d(3, JUDGED[0], 4, 2, 1), "conv2": nn.Conv2d(*JUDGED, 4, 2, 1, bias=norm != "batch")}
    parts |= {"logit": nn.Linear(2 * 2 * JUDGED[1], 1)}
    if norm == "batch":
        parts["norm2"] = nn.BatchNorm2d(JUDGED[1])
    if norm == "spectral":
        parts = {name: nn.utils.parametrizations.spectral_norm(part) for name, part in parts.items()}

    class Discriminator(nn.ModuleDict):
        def forward(self, images):
            x = nn.functional.leaky_relu(self["conv1"](images), 0.2)
            x = self["conv2"](x)
            x = nn.functional.leaky_relu(self["norm2"](x) if norm == "batch" else x, 0.2)
            return self["logit"](x.permute(0, 2, 3, 1).flatten(1)).flatten()

    return Discriminator(parts).double().train()


def copied(network, gradients=False):
    """Parameters, or their gradients, and statistics of a PyTorch network under our names, as copies."""
    params, stats = {}, {}
    for name, part in network.items():
        own = {key: value.numpy().copy() for key, value in part.named_buffers()}
        for key, value in part.named_parameters():
            own[key] = value.detach().numpy().copy()
            if gradients:
                own[key] = np.zeros_like(own[key]) if value.grad is None else value.grad.numpy().copy()
        spectral = "parametrizations.weight.original" in own
        weight = own["parametrizations.weight.original" if spectral else "weight"]
        if weight.ndim == 1:
            params[name] = {"scale": weight, "bias": own["bias"]}
            stats[name] = {"norm": {"mean": own["running_mean"], "var": own["running_var"]}}
            continue
        params[name] = {"kernel": weight.transpose(2, 3, 1, 0) if weight.ndim == 4 else weight.T}
        if "bias" in own:
            params[name]["bias"] = own["bias"]
        if spectral:
            u, v = (own[f"parametrizations.weight.0._{vector}"] for vector in "uv")
            if weight.ndim == 4:  # its inputs are channels, rows, columns, ours rows, columns, channels
                v = v.reshape(weight.shape[1:]).transpose(1, 2, 0).flatten()
            stats[name] = {"spectral_norm": {"u": u, "v": v}}
    return params, stats


def randomized(torch, network):
    """Weights as large as trained ones and scales away from 1, which hide no factor."""
    generator = torch.Generator().manual_seed(0)
    for part in network.values():
        for name, value in part.named_parameters():
            spread = (2 / (value.numel() / value.shape[0])) ** 0.5 if value.ndim > 1 else 0.2
            shift = 1.0 if value.ndim == 1 and name == "weight" else 0.0
            value.data = shift + spread * torch.randn(value.shape, generator=generator, dtype=value.dtype)
    return network


def compiled(function):
    # Without the optimiser, since compilation takes most of the time here.
    return jax.jit(function, compiler_options={"xla_backend_optimization_level": 0})


def in_torch(torch, images):
    return torch.tensor(np.asarray(images).transpose(0, 3, 1, 2).copy())


@contextlib.contextmanager
def statistics_kept(network):
    """Undoes what passes in training mode do to running statistics: here only a network's own update moves them."""
    before = {name: value.clone() for name, value in network.named_buffers()}
    yield
    for name, value in network.named_buffers():
        value.data.copy_(before[name])


# Losses and penalties as they are written in PyTorch.


def torch_discriminator_loss(torch, name, real, fake):
    functional, ones, zeros = torch.nn.functional, torch.ones_like(fake), torch.zeros_like(fake)
    if name == "non_saturating":
        entropy = functional.binary_cross_entropy_with_logits
        return entropy(real, ones) + entropy(fake, zeros)
    if name == "least_squares":
        return 0.5 * (functional.mse_loss(real, ones) + functional.mse_loss(fake, zeros))
    if name == "hinge":
        return functional.relu(1 - real).mean() + functional.relu(1 + fake).mean()
    if name == "wasserstein":
        return fake.mean() - real.mean()
    return functional.softplus(-(real - fake)).mean()


def torch_generator_loss(torch, name, real, fake):
    functional, ones = torch.nn.functional, torch.ones_like(fake)
    if name == "non_saturating":
        return functional.binary_cross_entropy_with_logits(fake, ones)
    if name == "least_squares":
        return 0.5 * functional.mse_loss(fake, ones)
    return functional.softplus(-(fake - real)).mean() if name == "relativistic" else -fake.mean()


def torch_penalty(torch, judge, real, fake, share, *, r1=0.0, r2=0.0, interpolated=0.0):
    def slopes(images):
        images = images.detach().requires_grad_(True)
        (gradient,) = torch.autograd.grad(judge(images).sum(), images, create_graph=True)
        return gradient.square().sum(dim=(1, 2, 3))

    total = torch.zeros((), dtype=torch.float64)
    if r1:
        total = total + r1 / 2 * slopes(real).mean()
    if r2:
        total = total + r2 / 2 * slopes(fake).mean()
    if interpolated:
        total = total + interpolated * (slopes(share * real + (1 - share) * fake).sqrt() - 1).square().mean()
    return total


@pytest.mark.parametrize("name", ["non_saturating", "least_squares", "hinge", "wasserstein", "relativistic"])
def test_losses_and_their_gradients_equal_pytorchs(torch, name):
    real, fake = 3 * np.random.default_rng(0).normal(size=(2, 50))
    theirs = [torch.tensor(values, requires_grad=True) for values in (real, fake)]
    with jax.enable_x64(True):
        for ours, written in (
            (losses.discriminator_loss, torch_discriminator_loss),
            (losses.generator_loss, torch_generator_loss),
        ):
            value, slopes = jax.value_and_grad(lambda r, f, loss=ours: loss(name, r, f).mean(), (0, 1))(real, fake)
            reference = written(torch, name, *theirs)
            expected = torch.autograd.grad(reference, theirs, allow_unused=True)
            np.testing.assert_allclose(value, reference.item(), rtol=1e-12)
            for slope, wanted in zip(slopes, expected, strict=True):
                np.testing.assert_allclose(slope, 0.0 if wanted is None else wanted.numpy(), rtol=1e-9, atol=1e-15)
    assert losses.needs_real(name) == (name == "relativistic")


@pytest.mark.parametrize("norm", ["none", "batch", "spectral"])
def test_penalties_and_their_gradients_equal_pytorchs(torch, norm):
    reference = randomized(torch, torch_discriminator(torch, norm))
    params, stats = copied(reference)
    real, fake = np.random.default_rng(0).normal(size=(2, BATCH, *IMAGE))
    weights = ({"r1": 3.0}, {"r2": 5.0}, {"interpolated": 10.0})
    with jax.enable_x64(True):
        discriminator = dcgan.Discriminator(JUDGED, norm=norm, dtype="float64")
        key = jax.random.key(1)

        def values(params):
            def judge(groups):
                variables = {"params": params, "batch_stats": stats}
                return [discriminator.apply(variables, x, train=True, mutable=["batch_stats"])[0] for x in groups]

            return [GradientPenalty(**each)(judge, real, fake, key, 0).mean() for each in weights]

        found, gradients = jax.device_get(compiled(lambda p: (values(p), jax.jacrev(values)(p)))(params))
        share = np.asarray(jax.random.uniform(key, (BATCH, 1, 1, 1), jnp.float64))
    for each, value, gradient in zip(weights, found, gradients, strict=True):
        with statistics_kept(reference):
            penalty = torch_penalty(
                torch, reference, in_torch(torch, real), in_torch(torch, fake), torch.tensor(share), **each
            )
            reference.zero_grad()
            penalty.backward()
        assert value > 0.01
        np.testing.assert_allclose(value, penalty.item(), rtol=1e-10)
        assert_same(gradient, copied(reference, gradients=True)[0], 1e-9)
        assert max(np.abs(leaf).max() for leaf in jax.tree.leaves(gradient)) > 0.01


def assert_same(found, wanted, tolerance):
    assert jax.tree.structure(found) == jax.tree.structure(wanted)
    jax.tree_util.tree_map_with_path(
        lambda path, a, b: np.testing.assert_allclose(
            a, b, rtol=tolerance, atol=tolerance, err_msg=jax.tree_util.keystr(path)
        ),
        found,
        wanted,
    )


RECIPES = {  # norm of the discriminator, loss, penalty, Adam's betas, updates of the discriminator
    "dcgan": ("batch", "non_saturating", {}, (0.5, 0.999), 1),
    "r3gan": ("none", "relativistic", {"r1": 2.0, "r2": 3.0}, (0.0, 0.99), 1),
    "sngan": ("spectral", "hinge", {}, (0.0, 0.9), 3),
    "wgan_gp": ("none", "wasserstein", {"interpolated": 10.0}, (0.0, 0.9), 2),
    "penalised_sngan": ("spectral", "least_squares", {"r1": 2.0, "r2": 3.0}, (0.5, 0.999), 2),
}


def train_torch(torch, generator, discriminator, recipe, batches, draws):
    """Alternating updates as a PyTorch script writes them; `draws` gives each update its latents and shares."""
    _, loss, penalty, betas, updates = RECIPES[recipe]
    optimizers = [torch.optim.Adam(each.parameters(), RATE, betas) for each in (generator, discriminator)]
    for batch, (judged, made) in zip(batches, draws, strict=True):
        for update, (latent, share) in enumerate(judged):
            real = in_torch(torch, batch[update::updates])
            with statistics_kept(generator):
                fake = generator(torch.tensor(latent)).detach()
            # Slopes are taken with the statistics of before, as spectral norms iterate in every pass.
            with statistics_kept(discriminator):
                total = torch_penalty(torch, discriminator, real, fake, torch.tensor(share), **penalty)
            total = total + torch_discriminator_loss(torch, loss, discriminator(real), discriminator(fake))
            optimizers[1].zero_grad()
            total.backward()
            optimizers[1].step()
        with statistics_kept(discriminator):
            real_logits = discriminator(real) if loss == "relativistic" else None
            fake_logits = discriminator(generator(torch.tensor(made)))
            optimizers[0].zero_grad()
            torch_generator_loss(torch, loss, real_logits, fake_logits).backward()
        optimizers[0].step()


@pytest.mark.parametrize("recipe", RECIPES)
def test_three_alternating_steps_equal_pytorchs(torch, recipe):
    norm, loss, penalty, betas, updates = RECIPES[recipe]
    networks = {
        "generator": randomized(torch, torch_generator(torch)),
        "discriminator": randomized(torch, torch_discriminator(torch, norm)),
    }
    images = np.random.default_rng(0).uniform(-1, 1, (STEPS, BATCH * updates, *IMAGE))
    with jax.enable_x64(True):
        adam = optim.scheduled_adam(RATE, *betas)
        method = GAN(
            dcgan.Generator(IMAGE[0], IMAGE[2], GENERATED, dtype="float64"),
            dcgan.Discriminator(JUDGED, norm=norm, dtype="float64"),
            adam,
            adam,
            loss,
            latent=LATENT,
            discriminator_steps=updates,
            regularizer=GradientPenalty(**penalty) if penalty else None,
        )
        before = {name: copied(network) for name, network in networks.items()}
        params, stats = ({name: before[name][place] for name in networks} for place in (0, 1))
        opt = {name: adam.init(params[name]) for name in networks}
        state = TrainState(step=jnp.int32(0), params=params, stats=stats, opt=opt, memory={})
        step = compiled(method.step)
        draws = []
        for number, batch in enumerate(images):
            key = rng.stream(0, "method", number)
            state, _ = step(state, {"image": batch}, key)
            own = [rng.child(key, "discriminator", update) for update in range(updates)]
            latents = [method.draw(rng.child(each, "latent"), BATCH, jnp.float64) for each in own]
            shares = [jax.random.uniform(rng.child(each, "between"), (BATCH, 1, 1, 1), jnp.float64) for each in own]
            made = method.draw(rng.child(rng.child(key, "generator"), "latent"), BATCH, jnp.float64)
            judged = [(np.array(a), np.array(b)) for a, b in zip(latents, shares, strict=True)]
            draws.append((judged, np.array(made)))
    train_torch(torch, networks["generator"], networks["discriminator"], recipe, images, draws)
    for name, network in networks.items():
        after = copied(network)
        for kernel, start in zip(jax.tree.leaves(after[0]), jax.tree.leaves(before[name][0]), strict=True):
            assert kernel.ndim == 1 or np.abs(kernel - start).max() > 2 * RATE
        assert_same(state.params[name], after[0], 1e-6)
        assert_same(state.stats[name], after[1], 1e-6)


@pytest.mark.parametrize("updates_per_step", [1, 3])
@pytest.mark.parametrize("scheduled", [False, True])
@pytest.mark.parametrize("b1", [0.0, 0.5])
def test_scheduled_adam_equals_pytorchs(torch, b1, scheduled, updates_per_step):
    rate, b2, epsilon, updates = 0.02, 0.9, 1e-8, 24
    if scheduled:
        rate, b2 = schedules.Cosine(0.02, 0.005, 5), schedules.Cosine(0.9, 0.99, 6)
    draw = np.random.default_rng(0)
    values = {"kernel": draw.normal(size=(4, 3)), "bias": draw.normal(size=3)}
    gradients = [{name: draw.normal(size=value.shape) for name, value in values.items()} for _ in range(updates)]
    theirs = {name: torch.tensor(value, requires_grad=True) for name, value in values.items()}
    peer = torch.optim.Adam(theirs.values(), eps=epsilon)
    with jax.enable_x64(True):
        optimizer = optim.scheduled_adam(rate, b1, b2, epsilon, updates_per_step)
        params, state = values, optimizer.init(values)
        update = jax.jit(optimizer.update)
        for number, gradient in enumerate(gradients):
            step = number // updates_per_step
            moves, state = update(gradient, state, params)
            params = optax.apply_updates(params, moves)
            for name, value in theirs.items():
                value.grad = torch.tensor(gradient[name])
            now = [float(schedules.at(each, step)) for each in (rate, b2)]
            peer.param_groups[0].update(lr=now[0], betas=(b1, now[1]))  # as R3GAN's training loop does
            peer.step()
            np.testing.assert_allclose(optimizer.learning_rate(step), now[0])
            for name, value in theirs.items():
                np.testing.assert_allclose(params[name], value.detach().numpy(), atol=1e-7, err_msg=f"update {number}")
