"""Kernel attention in the words of its recording: a case, its weights and its outputs.

Source of the formulas: 1908.11775. It was published without an implementation, so no checkpoint
has these names and no run of a task is composed from them; the recording holds naive loops.
"""

from __future__ import annotations

from collections.abc import Mapping
from numbers import Integral
from typing import Any, TypeVar

import torch
from numpy import ndarray
from torch import Tensor, nn

from equipoise.equilibrium import GradientEstimator, Solver
from equipoise.interop.published_configuration import DoesNotFit, PublishedConfiguration
from equipoise.interop.recorded_arrays import (
    as_arrays,
    as_tensors,
    evaluation_copy,
    required,
    widest,
)
from equipoise.nn import AttentionForm, KernelAttention, SetFilter

NAME = "kernel attention"
KERNELS = {"linear": "linear", "poly2": "polynomial", "exp": "exponential", "rbf": "rbf"}
POSITIONS = {
    "none": "none",
    "direct-sum": "direct_sum",
    "lookup": "lookup",
    "product-xl": "product",
    "product-sym": "symmetric_product",
}
FILTERS = ("full", "causal", "causal+mem", "window")
OF_THE_SEGMENT = ("full", "causal")
WORDS = ("kernel", "sym", "pe", "vpos", "filt", "memory", "window")
RECORDED_MEMORY = RECORDED_WINDOW = 3

PUBLISHED_NAMES = {
    "query.weight": "Wq",
    "key.weight": "Wk",
    "value.weight": "Wv",
    "smoother.positional.position.weight": "Wr",
    "smoother.positional.content_bias": "r_w_bias",
    "smoother.positional.position_bias": "r_r_bias",
    "smoother.positional.vectors": "lookup",
}
ARRAYS = tuple(PUBLISHED_NAMES.values())
IN_HEADS = ("r_w_bias", "r_r_bias", "lookup")
"""Arrays (..., heads, width of a head)."""
Choice = TypeVar("Choice")


class RecordedAttention(nn.Module):
    """An attention and its set filter: the queries are the last K - memory of K positions.

    filter: `full` and `causal` show nothing of the memory, `causal+mem` and `window` do.
    """

    def __init__(
        self, attention: KernelAttention, filter_name: str, *, memory: int, window: int
    ) -> None:
        super().__init__()
        self.attention = attention
        self.filter_name = filter_name
        self.memory = memory
        self.window = window

    def view(self, positions: int, device: torch.device) -> SetFilter:
        """What the queries see. Keys are hidden, not left out, so positions keep their numbers."""
        present = torch.arange(positions, device=device) >= self.memory
        return SetFilter(
            positions - self.memory,
            positions,
            causal=self.filter_name != "full",
            window=self.window if self.filter_name == "window" else None,
            present=present[None] if self.filter_name in OF_THE_SEGMENT else None,
            device=device,
        )

    def forward(self, features: Tensor, table: Tensor | None) -> tuple[Tensor, Tensor]:
        """Features (B, K, D), positions (K, D) -> out (B, Q, D) and weights (B, H, Q, K).

        The table is indexed by number, as an array is: distance -1 is its last row.
        """
        view = self.view(features.shape[1], features.device)
        rows = None if table is None else table.__getitem__
        queries = features[:, self.memory :]
        return (
            self.attention(queries, features, view, rows),
            self.attention.weights(queries, features, view, rows),
        )


def from_reference(
    config: Mapping[str, Any],
    state_dict: Mapping[str, Any],
    *,
    solver: Solver | None = None,
    gradient: GradientEstimator | None = None,
) -> RecordedAttention:
    """The attention of a case, in float64 if the arrays are and float32 otherwise.

    config: kernel, sym, pe, vpos and filt, and if they are not 3, memory and window, which counts
    the query's own position. state_dict: Wq, Wk, Wv, Wr (D, D), which multiply from the right,
    r_w_bias and r_r_bias (heads, d), lookup (2 radius + 1, heads, d); one that the case does not
    use may be missing. Raises DoesNotFit, a ValueError, if words or shapes do not fit, or if a
    solver or gradient is given, since an attention has none.
    """
    if solver is not None or gradient is not None:
        raise DoesNotFit("a kernel attention has neither a solver nor an estimator")
    case = PublishedConfiguration(config, NAME)
    unknown = [word for word in case.values if word not in WORDS]
    if unknown:
        raise DoesNotFit(f"a case has no word {', '.join(unknown)}; it has {', '.join(WORDS)}")
    arrays = {n: torch.as_tensor(array) for n, array in state_dict.items() if n in ARRAYS}
    positions = _chosen(case, "pe", POSITIONS)
    heads, width = _heads_and_width(arrays, positions)
    form = AttentionForm(
        kernel=_chosen(case, "kernel", KERNELS),  # type: ignore[arg-type]
        symmetric=_chosen(case, "sym", {"False": False, "True": True}),
        positions=positions,  # type: ignore[arg-type]
        value_positions=_chosen(case, "vpos", {"False": False, "True": True}),
        radius=_radius(arrays) if positions == "lookup" else AttentionForm.radius,
    )
    model = RecordedAttention(
        KernelAttention(form, width, heads),
        _chosen(case, "filt", {name: name for name in FILTERS}),
        memory=_whole_number(case, "memory", RECORDED_MEMORY, lowest=0),
        window=_whole_number(case, "window", RECORDED_WINDOW, lowest=1),
    ).to(torch.promote_types(widest(arrays), torch.float32))
    _load(model.attention, arrays)
    return model


