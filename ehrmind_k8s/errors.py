"""What can go wrong, who can mend it, and the exit code a script sees.

    EhrmindError                    1   a bug of ours unless a subclass says otherwise
    ├── SpecError                   2   the user: the run document or the command line
    │   └── StoreRefused                the keys, rights, bucket or address of the object store
    ├── DataError                  10   the user: a data file (names file, row id and column, never its text)
    ├── ModelError                 11   the user: a model folder or its tokenizer
    ├── IntegrityError             20   whoever touched the store: an artifact is torn, altered or of a newer version
    ├── RunFailed                  30   the user: a stage ended with an error that trying again does not mend
    ├── Cancelled                  31   nobody: somebody asked for it
    └── TryAgain                   75   time: the same command again may succeed (sysexits EX_TEMPFAIL)
        ├── StoreUnavailable            the object store does not answer, or refuses for now
        ├── RolloutUnavailable          no healthy rollout server within `rollout.wait_s`
        ├── TeacherUnavailable          the model that writes traces does not answer
        ├── PeerLost                    another training process is gone
        ├── Fenced                      a newer attempt has claimed this stage; this one must stop
        └── Busy                        another process holds this run

SIGINT and SIGTERM end with 130 and 143. The class decides about a retry, never the message.
A message names configuration values, ids, lengths and hashes; it never carries text of a record or a completion.
"""

import difflib
from collections.abc import Iterable


class EhrmindError(Exception):
    """Root of everything this package raises on purpose."""

    exit_code = 1


class SpecError(EhrmindError):
    """The run document, an option or a setting is wrong. The user can mend it at once."""

    exit_code = 2


class StoreRefused(SpecError):
    """The object store does not let these keys in, or has no such bucket. Not in the run document but beside it, so a cluster says so by name."""


class DataError(EhrmindError):
    """An input file is missing, of another layout, or holds a row that cannot be read."""

    exit_code = 10


class ModelError(EhrmindError):
    """A model folder lacks a file, or its tokenizer does not do what training needs."""

    exit_code = 11


class IntegrityError(EhrmindError):
    """A published artifact is torn, altered, or written by a newer version."""

    exit_code = 20


class RunFailed(EhrmindError):
    """A stage failed for good."""

    exit_code = 30


class Cancelled(EhrmindError):
    """The run was cancelled on request."""

    exit_code = 31


class TryAgain(EhrmindError):
    """Nothing is broken for good: the same command again may succeed."""

    exit_code = 75


class StoreUnavailable(TryAgain):
    """The object store cannot be reached or refuses for now."""


class RolloutUnavailable(TryAgain):
    """No healthy rollout server appeared within the bounded wait."""


class TeacherUnavailable(TryAgain):
    """The teacher of `sft.teacher` cannot be reached, or is busy, after several tries."""


class PeerLost(TryAgain):
    """Another training process of this attempt is gone, so this one cannot go on either. What ended the other one says why."""


class Fenced(TryAgain):
    """A newer attempt owns this stage; whatever this one would write no longer counts."""


class Busy(TryAgain):
    """Another process holds the lock of this run."""


def nearest(word: str, known: Iterable[str]) -> str:
    """A clause for an error about an unknown `word`: the nearest known one first, then all of them."""
    names = sorted(known)
    close = difflib.get_close_matches(word, names, n=1)
    hint = f"did you mean {close[0]!r}? " if close else ""
    return f"{hint}known: {', '.join(names)}"
