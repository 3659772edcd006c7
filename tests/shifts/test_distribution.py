"""Distributions hold what is tested on; shifts and attacks are told by what they can do."""

import dataclasses

import pytest
import torch

from shapleaf.data import batches
from shapleaf.shifts import FGSM, PGD, Attack, Corruption, Distribution, GaussianNoise, Shift, UniformNoise


def test_a_distribution_is_data_with_a_name():
    data = torch.zeros(3, 2), torch.arange(3)
    one = Distribution(name="clean", data=data, nominal=True)
    assert (one.name, one.nominal, one.family, one.attack) == ("clean", True, "", None)
    assert [batch.examples for batch in batches(one.data, batch_size=2)] == [2, 1]
    assert Distribution(name="new", data=data).nominal is False
    with pytest.raises(dataclasses.FrozenInstanceError):
        one.name = "other"


def test_distributions_are_told_apart_by_identity():
    # Their data are tensors, which have no truth value to compare by.
    data = torch.zeros(3, 2), torch.arange(3)
    one, other = Distribution(name="a", data=data), Distribution(name="a", data=data)
    assert one != other
    assert len({one, other}) == 2


def test_what_a_shift_is():
    for shift in (Corruption("fog"), GaussianNoise(0.1), UniformNoise(0.1)):
        assert isinstance(shift, Shift)
        assert not isinstance(shift, Attack)
    for attack in (FGSM(0.1), PGD(0.1)):
        assert isinstance(attack, Attack)
        assert not isinstance(attack, Shift)
    assert not isinstance("fog", Shift)
