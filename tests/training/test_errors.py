"""training/errors.py: the branch as drawn."""

from training import errors


def test_every_error_is_drawn_with_its_exit_status() -> None:
    kinds = errors.TrainingError.__subclasses__()
    assert len({kind.code for kind in kinds}) == len(kinds)
    for kind in kinds:
        assert f"{kind.__name__:<21}exit {kind.exit_status}" in (errors.__doc__ or "")


def test_exit_statuses_follow_the_architecture() -> None:
    assert errors.RecipeInvalid.exit_status == 2
    assert errors.GateRefused.exit_status == 3
    assert errors.DataInvalid.exit_status == 1
