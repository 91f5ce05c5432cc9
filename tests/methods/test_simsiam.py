"""What SimSiam refuses; its numbers are held to PyTorch's in test_simsiam_parity.py."""

import jax
import numpy as np
import pytest

from ssl_jax import optim
from ssl_jax.methods.simsiam import SimSiam
from ssl_jax.models.convnet import ConvNet
from ssl_jax.models.heads import Predictor, Projector
from ssl_jax.types import UsageError


def test_predictor_must_be_as_wide_as_the_projector():
    optimizer = optim.sgd(base_learning_rate=0.1, batch_size=4, decay_steps=10)
    encoder = ConvNet(channels=(4,), strides=(1,))
    method = SimSiam(encoder, Projector(8, 8, layers=2), Predictor(4, 6), optimizer)
    spec = {"view_1": jax.ShapeDtypeStruct((4, 8, 8, 1), np.float32)}
    with pytest.raises(UsageError, match="the predictor gives 6 numbers and the projector 8"):
        method.init(jax.random.key(0), spec)
