"""Tune the weight decay of a digits MDEQ's classifier by gradients.

    python examples/weight_decay_of_mdeq.py
    python examples/weight_decay_of_mdeq.py --strengths one

A short training gives the network. Everything before its classifier stays as it is. The inner
problem: the classifier's weights W minimise the mean cross-entropy of the training images plus
1/2 sum_f exp(lambda_f) |W_f|^2, W_f the weights of feature f. The outer problem: lambda minimises
the cross-entropy of the validation images. One solve by L-BFGS gives that loss, and the inverse
Hessian that the solver has built on its way gives its derivative towards every lambda (SHINE).
"""

from __future__ import annotations

import argparse
import time

import torch
from torch import Tensor, nn
from torch.nn import functional

import equipoise
from equipoise.data import Digits
from equipoise.equilibrium import LBFGS, Equilibrium, Shine
from equipoise.models.regularized import LogisticRegression
from equipoise.models.regularized.table import Table
from equipoise.tasks.hypergradient_descent import HypergradientDescent

FIXED_DECAYS = (2e-4, 1e-3, 5e-3, 2e-2, 1e-1)
FIRST_LOG_DECAY, LOG_DECAYS = -5.0, (-9.0, -1.0)
"""Where lambda starts, and its bounds."""


def trained_network(images: dict[str, Tensor], steps: int) -> nn.Module:
    """The MDEQ after some steps of Adam, in evaluation mode."""
    torch.manual_seed(0)
    network = equipoise.build("model=mdeq", "task=digits", "model.size=tiny", "solver.tol=1e-2")
    optimizer = torch.optim.Adam(network.parameters(), 3e-3)
    for _ in range(steps):
        rows = torch.randperm(len(images["label"]))[:64]
        loss = functional.cross_entropy(network(images["image"][rows]), images["label"][rows])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return network.eval()


def features(network: nn.Module, images: dict[str, Tensor]) -> Table:
    """What the classifier reads, in the form that the regularised models take."""
    with torch.no_grad():
        read = network(images["image"]).double()
    return {"features": read, "transposed": read.T.contiguous(), "target": images["label"]}


def decaying_classifier(
    classifier: nn.Linear, strengths: str, log_decay: float, evaluations: int
) -> LogisticRegression:
    """Multinomial logistic regression that begins at the network's own classifier."""
    solver = LBFGS(
        max_steps=evaluations, tol=1e-5, opa_every=10
    )  # opa: aims the inverse at the outer loss
    model = LogisticRegression(
        equilibrium=Equilibrium(solver, Shine()),
        features=classifier.in_features,
        classes=classifier.out_features,
        strengths=strengths,
        log_strength=log_decay,
        bounds=LOG_DECAYS,
    )
    own = [classifier.weight.T.flatten(), classifier.bias]
    model.coefficients.copy_(torch.cat(own).detach().unsqueeze(0))
    return model


def figures(model: LogisticRegression, tables: dict[str, Table]) -> str:
    """Loss and accuracy of the present weights on each split."""
    found = []
    for split, table in tables.items():
        with torch.no_grad():
            scores = model(table)
        loss = model.loss(scores, table["target"]).mean()
        accuracy = (model.predicted(scores) == table["target"]).double().mean()
        found.append(f"{split} {loss:.4f} ({accuracy:.1%})")
    return "  ".join(found)


def main() -> None:
    """Tune, and compare with fixed decays."""
    parser = argparse.ArgumentParser(description="Tune the weight decay of an MDEQ's classifier.")
    parser.add_argument("--images", type=int, default=300, help="number of training images")
    parser.add_argument("--training-steps", type=int, default=60, help="of the network")
    parser.add_argument("--outer-steps", type=int, default=12)
    parser.add_argument("--evaluations", type=int, default=1000, help="of a solve, at most")
    parser.add_argument("--strengths", choices=("one", "feature"), default="feature")
    given = parser.parse_args()

    # 1. Images, a network, and what its classifier reads from them.
    data = Digits(
        batch_size=given.images,
        eval_batch_size=4 * given.images,  # by default, all that there are
        test_fraction=0.4,
        val_fraction=0.5,
    )
    data.setup()
    loaders = data.train_dataloader(), data.val_dataloader(), data.test_dataloader()
    training, validation, test = (next(iter(loader)) for loader in loaders)
    network = trained_network(training, given.training_steps)
    head = network.heads["logits"]
    classifier, head.classifier = head.classifier, nn.Identity()
    splits = {"training": training, "validation": validation, "test": test}
    tables = {split: features(network, images) for split, images in splits.items()}

    # 2. The outer steps.
    model = decaying_classifier(classifier, given.strengths, FIRST_LOG_DECAY, given.evaluations)
    print(f"{model.log_strength.numel()} lambdas. Loss (accuracy):")
    print(f"{'as trained':16}{figures(model, tables)}")
    optimizer = HypergradientDescent(model.parameters(), lr=0.5)
    began = time.perf_counter()
    for step in range(given.outer_steps):
        w = model.solve(tables["training"], tables["validation"])
        loss = model.outer_loss(w, tables["validation"])
        optimizer.zero_grad()
        loss.backward()
        found = model.log_strength.detach()
        told = f"lambda {found.min():.2f} to {found.max():.2f}, mean {found.mean():.2f}"
        print(f"outer step {step:<5}{figures(model, tables)}  {told}", flush=True)
        optimizer.step(loss.item)
        model.project()
    print(f"{given.outer_steps} outer steps took {time.perf_counter() - began:.1f} s")

    # 3. The same with decays that are fixed, one for all weights.
    for decay in FIXED_DECAYS:
        log_decay = torch.tensor(decay).log().item()
        fixed = decaying_classifier(classifier, "one", log_decay, given.evaluations)
        fixed.solve(tables["training"], tables["validation"])
        print(f"decay {decay:<10g}{figures(fixed, tables)}")


if __name__ == "__main__":
    main()
