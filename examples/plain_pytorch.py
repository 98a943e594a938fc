"""The equilibrium layer in a plain PyTorch loop: handwritten digits, no Lightning, no Hydra.

    python examples/plain_pytorch.py

z* = tanh(W z* + U x) is solved by Anderson acceleration; the phantom gradient goes back through
five damped steps from z*, and a penalty on the Jacobian keeps the equilibrium easy to reach.
"""

from __future__ import annotations

import argparse

import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn import functional

from equipoise.equilibrium import Anderson, Equilibrium, JacobianRegularizer, Phantom


class Classifier(nn.Module):
    """Logits of images in a row (B, 64), read from an equilibrium of `width` numbers."""

    def __init__(self, width: int = 64) -> None:
        super().__init__()
        self.inward = nn.Linear(64, width)
        self.recurrent = nn.Linear(width, width, bias=False)
        self.outward = nn.Linear(width, 10)
        self.equilibrium = Equilibrium(
            Anderson(max_steps=30, tol=1e-3),
            Phantom(steps=5, damping=0.5),
            regularizer=JacobianRegularizer(weight=0.5, probability=0.5),
        )

    def forward(self, image: Tensor) -> Tensor:
        """Everything that f needs per sample is passed through the layer, here x."""
        x = self.inward(image)
        z = self.equilibrium(self.step, torch.zeros_like(x), x)
        logits: Tensor = self.outward(z)
        return logits

    def step(self, z: Tensor, x: Tensor) -> Tensor:
        """One evaluation of f."""
        return torch.tanh(self.recurrent(z) + x)


def main() -> None:
    """Train, and print what the solver did."""
    parser = argparse.ArgumentParser(description="The equilibrium layer in a plain PyTorch loop.")
    parser.add_argument("--epochs", type=int, default=10)
    given = parser.parse_args()

    torch.manual_seed(0)
    digits = load_digits()
    images = torch.from_numpy(digits.data).float() / 16
    labels = torch.from_numpy(digits.target)
    training, test = torch.randperm(len(images)).split([1400, len(images) - 1400])

    network = Classifier()
    optimizer = torch.optim.Adam(network.parameters(), 3e-3)
    for epoch in range(given.epochs):
        network.train()
        for rows in training[torch.randperm(len(training))].split(64):
            loss = functional.cross_entropy(network(images[rows]), labels[rows])
            penalty = network.equilibrium.pop_penalty()  # None in the steps without one
            if penalty is not None:
                loss = loss + penalty
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        network.eval()
        with torch.no_grad():
            hits = network(images[test]).argmax(dim=1) == labels[test]
        report = network.equilibrium.report
        print(
            f"epoch {epoch + 1}  loss {loss.item():.3f}  test accuracy {hits.float().mean():.3f}  "
            f"evaluations {report.nfe}  converged {report.converged.float().mean():.0%}"
        )


if __name__ == "__main__":
    main()
