"""Installed tasks: entry points of the group `ehrmind_k8s.tasks`, from this package or another. Nothing else names a task."""

from importlib.metadata import EntryPoint, entry_points

from ehrmind_k8s.errors import SpecError, nearest
from ehrmind_k8s.tasks.base import Task

GROUP = "ehrmind_k8s.tasks"


def names() -> tuple[str, ...]:
    """Names of the installed tasks, sorted."""
    return tuple(sorted(_found()))


def get(name: str) -> Task:
    """The task of this name. Raises SpecError naming the nearest one, or what keeps an installed plug-in from loading."""
    found = _found()
    if name not in found:
        raise SpecError(f"task {name!r} is unknown; {nearest(name, found)}")
    try:
        task: Task = found[name].load()()
    except (ImportError, AttributeError) as error:
        raise SpecError(f"task {name!r} ({found[name].value}) cannot be loaded: {error}; reinstall the package that brings it") from None
    return task


def _found() -> dict[str, EntryPoint]:
    return {point.name: point for point in entry_points(group=GROUP)}
