"""training/study.py: seeds of their own, and one worker for each trial."""

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import optuna

from training.recipe import TuneSection
from training.study import OneTakesIt, sampler_of


def test_every_worker_draws_from_a_seed_of_its_own() -> None:
    section = TuneSection(sampler="random")
    drawn = set()
    for done, worker in ((0, 0), (0, 1), (0, 2), (5, 1)):
        study = optuna.create_study(sampler=sampler_of(section, done, worker))
        drawn.add(study.ask().suggest_float("x", 0, 1))
    assert len(drawn) == 4


def test_of_two_workers_one_takes_up_a_trial(tmp_path: Path) -> None:
    """SQLite lets both read that it waits: without the lock both would run it, and one find it finished."""
    database = tmp_path / "study.db"
    study = optuna.create_study(study_name="race", storage=OneTakesIt(database))
    for turn in range(30):
        study.enqueue_trial({"turn": turn})
    numbers = [trial._trial_id for trial in study.get_trials()]
    starts = [threading.Barrier(2) for _ in numbers]

    def take() -> list[bool]:
        storage = OneTakesIt(database)
        taken = []
        for number, start in zip(numbers, starts, strict=True):
            start.wait()
            taken.append(storage.set_trial_state_values(number, optuna.trial.TrialState.RUNNING))
        return taken

    with ThreadPoolExecutor(2) as pool:
        one, other = (future.result() for future in [pool.submit(take), pool.submit(take)])
    assert [sum(both) for both in zip(one, other, strict=True)] == [1] * len(numbers)
