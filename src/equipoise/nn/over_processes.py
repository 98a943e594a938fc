"""Sums and statistics over a batch that is divided among processes."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, distributed, nn

from equipoise.equilibrium.processes import note_exchange, number_of_processes


def samples_of_all_processes(rows: Tensor) -> int:
    """The number of rows of all processes together."""
    if number_of_processes() == 1:
        return len(rows)
    count = torch.tensor(len(rows), device=rows.device)
    note_exchange()
    distributed.all_reduce(count)
    return int(count)


def per_process(count: Tensor) -> Tensor:
    """The divisor of a sum over a process's samples, if processes average their gradients.

    The mean count of all processes, so that the average is the mean over all samples; if no
    gradient is needed, or there is only one process, the count itself.
    """
    processes = number_of_processes()
    if processes == 1 or not torch.is_grad_enabled():
        return count
    return _summed(count.detach()) / processes


def sum_over_processes(part: Tensor) -> Tensor:
    """The sum over all processes, differentiable; without a process group the tensor itself."""
    total: Tensor = _SumOverProcesses.apply(part) if number_of_processes() > 1 else part
    return total


class _SumOverProcesses(torch.autograd.Function):
    """Every process holds the sum S = sum_r x_r, so x_r receives the cotangents of all of them."""

    @staticmethod
    def forward(context: Any, part: Tensor) -> Tensor:
        return _summed(part)

    @staticmethod
    def backward(context: Any, cotangent: Tensor) -> Tensor:
        return sum_over_processes(cotangent)


def _summed(part: Tensor) -> Tensor:
    total = part.contiguous().clone()
    note_exchange()
    distributed.all_reduce(total)
    return total


class BatchNormOverProcesses(nn.modules.batchnorm._BatchNorm):
    """torch's SyncBatchNorm for processors without a kernel for it, such as the CPU.

    In training the mean and the variance of each channel are those of the batches of all processes,
    as are the running ones; in evaluation the running ones are used, and nothing is exchanged.
    Gradients are meant to be averaged over the processes. Statistics are computed in float32 or
    wider. Within the function of an equilibrium the solves of all processes stop together; under
    solvers that evaluate it a varying number of times in a step (newton_krylov, adjoint_broyden)
    and with `on_failure="fallback"`, this holds only for tol = 0.

    Source: Ioffe and Szegedy 2015 (arXiv 1502.03167), algorithm 1.
    """

    def forward(self, input: Tensor) -> Tensor:
        """The normalised batch (N, C, ...), in its own shape and dtype."""
        if not self.training or number_of_processes() == 1:
            return super().forward(input)
        with torch.autocast(input.device.type, enabled=False):
            return self._normalised(input)

    def _check_input_dim(self, input: Tensor) -> None:
        """Any number of dimensions from two on."""

    def _normalised(self, input: Tensor) -> Tensor:
        wide = input.to(torch.promote_types(input.dtype, torch.float32))
        axes = [axis for axis in range(wide.ndim) if axis != 1]
        shape = [-1 if axis == 1 else 1 for axis in range(wide.ndim)]
        values = wide.new_tensor([wide.numel() / wide.shape[1]])
        sums = sum_over_processes(torch.cat((wide.sum(axes), values)))
        count = sums[-1].detach()
        mean = sums[:-1] / count
        centred = wide - mean.view(shape)
        variance = sum_over_processes(centred.square().sum(axes)) / count
        self._follow(mean.detach(), variance.detach(), count)
        normalised = centred * (variance + self.eps).rsqrt().view(shape)
        if self.affine:
            normalised = normalised * self.weight.view(shape) + self.bias.view(shape)
        return normalised.to(input.dtype)

    def _follow(self, mean: Tensor, variance: Tensor, count: Tensor) -> None:
        """Move the running statistics, whose variance is the unbiased one, towards these."""
        if not self.track_running_stats or self.running_mean is None or self.running_var is None:
            return
        assert self.num_batches_tracked is not None
        self.num_batches_tracked.add_(1)
        every = 1.0 / float(self.num_batches_tracked)  # without momentum all batches count equally
        momentum = every if self.momentum is None else self.momentum
        unbiased = variance * (count / (count - 1))
        self.running_mean.lerp_(mean.to(self.running_mean.dtype), momentum)
        self.running_var.lerp_(unbiased.to(self.running_var.dtype), momentum)


class NotedSyncBatchNorm(nn.SyncBatchNorm):
    """torch's SyncBatchNorm, for GPUs, which notes each exchange for the solve."""

    def forward(self, input: Tensor) -> Tensor:
        """The normalised batch (N, C, ...)."""
        if self.training and number_of_processes() > 1:
            note_exchange()
            if input.requires_grad:
                input.register_hook(lambda _: note_exchange())
        output: Tensor = super().forward(input)
        return output
