"""Tables hold the rows asked for, twice: by rows and transposed; columns get their units."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse

from equipoise.data.sampling import BatchIndex
from equipoise.data.tabular.sources import sparse_problem
from equipoise.data.tabular.tables import Scaling, TableRows, density


def rows_of(seed: int, rows: int, columns: int, is_sparse: bool) -> TableRows:
    generator = np.random.default_rng(seed)
    dense = generator.standard_normal((rows, columns)) * (generator.random((rows, columns)) < 0.4)
    features: Any = sparse.csr_array(dense) if is_sparse else dense
    return TableRows(features, generator.integers(0, 3, rows), np.arange(100, 100 + rows))


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 999), st.integers(1, 9), st.integers(1, 7), st.booleans(), st.data())
def test_a_table_has_the_rows_that_were_asked_for(
    seed: int, rows: int, columns: int, is_sparse: bool, data: st.DataObject
) -> None:
    split = rows_of(seed, rows, columns, is_sparse)
    chosen = data.draw(st.lists(st.integers(0, rows - 1), min_size=1, max_size=rows))
    table = split[BatchIndex(0, torch.tensor(chosen))]
    layout = torch.sparse_csr if is_sparse else torch.strided
    assert table["features"].layout == table["transposed"].layout == layout
    assert table["features"].dtype == table["transposed"].dtype == torch.float64
    features = table["features"].to_dense()
    whole = torch.from_numpy(split.features.toarray() if is_sparse else np.asarray(split.features))
    assert torch.equal(features, whole[chosen])
    assert torch.equal(table["transposed"].to_dense(), features.T)
    assert table["transposed"].is_sparse_csr or table["transposed"].is_contiguous()
    assert table["index"].tolist() == [100 + row for row in chosen]
    assert table["target"].tolist() == split.target[chosen].tolist()
    again = split[BatchIndex(5, torch.tensor(chosen))]
    assert all(again[name] is tensor for name, tensor in table.items())


def test_sparse_tables_multiply_and_have_indices_of_32_bits() -> None:
    table = rows_of(0, 30, 20, True).whole()
    assert table["features"].col_indices().dtype == torch.int32
    weights = torch.randn(20, 3, dtype=torch.float64, requires_grad=True)
    product = table["features"] @ weights
    assert torch.allclose(product, table["features"].to_dense() @ weights, atol=1e-14)
    (slope,) = torch.autograd.grad(product.sum(), weights)
    ones = torch.ones(30, 3, dtype=torch.float64)
    assert torch.allclose(slope, table["transposed"] @ ones, atol=1e-14)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 999), st.integers(2, 12), st.integers(1, 6))
def test_columns_get_mean_0_and_deviation_1(seed: int, rows: int, columns: int) -> None:
    generator = np.random.default_rng(seed)
    features = 3 + 5 * generator.standard_normal((rows, columns))
    features[:, 0] = 0.1 * seed
    scaled = Scaling.of(features)(features)
    assert np.all(scaled[:, 0] == 0)
    assert np.allclose(scaled.mean(axis=0), 0, atol=1e-9)
    assert np.allclose(scaled[:, 1:].std(axis=0), 1)
    shifted = features.copy()
    shifted[:, 0] += 2
    assert np.allclose(Scaling.of(features)(shifted)[:, 0], 2)


def test_sparse_columns_get_mean_square_1_and_stay_sparse() -> None:
    features = sparse.csr_array(np.array([[3.0, 0, 0], [0, 4, 0], [-3, 0, 0], [3, 0, 0]]))
    scaled = Scaling.of(features)(features)
    assert isinstance(scaled, sparse.csr_array)
    assert scaled.nnz == features.nnz
    assert scaled.power(2).mean(axis=0) == pytest.approx([1, 1, 0])
    assert features.max() == 4


@pytest.mark.parametrize("wanted", [1e-3, 0.05, 0.6, 1.0])
def test_the_generated_problem_has_its_density_and_two_equal_classes(wanted: float) -> None:
    problem = sparse_problem(1000, 800, wanted, seed=3)
    assert problem.features.shape == (1000, 800)
    assert density(problem.features) == pytest.approx(wanted, rel=0.1)
    assert problem.labels.sum() == 0
    again, other = (sparse_problem(1000, 800, wanted, seed=seed) for seed in (3, 4))
    assert (again.features != problem.features).nnz == 0
    assert (other.features != problem.features).nnz > 0


def test_the_generated_classes_can_be_learned() -> None:
    from sklearn.linear_model import LogisticRegression

    problem = sparse_problem(3000, 2000, 0.01)
    fitted = LogisticRegression(C=0.1, fit_intercept=False)
    fitted.fit(problem.features[:2000], problem.labels[:2000])
    assert fitted.score(problem.features[2000:], problem.labels[2000:]) > 0.7
