"""The published weights of `inception.Inception`, from PyTorch's file or from an `.npz` made of it."""

import hashlib
import os
import pathlib
from collections.abc import Mapping
from typing import Any

import flax.traverse_util
import numpy as np

from ssl_jax import fingerprint, types
from ssl_jax.models import inception, pytorch

SHA256_PREFIX = "6726825d"
"""How the SHA-256 of the published file begins; its name ends in it."""
PUBLISHED = (
    "https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/weights-inception-2015-12-05-6726825d.pth"
)
"""Also published, byte for byte, as pt_inception-2015-12-05-6726825d.pth by mseitzer/pytorch-fid."""
_EXPECTED = (
    f"expected {PUBLISHED} (SHA-256 {SHA256_PREFIX}...), or an .npz that ssl_jax.models.inception_weights.convert made "
    "of it"
)
_SHA256_ENTRY = "published_sha256"
_ARRAYS_ENTRY = "arrays_sha256"
_UNUSED_ENTRY = "fc.bias"


def read(path: str | pathlib.Path) -> dict[str, Any]:
    """The variables of `inception.Inception` with the published numbers.

    Args:
        path: the published file, which needs PyTorch, or what `convert` made of it, an `.npz`, which does not.

    Returns:
        "params" and "batch_stats", float32 numpy arrays.

    Raises:
        UsageError: for a missing, damaged or other file, and where PyTorch is needed and not installed.
    """
    path = pathlib.Path(path)
    state_dict = _read_converted(path) if path.suffix == ".npz" else _read_published(path)[0]
    return from_state_dict(state_dict, inception.variables_spec())


def convert(pth: str | pathlib.Path, npz: str | pathlib.Path) -> None:
    """Writes the published file's arrays as an `.npz` that `read` takes on machines without PyTorch.

    Beside the arrays, by PyTorch's names, it holds the published file's SHA-256 and that of the arrays themselves.

    Raises:
        UsageError: as `read` does, and for a target that does not end in `.npz`.
        RunError: when the disk does not take it.
    """
    npz = pathlib.Path(npz)
    if npz.suffix != ".npz":
        raise types.UsageError(f"{npz}: end the file's name in .npz")
    state_dict, published_sha256 = _read_published(pathlib.Path(pth))
    from_state_dict(state_dict, inception.variables_spec())
    marks = {_SHA256_ENTRY: np.array(published_sha256), _ARRAYS_ENTRY: np.array(fingerprint.sha256(state_dict))}
    temporary = npz.with_name(npz.name + ".tmp")
    try:
        with temporary.open("wb") as file:
            np.savez(file, **state_dict, **marks)
        os.replace(temporary, npz)  # in one move, so that no reader meets half of it
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise types.RunError(f"{npz} cannot be written: {error}") from error


def digest(variables: Mapping[str, Any]) -> str:
    """The SHA-256 of a network's variables, the same for both kinds of file: a key for all that is computed with it."""
    return fingerprint.sha256(variables)


def from_state_dict(state_dict: pytorch.StateDict, template: Mapping[str, Any]) -> dict[str, Any]:
    """Weights of torch-fidelity's `FeatureExtractorInceptionV3`.

    The last layer's bias and the counts of batches, which take no part in the answer, may be there or not.

    Args:
        state_dict: arrays by PyTorch's names.
        template: variables of `inception.Inception`, or their shapes and dtypes.

    Returns:
        Variables as numpy arrays, in the structure and dtypes of the template.

    Raises:
        UsageError: naming every entry that is missing, unexpected or of another shape; nothing is loaded in part.
    """
    leaves = {_name(path): (path, leaf) for path, leaf in flax.traverse_util.flatten_dict(template).items()}
    expected = {name: _torch_shape(tuple(leaf.shape)) for name, (_, leaf) in leaves.items()}
    found = {name: tuple(value.shape) for name, value in state_dict.items() if not _takes_no_part(name)}
    problems = [f"missing {name} {shape}" for name, shape in expected.items() if name not in found]
    problems += [f"unexpected {name} {shape}" for name, shape in found.items() if name not in expected]
    problems += [
        f"{name} has shape {found[name]}, not {shape}"
        for name, shape in expected.items()
        if name in found and found[name] != shape
    ]
    if problems:
        raise types.UsageError(
            f"these weights are not those of the Inception network ({len(problems)} of {len(expected)} entries), "
            f"nothing was loaded; {_EXPECTED}: {'; '.join(problems)}"
        )
    filled = {}
    for name, (path, leaf) in leaves.items():
        value = np.asarray(state_dict[name])
        if path[-1] == "kernel":
            value = np.moveaxis(value, (1, 0), (-2, -1))
        filled[path] = np.array(value, dtype=leaf.dtype)
    return flax.traverse_util.unflatten_dict(filled)


def _name(path: tuple[str, ...]) -> str:
    """PyTorch's name of a variable at (collection, module, ..., leaf)."""
    _, *modules, leaf = path
    return ".".join([*modules, pytorch.LEAVES[leaf]])


def _takes_no_part(name: str) -> bool:
    return name == _UNUSED_ENTRY or name.endswith(pytorch.IGNORED_LEAF)


def _torch_shape(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Kernels are [h, w, in, out] and [in, out] here, [out, in, h, w] and [out, in] there."""
    if len(shape) == 1:
        return shape
    *spatial_px, in_features, out_features = shape
    return (out_features, in_features, *spatial_px)


def _read_published(path: pathlib.Path) -> tuple[dict[str, np.ndarray], str]:
    """Arrays by PyTorch's names, and the file's SHA-256."""
    _refuse_missing(path)
    try:
        with path.open("rb") as file:
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise types.UsageError(f"{path} cannot be read: {error}") from error
    if not sha256.startswith(SHA256_PREFIX):
        raise types.UsageError(f"{path} has the SHA-256 {sha256} and is not the Inception network: {_EXPECTED}")
    return pytorch.read_checkpoint(path), sha256


def _read_converted(path: pathlib.Path) -> dict[str, np.ndarray]:
    """Arrays by PyTorch's names."""
    _refuse_missing(path)
    try:
        entries = pytorch.read_checkpoint(path)
    except types.UsageError:
        raise
    except Exception as error:  # a damaged archive makes zipfile and numpy raise what they like
        raise types.UsageError(f"{path} is damaged ({type(error).__name__}: {error}); convert it again") from error
    absent = [name for name in (_SHA256_ENTRY, _ARRAYS_ENTRY) if name not in entries]
    if absent:
        raise types.UsageError(f"{path} has no entry {' and no '.join(absent)}: {_EXPECTED}")
    published_sha256, arrays_sha256 = str(entries.pop(_SHA256_ENTRY)), str(entries.pop(_ARRAYS_ENTRY))
    if not published_sha256.startswith(SHA256_PREFIX):
        raise types.UsageError(f"{path} was made of a file with the SHA-256 {published_sha256}: {_EXPECTED}")
    if fingerprint.sha256(entries) != arrays_sha256:
        raise types.UsageError(f"{path} is damaged: its arrays are not those that were written; convert it again")
    return entries


def _refuse_missing(path: pathlib.Path) -> None:
    if not path.is_file():
        raise types.UsageError(f"there is no file {path}: {_EXPECTED}")