@torch.no_grad()
def reference_forward(model: RecordedAttention, arrays: Mapping[str, Any]) -> dict[str, ndarray]:
    """out (B, Q, D) and weights (B, heads, Q, K), 0 if a query does not see a key.

    Takes features f (B, K, D) and positions t (K, D), which a case without positions does not need.
    Raises DoesNotFit if their shapes do not fit the attention.
    """
    inputs = as_tensors(arrays, model)
    features = required(inputs, "f", "the features (batch, positions, width)")
    width = model.attention.query.in_features
    if features.dim() != 3 or features.shape[2] != width or features.shape[1] <= model.memory:
        raise DoesNotFit(
            f"f must be (batch, positions, {width}) with more positions than the memory of "
            f"{model.memory}, got {_shape(features)}"
        )
    table = inputs.get("t")
    form = model.attention.form
    if table is None and (form.value_positions or form.positions not in ("none", "lookup")):
        required(inputs, "t", "the positions (positions, width)")
    if table is not None and table.shape != features.shape[1:]:
        raise DoesNotFit(f"t must be {_shape(features[0])} as one sample of f, got {_shape(table)}")
    network = evaluation_copy(model, widest(inputs))
    out, weights = network(features, table)
    return as_arrays({"out": out, "weights": weights})


def _chosen(case: PublishedConfiguration, word: str, choices: Mapping[str, Choice]) -> Choice:
    value = str(case.need(word))
    if value not in choices:
        raise DoesNotFit(f"{word} is {value}; choose {', '.join(choices)}")
    return choices[value]


def _whole_number(case: PublishedConfiguration, word: str, otherwise: int, *, lowest: int) -> int:
    value = case.get(word, otherwise)
    if not isinstance(value, Integral) or isinstance(value, bool) or value < lowest:
        raise DoesNotFit(f"{word} is {value}; it must be a whole number, at least {lowest}")
    return int(value)


def _heads_and_width(arrays: Mapping[str, Tensor], positions: str) -> tuple[int, int]:
    """Heads according to the first array in heads, those in use first, and the width D."""
    wq = required(arrays, "Wq", "the weights of the queries (width, width)")
    telling = ("lookup", *IN_HEADS) if positions == "lookup" else IN_HEADS
    found = [arrays[name] for name in telling if name in arrays and arrays[name].dim() >= 2]
    if not found:
        raise DoesNotFit(f"the number of heads is that of {', '.join(IN_HEADS)}: give one of them")
    heads, head_width = found[0].shape[-2:]
    if wq.dim() != 2 or wq.shape[0] != wq.shape[1] or heads * head_width != wq.shape[0]:
        raise DoesNotFit(
            f"Wq must be square, as wide as {heads} heads of {head_width} are together, got "
            f"{_shape(wq)}"
        )
    return heads, heads * head_width


def _radius(arrays: Mapping[str, Tensor]) -> int:
    lookup = required(arrays, "lookup", "a row (heads, width of a head) for each distance")
    if len(lookup) < 3 or len(lookup) % 2 == 0:
        raise DoesNotFit(f"lookup has {len(lookup)} rows; it must have 3, 5, 7, ... of them")
    return len(lookup) // 2


def _load(attention: KernelAttention, arrays: Mapping[str, Tensor]) -> None:
    """Copy every parameter; here matrices multiply from the left."""
    for name, parameter in attention.named_parameters():
        published = PUBLISHED_NAMES[name]
        array = required(arrays, published, "whose part of the case it is")
        array = array.T if name.endswith(".weight") and array.dim() == 2 else array
        if array.shape != parameter.shape:
            expected = parameter.T if name.endswith(".weight") else parameter
            raise DoesNotFit(
                f"{published} must be {_shape(expected)}, got {_shape(arrays[published])}"
            )
        with torch.no_grad():
            parameter.copy_(array)


def _shape(array: Tensor) -> str:
    return f"({', '.join(map(str, array.shape))})"
