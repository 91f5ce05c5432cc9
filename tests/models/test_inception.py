"""The Inception network and the resize before it against torch-fidelity's, and the files its weights come from."""

import hashlib
import importlib
import io
import os
import re
import tarfile
import warnings

import flax.traverse_util
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssl_jax import types
from ssl_jax.analysis import generative
from ssl_jax.models import inception, inception_weights, pytorch

SHAPES_PX = [(32, 32), (28, 28), (300, 400), (299, 299), (64, 17)]


@pytest.fixture(scope="module")
def template():
    return inception.variables_spec()


@pytest.fixture(scope="module")
def torch_fidelity(torchvision_models):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return pytest.importorskip("torch_fidelity", reason="needs the parity extra: make test PARITY=1")


@pytest.fixture(scope="module")
def network(torch, torch_fidelity, randomized):
    """torch-fidelity's network with random weights that keep the scale of what flows through it."""
    extractor = torch_fidelity.FeatureExtractorInceptionV3
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch, "load", lambda *_, **__: {})
        patch.setattr(extractor, "load_state_dict", lambda *_: None)
        module = extractor("random", ["2048", "logits_unbiased"], feature_extractor_weights_path="none")
    randomized(module)
    generator = torch.Generator().manual_seed(0)
    for part in module.modules():
        if isinstance(part, torch.nn.Conv2d | torch.nn.Linear):
            torch.nn.init.kaiming_normal_(part.weight, generator=generator)
        if isinstance(part, torch.nn.BatchNorm2d):
            part.weight.uniform_(0.8, 1.2, generator=generator)
    return module


