"""The published graph transformer of couplings written out: molecule by molecule, all nodes dense.

Names and layouts of weights and arrays are the published ones; so are the indices, unless `correct`
is said: then places among pairs and triplets are counted behind the nodes that come before them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy import ndarray
from torch import Tensor
from torch.nn import functional

Weights = dict[str, Tensor]
Words = dict[str, Any]
TWO_BLOCKS = set("ABCDEFGILM")
WORDS: Words = {
    "dim": 12, "n_layers": 2, "final_dim": 3, "d_inner": 10, "fdim": 4, "n_head": 2,
    "num_atom_types": [3, 4, 5], "num_bond_types": [4, 6, 7], "num_triplet_types": [4, 8],
    "num_quad_types": [5], "dist_embedding": "sine", "atom_angle_embedding": "sine",
    "trip_angle_embedding": "sine", "quad_angle_embedding": "sine", "source_dir": "src",
}  # fmt: skip
EMBEDDINGS = {
    "atom": "atom_angle_embedding", "bond": "dist_embedding", "triplet": "trip_angle_embedding",
    "quad": "quad_angle_embedding",
}  # fmt: skip


def letter(words: Words) -> str:
    found = re.search("model_([A-M])$", words["source_dir"])
    return found[1] if found else ""


def blocks(words: Words) -> int:
    return 2 if letter(words) in TWO_BLOCKS else 1


def kinds(words: Words) -> list[str]:
    quads = words.get("use_quad", False) or letter(words) == "L"
    return ["atom", "bond", "triplet", *(["quad"] if quads else [])]


def shapes(words: Words) -> dict[str, tuple[int, ...]]:
    """Every entry of a published state dict."""
    width, inner, types = words["dim"], words["d_inner"], words["num_bond_types"][1]
    found: dict[str, tuple[int, ...]] = {}
    for kind in kinds(words):
        sine = words[EMBEDDINGS[kind]] == "sine"
        room = width if sine else width - words["fdim"]
        for level, count in enumerate(words[f"num_{kind}_types"]):
            found[f"{kind}_embedding.embedding.embeds.{level}.weight"] = (count + 1, room)
        for number in range(0 if not sine else 2 if kind == "atom" else 1):
            found |= _linear_shapes(f"{kind}_embedding.projs.{number}", width, width)
        if not sine:
            found |= _linear_shapes(f"{kind}_embedding.proj", 1, words["fdim"])
    for number in range(words["n_layers"]):
        layer, norm = f"layers.{number}", words.get("wnorm", False)
        found[f"{layer}.gamma"] = (4, 4)
        found |= _linear_shapes(f"{layer}.qkv_net", width, 3 * width, norm=norm)
        found |= _linear_shapes(f"{layer}.o_net", width, width, norm=norm, bias=False)
        found |= _linear_shapes(f"{layer}.proj1", width, inner, norm=norm)
        found |= _linear_shapes(f"{layer}.proj2", inner, width, norm=norm)
        for name in ("norm1", "norm2"):
            found |= {f"{layer}.{name}.{part}": (width,) for part in ("weight", "bias")}
    if letter(words) == "L":
        found["seg_embedding"] = (4, 1, width)
    found |= {f"final_norm.{part}": (width,) for part in ("weight", "bias")}
    sizes = {"final_lin1": (types * words["final_dim"], width)}
    for number in range(blocks(words)):
        for place in (0, 3):
            name = f"final_res.{number}.proj.{place}"
            sizes[name] = (types * words["final_dim"], words["final_dim"])
    sizes[f"final_res.{blocks(words)}"] = (types, words["final_dim"])
    for name, (rows, columns) in sizes.items():
        found |= {f"{name}.weight": (rows, columns, 1), f"{name}.bias": (rows,)}
    return found


def _linear_shapes(
    name: str, source: int, target: int, *, norm: bool = False, bias: bool = True
) -> dict[str, tuple[int, ...]]:
    found: dict[str, tuple[int, ...]] = {f"{name}.bias": (target,)} if bias else {}
    if norm:
        return found | {f"{name}.weight_g": (target, 1), f"{name}.weight_v": (target, source)}
    return found | {f"{name}.weight": (target, source)}


def drawn(words: Words, seed: int = 0, dtype: torch.dtype = torch.float64) -> Weights:
    """Random weights; norms near 1 and 0, distances that weaken by about 0.1 a squared Angstrom."""
    generator = torch.Generator().manual_seed(seed)
    weights = {}
    for name, shape in shapes(words).items():
        tensor = torch.randn(shape, generator=generator, dtype=torch.float64)
        tensor *= shape[1] ** -0.5 if len(shape) > 1 and "embeds" not in name else 0.3
        if name.endswith("gamma"):
            tensor = 0.1 + 0.2 * tensor.abs()
        weights[name] = (tensor + ("norm" in name and name.endswith("weight"))).to(dtype)
    return weights


def molecules(
    words: Words, counts: Sequence[Mapping[str, int]], sizes: Mapping[str, int], seed: int = 0
) -> dict[str, ndarray]:
    """Random arrays in float64: of each molecule as many nodes of each kind, padded to the sizes.

    All of a kind's atoms, pairs and triplets are among those that are there. The published code
    leaves the last column of x_triplet 0; it is the first pair, which `correct` indices need.
    """
    random = np.random.default_rng(seed)
    batch = len(counts)
    arrays = {
        "x_atom": np.zeros((batch, sizes["atom"], 3), int),
        "x_atom_pos": np.zeros((batch, sizes["atom"], 5)),
        "x_bond": np.zeros((batch, sizes["bond"], 5), int),
        "x_bond_dist": np.zeros((batch, sizes["bond"])),
        "x_triplet": np.zeros((batch, sizes["triplet"], 7), int),
        "x_triplet_angle": np.zeros((batch, sizes["triplet"])),
        "x_quad": np.zeros((batch, sizes["quad"], 10), int),
        "x_quad_angle": np.zeros((batch, sizes["quad"])),
    }
    columns = {
        "atom": ([], []), "bond": (["atom"] * 2, []), "triplet": (["atom"] * 3, ["bond"] * 2),
        "quad": (["atom"] * 4, ["bond"] * 3 + ["triplet"] * 2),
    }  # fmt: skip
    for row, count in enumerate(counts):
        for kind, (atoms, others) in columns.items():
            number, labels = count[kind], words[f"num_{kind}_types"]
            filled = [random.integers(1, most + 1, number) for most in labels]
            filled += [random.integers(0, count[of], number) for of in (*atoms, *others)]
            arrays[f"x_{kind}"][row, :number] = np.stack(filled, axis=1)
        arrays["x_atom_pos"][row, : count["atom"]] = random.normal(size=(count["atom"], 5))
        for kind, name in (
            ("bond", "bond_dist"),
            ("triplet", "triplet_angle"),
            ("quad", "quad_angle"),
        ):
            arrays[f"x_{name}"][row, : count[kind]] = random.uniform(0, 3, count[kind])
    return arrays


def forward(
    words: Words, weights: Weights, arrays: Mapping[str, ndarray], *, correct: bool = False
) -> ndarray:
    """y_pred (molecules, types, bonds)."""
    samples = len(arrays["x_atom"])
    inputs = [{n: torch.as_tensor(a[i]) for n, a in arrays.items()} for i in range(samples)]
    return np.stack([_of_molecule(words, weights, one, correct).numpy() for one in inputs])


def _of_molecule(words: Words, weights: Weights, x: dict[str, Tensor], correct: bool) -> Tensor:
    numbers = {
        "atom": x["x_atom_pos"][:, 3:], "bond": x["x_bond_dist"][:, None],
        "triplet": x["x_triplet_angle"][:, None], "quad": x["x_quad_angle"][:, None],
    }  # fmt: skip
    states = [
        _embedded(words, weights, kind, x[f"x_{kind}"], numbers[kind]) for kind in kinds(words)
    ]
    z = torch.cat(states)
    kind = torch.cat([torch.full((len(s),), n) for n, s in enumerate(states)])
    there = torch.cat([x[f"x_{name}"][:, 0] > 0 for name in kinds(words)])
    far = distances(x, quads="quad" in kinds(words), correct=correct)
    pairs = there[:, None] & there[None, :]
    for number in range(words["n_layers"]):
        layer = f"layers.{number}"
        gamma = weights[f"{layer}.gamma"][kind[:, None], kind[None, :]]
        attended = _attention(
            words["n_head"], weights, layer, _normal(weights, f"{layer}.norm1", z), -gamma * far,
            pairs,
        )  # fmt: skip
        z = z + attended
        inner = _linear(weights, f"{layer}.proj1", _normal(weights, f"{layer}.norm2", z))
        z = z + _linear(weights, f"{layer}.proj2", inner.clamp(min=0))
    return _head(words, weights, _normal(weights, "final_norm", z)[kind == 1])


def _embedded(words: Words, weights: Weights, kind: str, labels: Tensor, numbers: Tensor) -> Tensor:
    name = f"{kind}_embedding"
    levels = range(len(words[f"num_{kind}_types"]))
    state = torch.stack(
        [weights[f"{name}.embedding.embeds.{n}.weight"][labels[:, n]] for n in levels]
    ).sum(dim=0)
    if words[EMBEDDINGS[kind]] != "sine":
        return torch.cat([state, _linear(weights, f"{name}.proj", numbers)], dim=1)
    rates = 1000.0 ** (torch.arange(0, words["dim"], 2, dtype=torch.float32) / -words["dim"])
    for n in range(numbers.shape[1]):
        waves = torch.zeros(len(labels), words["dim"], dtype=numbers.dtype)
        for channel in range(words["dim"]):
            angle = numbers[:, n] * float(rates[channel // 2])
            waves[:, channel] = angle.sin() if channel % 2 else angle.cos()
        state = state + _linear(weights, f"{name}.projs.{n}", waves)
    return state


def distances(x: dict[str, Tensor], *, quads: bool, correct: bool) -> Tensor:
    """D (nodes, nodes) of a molecule, built of blocks."""
    position, bond, triplet = x["x_atom_pos"][:, :3], x["x_bond"], x["x_triplet"]
    atoms, bonds = len(position), len(bond)
    d = torch.stack([(position - one).square().sum(dim=1) for one in position])
    i, j = bond[:, 3], bond[:, 4]
    d = _grown(d, torch.minimum(d[:, i], d[:, j]), i, j)
    if correct:
        a1, a2, a3, b2, b1 = triplet[:, 2:].T + torch.tensor([[0], [0], [0], [atoms], [atoms]])
    else:
        a1, a2, a3, b1, b2 = triplet[:, 1:6].T
    of_atoms = torch.stack([d[:atoms, a] for a in (a1, a2, a3)]).amin(dim=0) + d[:atoms, a1]
    of_bonds = torch.minimum(d[atoms:, b1], d[atoms:, b2])
    d = _grown(d, torch.cat([of_atoms, of_bonds]), b1, b2)
    if not quads:
        return d
    a = x["x_quad"][:, 1:5].T
    b = x["x_quad"][:, 5:8].T + (atoms if correct else 0)
    t1, t2 = x["x_quad"][:, 8:10].T + (atoms + bonds if correct else 0)
    of_atoms = torch.stack([d[:atoms, n] for n in a]).amin(dim=0)
    of_atoms = of_atoms + torch.minimum(d[:atoms, a[0]], d[:atoms, a[1]])
    among = d[atoms : atoms + bonds]
    of_bonds = torch.stack([among[:, n] for n in b]).amin(dim=0) + among[:, b[0]]
    of_triplets = torch.minimum(d[atoms + bonds :, t1], d[atoms + bonds :, t2])
    return _grown(d, torch.cat([of_atoms, of_bonds, of_triplets]), t1, t2)


def _grown(d: Tensor, to: Tensor, one: Tensor, other: Tensor) -> Tensor:
    """[[d, to], [to^T, the mean of the rows of `to`, symmetrised]]."""
    among = (to[one] + to[other]) / 2
    among = (among + among.T) / 2
    return torch.cat([torch.cat([d, to], dim=1), torch.cat([to.T, among], dim=1)])


def _attention(
    heads: int, weights: Weights, layer: str, x: Tensor, weakened: Tensor, pairs: Tensor
) -> Tensor:
    chunks = _linear(weights, f"{layer}.qkv_net", x).chunk(heads, dim=1)
    attended = []
    for chunk in chunks:
        v, q, k = chunk.chunk(3, dim=1)
        scores = weakened + q @ k.T / v.shape[1] ** 0.5 - 1e20 * (~pairs).to(x.dtype)
        attended.append((scores.softmax(dim=1) * pairs) @ v)
    merged = torch.cat(attended, dim=1)
    return _linear(weights, f"{layer}.o_net", torch.where(merged > 0, merged, 0.01 * merged))


def _head(words: Words, weights: Weights, z: Tensor) -> Tensor:
    types = words["num_bond_types"][1]

    def convolved(name: str, y: Tensor, groups: int) -> Tensor:
        return functional.conv1d(
            y, weights[f"{name}.weight"], weights[f"{name}.bias"], groups=groups
        )

    y = convolved("final_lin1", z.T[None], 1)
    for number in range(blocks(words)):
        inner = convolved(f"final_res.{number}.proj.0", y, types).clamp(min=0)
        y = y + convolved(f"final_res.{number}.proj.3", inner, types)
    return convolved(f"final_res.{blocks(words)}", y, types)[0]


def _linear(weights: Weights, name: str, x: Tensor) -> Tensor:
    weight = weights.get(f"{name}.weight")
    if weight is None:
        direction = weights[f"{name}.weight_v"]
        lengths = direction.square().sum(dim=1, keepdim=True).sqrt()
        weight = weights[f"{name}.weight_g"] * direction / lengths
    bias = weights.get(f"{name}.bias")
    return x @ weight.T if bias is None else x @ weight.T + bias


def _normal(weights: Weights, name: str, x: Tensor) -> Tensor:
    centred = x - x.mean(dim=-1, keepdim=True)
    scaled = centred / (centred.square().mean(dim=-1, keepdim=True) + 1e-5).sqrt()
    return scaled * weights[f"{name}.weight"] + weights[f"{name}.bias"]
