"""What the supervisor makes of how a stage ended."""

from pathlib import Path

import pytest

from ehrmind_k8s.backends.local import supervisor
from ehrmind_k8s.errors import DataError, EhrmindError, TryAgain


@pytest.mark.parametrize(("code", "raised"), [(75, TryAgain), (137, TryAgain), (255, EhrmindError), (10, DataError), (3, EhrmindError)])
def test_every_exit_code_is_an_error_of_its_class(code: int, raised: type[EhrmindError]) -> None:
    assert type(supervisor._error("sft", code, supervisor._reason(code, {}), Path("log"))) is raised