def photographs(batch, height, width, seed=0):
    """Coarse patches with noise, uint8 [b, h, w, 3]: something at every scale."""
    generator = np.random.default_rng(seed)
    coarse = generator.integers(0, 200, (batch, -(-height // 8), -(-width // 8), 3))
    patches = coarse.repeat(8, axis=1).repeat(8, axis=2)[:, :height, :width]
    return (patches + generator.integers(0, 56, patches.shape)).astype(np.uint8)


def in_torch(torch, images):
    return torch.from_numpy(np.ascontiguousarray(images.transpose(0, 3, 1, 2)))


def test_features_and_logits_are_torch_fidelitys(torch, network, arrays, template):
    variables = inception_weights.from_state_dict(arrays(network), template)
    images = photographs(2, 40, 50)
    found = jax.jit(inception.Inception().apply)(variables, images)
    with torch.no_grad():
        expected = [answer.numpy() for answer in network(in_torch(torch, images))]
    for answer, reference in zip(found, expected, strict=True):
        assert answer.shape == reference.shape and answer.dtype == jnp.float32
        # Neither vanished nor exploded, and the two images differ by more than what is compared.
        assert 0.1 < reference.std() < 10.0
        assert np.abs(reference[0] - reference[1]).mean() > 0.01 * reference.std()
        np.testing.assert_allclose(answer, reference, rtol=0, atol=1e-4 * reference.std())


@pytest.mark.parametrize("shape_px", SHAPES_PX)
def test_resize_is_torch_fidelitys(torch, torch_fidelity, shape_px):
    reference = importlib.import_module("torch_fidelity.interpolate_compat_tensorflow")
    images = photographs(2, *shape_px)
    expected = reference.interpolate_bilinear_2d_like_tensorflow1x(
        in_torch(torch, images).float(), size=(299, 299), align_corners=False
    )
    found = jax.jit(inception.tf1_resize, static_argnums=1)(images, 299)
    np.testing.assert_allclose(found, expected.numpy().transpose(0, 2, 3, 1), rtol=0, atol=1e-5 * 255)


@pytest.mark.parametrize(("shape_px", "size_px"), [((5, 3), 7), ((7, 9), 4), ((1, 6), 3), ((4, 4), 4)])
def test_resize_by_hand(shape_px, size_px):
    images = photographs(2, *shape_px)
    expected = np.zeros((2, size_px, size_px, 3), np.float32)
    for row in range(size_px):
        for column in range(size_px):
            places = []
            for target, source_px in zip((row, column), shape_px, strict=True):
                position = target * source_px / size_px
                first = int(position)
                places.append((first, min(first + 1, source_px - 1), position - first))
            (top, bottom, down), (left, right, across) = places
            above = images[:, top, left] * (1 - across) + images[:, top, right] * across
            below = images[:, bottom, left] * (1 - across) + images[:, bottom, right] * across
            expected[:, row, column] = above * (1 - down) + below * down
    found = inception.tf1_resize(jnp.asarray(images), size_px)
    assert found.dtype == jnp.float32
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-3)


def test_shapes(template):
    for shape in ((3, 32, 32, 3), (2, 300, 40, 3)):
        found = jax.eval_shape(inception.Inception().apply, template, jax.ShapeDtypeStruct(shape, jnp.uint8))
        assert found.features == jax.ShapeDtypeStruct((shape[0], 2048), jnp.float32)
        assert found.logits == jax.ShapeDtypeStruct((shape[0], 1008), jnp.float32)


@pytest.mark.parametrize(("shape", "dtype"), [((2, 8, 8, 3), "float32"), ((2, 8, 8, 1), "uint8"), ((8, 8, 3), "uint8")])
def test_other_images_are_refused(shape, dtype):
    message = rf"takes uint8 images \[b, h, w, 3\], got {dtype} {re.escape(str(list(shape)))}"
    with pytest.raises(types.UsageError, match=message):
        inception.Inception().apply({}, jnp.zeros(shape, dtype))


def test_every_product_is_exact(template):
    """On a GPU the default precision rounds to ten bits, which no test on a CPU would notice."""
    images = jax.ShapeDtypeStruct((1, 32, 32, 3), jnp.uint8)
    program = str(jax.make_jaxpr(inception.Inception().apply)(template, images))
    precisions = re.findall(r"\bprecision=(.*)", program)
    assert len(precisions) == program.count("conv_general_dilated[") + program.count("dot_general[") == 94 + 1 + 2
    assert set(precisions) == {"(Precision.HIGHEST, Precision.HIGHEST)"}


@pytest.fixture
def state_dict(template):
    """Entries of the published file's names and shapes, each counting from its own number."""
    entries = {}
    for number, ((_, *modules, leaf), spec) in enumerate(flax.traverse_util.flatten_dict(template).items()):
        shape = spec.shape if len(spec.shape) == 1 else (*spec.shape[:-3:-1], *spec.shape[:-2])
        values = np.arange(number, number + spec.size, dtype=np.float32)
        entries[".".join([*modules, pytorch.LEAVES[leaf]])] = values.reshape(shape)
        if leaf == "mean":
            entries[".".join([*modules, "num_batches_tracked"])] = np.array(7)
    return {**entries, "fc.bias": np.zeros(1008, np.float32)}


def test_entries_go_where_their_names_say(state_dict, template):
    found = inception_weights.from_state_dict(state_dict, template)
    assert jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), found) == template
    kernel = found["params"]["Mixed_6b"]["branch7x7_2"]["conv"]["kernel"]
    assert kernel.shape == (1, 7, 128, 128)
    np.testing.assert_array_equal(kernel, state_dict["Mixed_6b.branch7x7_2.conv.weight"].transpose(2, 3, 1, 0))
    variance = found["batch_stats"]["Conv2d_1a_3x3"]["bn"]["var"]
    np.testing.assert_array_equal(variance, state_dict["Conv2d_1a_3x3.bn.running_var"])
    np.testing.assert_array_equal(found["params"]["fc"]["kernel"], state_dict["fc.weight"].T)


def test_a_partial_load_is_refused_and_every_entry_named(state_dict, template):
    del state_dict["Mixed_7c.branch_pool.bn.running_var"], state_dict["fc.weight"]
    state_dict["AuxLogits.fc.bias"] = np.zeros(1000, np.float32)
    state_dict["Mixed_5b.branch1x1.conv.weight"] = np.zeros((64, 192, 3, 3), np.float32)
    with pytest.raises(types.UsageError) as caught:
        inception_weights.from_state_dict(state_dict, template)
    message = str(caught.value)
    assert "\n" not in message and "(4 of 471 entries)" in message
    for part in (
        "missing Mixed_7c.branch_pool.bn.running_var (192,)",
        "missing fc.weight (1008, 2048)",
        "unexpected AuxLogits.fc.bias (1000,)",
        "Mixed_5b.branch1x1.conv.weight has shape (64, 192, 3, 3), not (64, 192, 1, 1)",
    ):
        assert part in message
    assert "num_batches_tracked" not in message


