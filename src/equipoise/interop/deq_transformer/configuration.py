"""The published configurations of the equilibrium transformer, as arguments of our class."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import accumulate
from typing import Any

from torch import Tensor

from equipoise.interop.deq_transformer.weights import is_of_2020, primary
from equipoise.interop.published_configuration import (
    DoesNotFit,
    PublishedConfiguration,
    token_lines,
)
from equipoise.interop.published_solvers import (
    SolverChoice,
    exact_lines,
    layer_lines,
    sequence_solver,
    solvers_of_2020,
)
from equipoise.interop.published_weights import same

NAME = "DEQ-Transformer"
DISTINCTIVE = ("word_emb.emb_layers.0.weight", "inject_conv.weight", "func.dec_attn.r_w_bias")
UNLIMITED_WINDOW = 1000
"""What the published code uses for a local_size of 0."""


def architecture(config: Mapping[str, Any], weights: Mapping[str, Tensor]) -> dict[str, Any]:
    """The arguments of our DEQTransformer, except its equilibrium.

    The configuration decides, or the weights if it is silent; weight norm and ties follow the
    weights alone. Raises DoesNotFit if the weights are not those of such a model, or if ties that
    the configuration requires do not hold.
    """
    published = PublishedConfiguration(config, NAME)
    for name in DISTINCTIVE:
        if name not in weights:
            raise DoesNotFit(f"the weights have no '{name}', so they are not a published {NAME}'s")
    tables = _numbered(weights, "word_emb.emb_layers")
    width = published.get("d_model", weights["inject_conv.weight"].shape[1])
    heads = published.get("n_head", len(weights["func.dec_attn.r_w_bias"]))
    _check_heads(published, heads, width)
    divisor = published.get("div_val", _divisor(tables))
    return {
        "vocabulary": published.get("n_token", sum(len(table) for table in tables)),
        "memory_length": published.get("mem_len", 0),
        "width": width,
        "heads": heads,
        "inner_width": published.get("d_inner", _inner_width(weights)),
        "embedding_width": _embedding_width(published, tables, width),
        "divisor": divisor,
        "cutoffs": _cutoffs(published, tables, weights),
        "norm": "published_pre" if published.get("pre_lnorm", False) else "post",
        "weight_norm": "func.dec_attn.qkv_net.weight_g" in weights,
        "window": published.get("local_size", 0) or UNLIMITED_WINDOW,
        "dropout": published.get("dropout", 0.0),
        "attention_dropout": published.get("dropatt", 0.0),
        "tie_weights": _tied_tables(published, tables, weights),
        "tie_projections": _tied_projections(divisor, weights),
    }


def solvers(config: Mapping[str, Any], *, of_2020: bool) -> tuple[SolverChoice, SolverChoice]:
    """The forward and the backward solver; the defaults are those of the year's script."""
    if of_2020:
        return solvers_of_2020(config, 30)
    published = PublishedConfiguration(config, NAME)
    forward = sequence_solver(published, "f", "anderson", 30)
    return forward, sequence_solver(published, "b", "broyden", 35)


def overrides(config: Mapping[str, Any], state_dict: Mapping[str, Any]) -> list[str]:
    """Group choices and settings for task, model, solver and gradient."""
    arguments = architecture(config, primary(state_dict))
    forward, backward = solvers(config, of_2020=is_of_2020(state_dict))
    return [
        *token_lines("deq_transformer", PublishedConfiguration(config, NAME), arguments),
        *layer_lines(forward, exact_lines(backward)),
    ]


def _numbered(weights: Mapping[str, Tensor], prefix: str) -> list[Tensor]:
    count = sum(name.startswith(f"{prefix}.") and name.endswith(".weight") for name in weights)
    names = [f"{prefix}.{index}.weight" for index in range(count)]
    if missing := [name for name in names if name not in weights]:
        raise DoesNotFit(f"the weights do not fit the configuration; missing: {missing[0]}")
    return [weights[name] for name in names]


def _check_heads(published: PublishedConfiguration, heads: int, width: int) -> None:
    head_width = published.get("d_head", width // heads)
    if heads * head_width != width:
        raise DoesNotFit(
            f"{heads} n_head of {head_width} d_head are not as wide as d_model {width}, "
            "which the injection needs"
        )


def _divisor(tables: list[Tensor]) -> int:
    return 1 if len(tables) == 1 else tables[0].shape[1] // tables[1].shape[1]


def _inner_width(weights: Mapping[str, Tensor]) -> int:
    bias = weights.get("func.pos_ff.ff1_net.bias")
    if bias is None:
        raise DoesNotFit(f"the weights have no 'func.pos_ff.ff1_net.bias' of a published {NAME}")
    return len(bias)


def _embedding_width(published: PublishedConfiguration, tables: list[Tensor], width: int) -> int:
    stated: int = published.get("d_embed", tables[0].shape[1])
    # The published scripts write -1 for "as wide as the model".
    return stated if stated > 0 else width


def _cutoffs(
    published: PublishedConfiguration, tables: list[Tensor], weights: Mapping[str, Tensor]
) -> list[int]:
    if "cutoffs" in published:
        return [int(cutoff) for cutoff in published.get("cutoffs", [])]
    if len(tables) == 1 and "crit.cluster_weight" in weights:
        return list(published.need("cutoffs"))
    return list(accumulate(len(table) for table in tables[:-1]))


def _tied_tables(
    published: PublishedConfiguration, tables: list[Tensor], weights: Mapping[str, Tensor]
) -> bool:
    pairs = [(t, weights.get(f"crit.out_layers.{i}.weight")) for i, t in enumerate(tables)]
    equal = all(theirs is None or same(table, theirs) for table, theirs in pairs)
    ties = published.get("tied", not published.get("not_tied", False))
    if "tied" in published and ties and not equal:
        raise DoesNotFit("tied is set, but crit.out_layers.* differ from word_emb.emb_layers.*")
    return equal and bool(ties)


def _tied_projections(divisor: int, weights: Mapping[str, Tensor]) -> list[bool]:
    """Which projections the softmax shares with the embedding: those that are equal, or missing."""
    clusters = 1 + len(weights.get("crit.cluster_weight", ()))
    ties = []
    for index in range(clusters):
        ours = weights.get(f"word_emb.emb_projs.{index if divisor > 1 else 0}.weight")
        theirs = weights.get(f"crit.out_projs.{index}.weight")
        ties.append(ours is not None and (theirs is None or same(ours, theirs)))
    return ties
