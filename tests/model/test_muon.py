"""Muon moves kernels as torch's moves matrices, and all else as AdamW does."""

from __future__ import annotations

import io

import pytest
import torch
from torch import nn

from fer.model.module import parameter_groups
from fer.model.muon import Muon, is_kernel
from fer.model.shared_cnn import SharedCNN


def network() -> SharedCNN:
    torch.manual_seed(0)
    return SharedCNN([6, 8], image_size=8).to(memory_format=torch.channels_last)


def set_gradients(net: nn.Module, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    for parameter in net.parameters():
        parameter.grad = torch.randn(parameter.shape, generator=generator)


def test_kernels_move_as_matrices_of_torch_and_the_rest_as_by_adamw() -> None:
    net, other = network(), network()
    optimizer = Muon(parameter_groups(net.parameters()), lr=0.03, adamw_lr=1e-3, weight_decay=0.1)
    (kernel,) = (p for p in other.parameters() if is_kernel(p))
    matrix = nn.Parameter(kernel.detach().flatten(1))
    muon = torch.optim.Muon([matrix], lr=0.03, momentum=0.95, weight_decay=0.1)
    rest = [p for p in other.parameters() if p is not kernel]
    adamw = torch.optim.AdamW(parameter_groups(rest), lr=1e-3, weight_decay=0.1)
    for seed in range(3):
        set_gradients(net, seed)
        set_gradients(other, seed)
        assert kernel.grad is not None
        matrix.grad = kernel.grad.flatten(1)
        optimizer.step()
        muon.step()
        adamw.step()
    for name, parameter in net.named_parameters():
        expected = dict(other.named_parameters())[name]
        if expected is kernel:
            torch.testing.assert_close(parameter, matrix.view(kernel.shape), rtol=1e-5, atol=1e-6)
        else:
            assert torch.equal(parameter, expected), name
    assert [group["of_muon"] for group in optimizer.param_groups] == [True, False, False]


def test_a_restored_optimizer_goes_on_as_if_nothing_had_been() -> None:
    found = []
    for interrupted in (False, True):
        net = network()
        optimizer = Muon(parameter_groups(net.parameters()))
        for seed in range(4):
            if seed == 2 and interrupted:
                buffer = io.BytesIO()
                torch.save(optimizer.state_dict(), buffer)
                buffer.seek(0)
                optimizer = Muon(parameter_groups(net.parameters()))
                optimizer.load_state_dict(torch.load(buffer, weights_only=True))
            set_gradients(net, seed)
            for group in optimizer.param_groups:  # as a schedule does
                group["lr"] *= 0.9
            optimizer.step()
        found.append(net.state_dict())
    assert all(torch.equal(found[0][key], found[1][key]) for key in found[0])


@pytest.mark.parametrize("convolutions", [1, 2])
def test_a_deep_network_folds_and_has_its_layers(convolutions: int) -> None:
    torch.manual_seed(0)
    net = SharedCNN([4, 8], image_size=16, convolutions=convolutions)
    images = torch.rand(8, 1, 16, 16)
    net.train()(images)  # moves BatchNorm's statistics
    kernels = [part for part in net.modules() if isinstance(part, nn.Conv2d)]
    assert len(kernels) == 2 * convolutions
    net.eval()
    torch.testing.assert_close(net(images), net.folded()(images), rtol=1e-4, atol=1e-5)
    assert not any(isinstance(part, nn.BatchNorm2d) for part in net.folded().modules())
    assert len(net.stages()) == 3