def test_other_and_missing_files_are_refused(tmp_path):
    file = tmp_path / "weights.pth"
    for read in (inception_weights.read, lambda path: inception_weights.convert(path, tmp_path / "weights.npz")):
        with pytest.raises(types.UsageError, match=rf"no file {file}: expected https.*/v0\.2\.0/.*6726825d\.pth"):
            read(file)
    file.write_bytes(b"another network")
    found = hashlib.sha256(b"another network").hexdigest()
    for read in (inception_weights.read, lambda path: inception_weights.convert(path, tmp_path / "weights.npz")):
        with pytest.raises(types.UsageError, match=f"{file} has the SHA-256 {found} .*6726825d") as caught:
            read(file)
        assert "\n" not in str(caught.value)
    with pytest.raises(types.UsageError, match=r"no file .*absent\.npz: expected"):
        inception_weights.read(tmp_path / "absent.npz")
    with pytest.raises(types.UsageError, match=r"weights\.bin: end the file's name in \.npz"):
        inception_weights.convert(file, tmp_path / "weights.bin")
    assert os.listdir(tmp_path) == ["weights.pth"]


def test_a_saved_network_is_read_and_converted(torch, network, arrays, template, tmp_path, monkeypatch):
    pth, npz = tmp_path / "weights.pth", tmp_path / "weights.npz"
    torch.save(network.state_dict(), pth)
    monkeypatch.setattr(inception_weights, "SHA256_PREFIX", hashlib.sha256(pth.read_bytes()).hexdigest()[:8])
    found = inception_weights.read(pth)
    expected = inception_weights.from_state_dict(arrays(network), template)
    jax.tree.map(np.testing.assert_array_equal, found, expected)
    inception_weights.convert(pth, npz)
    assert inception_weights.digest(inception_weights.read(npz)) == inception_weights.digest(found)
    for file in (pth, npz):  # pytest keeps the folders of three runs, and these are 100 MB each
        file.unlink()


@pytest.fixture
def converted(template, state_dict, tmp_path, monkeypatch):
    """What `convert` makes of the first layer of `state_dict`, without PyTorch and the published bytes."""
    layer = "Conv2d_1a_3x3"
    spec = {collection: {layer: tree[layer]} for collection, tree in template.items()}
    monkeypatch.setattr(inception, "variables_spec", lambda: spec)
    for name in [name for name in state_dict if not name.startswith(layer)]:
        del state_dict[name]
    (tmp_path / "weights.pth").write_bytes(b"published")
    sha256 = hashlib.sha256(b"published").hexdigest()
    monkeypatch.setattr(inception_weights, "SHA256_PREFIX", sha256[:8])
    with monkeypatch.context() as patch:
        patch.setattr(pytorch, "read_checkpoint", lambda path: dict(state_dict))
        inception_weights.convert(tmp_path / "weights.pth", tmp_path / "weights.npz")
    assert sorted(os.listdir(tmp_path)) == ["weights.npz", "weights.pth"]
    return tmp_path / "weights.npz"


def test_an_npz_gives_the_same_weights(converted, state_dict):
    found = inception_weights.read(converted)
    expected = inception_weights.from_state_dict(state_dict, inception.variables_spec())
    jax.tree.map(np.testing.assert_array_equal, found, expected)
    digest = inception_weights.digest(expected)
    assert inception_weights.digest(found) == digest and re.fullmatch("[0-9a-f]{64}", digest)
    expected["params"]["Conv2d_1a_3x3"]["conv"]["kernel"][0, 0, 0, 0] += 1
    assert inception_weights.digest(expected) != digest


def test_an_npz_of_other_origin_is_refused(converted, monkeypatch):
    monkeypatch.setattr(inception_weights, "SHA256_PREFIX", "6726825d")
    with pytest.raises(
        types.UsageError, match=r"weights\.npz was made of a file with the SHA-256 [0-9a-f]{64}: expected"
    ):
        inception_weights.read(converted)


