import inspect

import pytest

from dsa110_contimg import errors

ALL = [getattr(errors, name) for name in errors.__all__]


def expected_exit_code(error: type[errors.ContimgError]) -> int:
    if issubclass(error, errors.EngineError):
        return 3
    return 4 if issubclass(error, errors.NotImprovedError) else 2


def test_every_error_of_the_module_is_public_and_in_the_tree():
    defined = {n for n, c in inspect.getmembers(errors, inspect.isclass) if c.__module__ == errors.__name__}
    assert defined == set(errors.__all__)
    assert all(issubclass(error, errors.ContimgError) for error in ALL)


@pytest.mark.parametrize("error", ALL)
def test_exit_code(error):
    assert error.exit_code == expected_exit_code(error)


@pytest.mark.parametrize("error", ALL)
def test_one_line_with_what_where_and_remedy(error):
    text = str(error("no such\ncolumn", "obs.ms", "write\n it first"))
    assert text == "obs.ms: no such column; write it first"


def test_where_and_remedy_may_be_left_out():
    assert str(errors.ConfigError("nothing to do")) == "nothing to do"


def test_the_unforeseen_is_one_line_too():
    assert str(errors.UnforeseenError.of(ValueError("one\ntwo"))).startswith(
        "internal error: ValueError: one two; "
    )
    assert str(errors.UnforeseenError.of(KeyError())).startswith("internal error: KeyError: KeyError; ")
    assert str(errors.UnforeseenError.of(MemoryError())) == "out of memory; lower --memory-gb or --size"
