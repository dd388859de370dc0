"""The learned cost of an execution."""

import numpy as np
import pytest

from inference.cost import CostModel


def _taught(seconds_per_token: float, constant: float, executions: int, seed: int = 0) -> CostModel:
    random = np.random.default_rng(seed)
    model = CostModel()
    for _ in range(executions):
        real = int(random.integers(5, 400))
        padded = real + int(random.integers(0, 60))
        model.observe(real, padded, constant + seconds_per_token * padded)
    return model


def test_it_knows_nothing_before_the_first_execution() -> None:
    assert CostModel().predict(100, 100) == 0


def test_it_learns_a_linear_cost() -> None:
    model = _taught(5e-5, 1e-3, 60)
    assert model.predict(200, 220) == pytest.approx(1e-3 + 5e-5 * 220, rel=0.02)
    assert model.predict(2000, 2000, executions=10) == pytest.approx(1e-2 + 5e-5 * 2000, rel=0.05)


def test_it_notices_that_the_machine_became_slower() -> None:
    model = _taught(5e-5, 1e-3, 300)
    random = np.random.default_rng(1)
    for _ in range(900):
        tokens = int(random.integers(5, 400))
        model.observe(tokens, tokens, 2e-3 + 1e-4 * tokens)
    assert model.predict(200, 200) == pytest.approx(2.2e-2, rel=0.1)


def test_it_is_never_negative_and_stays_finite_when_every_batch_is_alike() -> None:
    model = CostModel()
    for _ in range(5000):
        model.observe(40, 40, 0.003)
    assert model.predict(40, 40) == pytest.approx(0.003, rel=0.05)
    assert model.predict(0, 0, executions=0) >= 0
    assert np.isfinite(model.predict(512, 512))


def test_a_queue_is_never_predicted_to_take_many_times_what_it_does() -> None:
    """Traffic that changes its kind, noisy and with real and padded tokens moving together."""
    random = np.random.default_rng(0)
    model = CostModel()
    for inputs, least, most in [(1, 8, 54), (3, 20, 30), (8, 24, 28), (2, 180, 210), (1, 180, 512)] * 2:
        for _ in range(300):
            lengths = random.integers(least, most, inputs)
            padded = int(lengths.max()) * inputs
            model.observe(int(lengths.sum()), padded, (6e-4 + 4.4e-5 * padded) * random.lognormal(0, 0.2))
            for tokens in (32 * 27, 30 * 200, 120 * 27):
                assert model.predict(tokens, tokens, executions=tokens / 512) < 10 * 4.4e-5 * tokens
