"""Tables of refusals, and how a row is run: the call, the exception, and what its message names."""

import pytest


def each(rows):
    """Parametrize a test over rows (id, call, exception, *what the message names).

    A message names the argument, what came, and what to do; other wording is free to change.
    """
    names = [row[0] for row in rows]
    assert len(set(names)) == len(names), "two rows have one id"
    return pytest.mark.parametrize(
        ("call", "error", "named"),
        [pytest.param(call, error, named, id=name) for name, call, error, *named in rows],
    )


def check_refused(call, error, named, *args):
    """Check that the call raises this exception, and not a derived one, with such a message."""
    with pytest.raises(error) as caught:
        call(*args)
    assert caught.type is error
    missing = [part for part in named if part not in str(caught.value)]
    assert named and not missing, f"{missing} not in: {caught.value}"
