from artifact.errors import SlipwayError
from service import errors


def _tree(kind: type[SlipwayError]) -> list[type[SlipwayError]]:
    return [found for child in kind.__subclasses__() for found in (child, *_tree(child))]


def test_every_error_is_drawn_with_its_status() -> None:
    lines = [line.split() for line in (errors.__doc__ or "").splitlines()]
    drawn = {line[line.index("├──") + 1 if "├──" in line else 1 :][0]: line for line in lines if len(line) > 2}
    kinds: list[type[SlipwayError]] = [*_tree(errors.ServiceError), errors.ClientLeft]
    for kind in kinds:
        assert str(kind.status) in drawn[kind.__name__], kind.__name__


def test_codes_are_unique_over_the_whole_tree() -> None:
    kinds = [kind for kind in _tree(SlipwayError) if kind.__module__ in {"service.errors", "inference.errors"}]
    named = [kind for kind in kinds if "code" in vars(kind)]
    assert len({kind.code for kind in named}) == len(named)


def test_wrong_settings_ends_a_command_with_status_2() -> None:
    assert errors.WrongSettings.exit_status == 2