def test_a_damaged_npz_is_refused(converted):
    content = converted.read_bytes()
    directory = content.rindex(b"PK\x01\x02")
    # The first header, an array, how an entry is packed, and where the list of entries ends.
    for place in (0, content.index(b"NUMPY"), directory + 10, content.rindex(b"PK\x05\x06")):
        converted.write_bytes(content[:place] + bytes([content[place] ^ 0x55]) + content[place + 1 :])
        with pytest.raises(types.UsageError, match=r"weights\.npz is (damaged|not a readable \.npz)") as caught:
            inception_weights.read(converted)
        assert "\n" not in str(caught.value)
    converted.write_bytes(content[: len(content) // 3])
    with pytest.raises(types.UsageError, match=r"weights\.npz is not a readable \.npz"):
        inception_weights.read(converted)


def test_an_npz_whose_arrays_were_changed_is_refused(converted):
    with np.load(converted) as archive:
        entries = dict(archive)
    np.savez(converted, **{**entries, "Conv2d_1a_3x3.bn.bias": entries["Conv2d_1a_3x3.bn.bias"] + 1})
    with pytest.raises(types.UsageError, match=r"weights\.npz is damaged: its arrays are not those"):
        inception_weights.read(converted)
    del entries["published_sha256"]
    np.savez(converted, **entries)
    with pytest.raises(types.UsageError, match=r"weights\.npz has no entry published_sha256: expected"):
        inception_weights.read(converted)


def test_the_published_weights_load():
    file = os.environ.get("SSL_JAX_INCEPTION")
    if not file:
        pytest.skip("needs the published weights: SSL_JAX_INCEPTION=/path/to/weights-inception-2015-12-05-6726825d.pth")
    answer = jax.jit(inception.Inception().apply)(inception_weights.read(file), photographs(2, 32, 32))
    assert all(np.isfinite(values).all() for values in answer)


@pytest.fixture(scope="module")
def published():
    """The network with its published weights on uint8 images, and CIFAR-10's official archive."""
    file, archive = os.environ.get("SSL_JAX_INCEPTION"), os.environ.get("SSL_JAX_CIFAR10_BINARY")
    if not (file and archive):
        pytest.skip("needs SSL_JAX_INCEPTION=FILE.pth and SSL_JAX_CIFAR10_BINARY=cifar-10-binary.tar.gz")
    apply, variables = jax.jit(inception.Inception().apply), inception_weights.read(file)

    def answers(images):
        parts = [apply(variables, images[at : at + 250]) for at in range(0, len(images), 250)]
        return [np.concatenate(values) for values in zip(*parts, strict=True)]

    return answers, archive


def test_cifar10_has_the_published_inception_score(published):
    """torch-fidelity's README gives 11.23678 +- 0.0951 for the training images; an hour on CPUs."""
    answers, archive = published
    _, logits = answers(cifar10(archive, "train"))
    assert generative.inception_score(logits) == pytest.approx((11.23678, 0.09514), abs=1e-3)


def test_cifar10_has_the_published_distance(published):
    """torch-fidelity's own test: 10.3233274 between 5,000 training and 5,000 test images, each drawn by seed 2020."""
    answers, archive = published
    moments = []
    for split in ("train", "test"):
        images = cifar10(archive, split)
        features, _ = answers(images[np.random.RandomState(2020).choice(len(images), 5000, replace=False)])
        moments.append(generative.Moments.empty(2048).updated(features))
    assert generative.frechet_distance(*moments) == pytest.approx(10.3233274, abs=1e-3)


def cifar10(archive, split):
    """uint8 [n, 32, 32, 3] of the official archive, in the official order, which subsets and splits depend on."""
    names = [f"data_batch_{part}" for part in range(1, 6)] if split == "train" else ["test_batch"]
    with tarfile.open(archive) as files:
        parts = [files.extractfile(f"cifar-10-batches-bin/{name}.bin").read() for name in names]
    records = np.frombuffer(b"".join(parts), np.uint8).reshape(-1, 1 + 3 * 32 * 32)
    return records[:, 1:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)


def test_the_archive_is_read_in_its_order(tmp_path):
    records = np.random.default_rng(0).integers(0, 256, (12, 3073), dtype=np.uint8)
    names = [*(f"data_batch_{part}" for part in range(1, 6)), "test_batch"]
    with tarfile.open(tmp_path / "cifar.tar.gz", "w:gz") as files:
        for place, name in enumerate(names):
            data = records[2 * place : 2 * place + 2].tobytes()
            entry = tarfile.TarInfo(f"cifar-10-batches-bin/{name}.bin")
            entry.size = len(data)
            files.addfile(entry, io.BytesIO(data))
    images, others = (cifar10(tmp_path / "cifar.tar.gz", split) for split in ("train", "test"))
    assert images.shape == (10, 32, 32, 3) and others.shape == (2, 32, 32, 3)
    for found, record in ((images[7], records[7]), (others[1], records[11])):
        assert found[3, 4].tolist() == [record[1 + 1024 * channel + 32 * 3 + 4] for channel in range(3)]
