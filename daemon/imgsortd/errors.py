"""Every error that imgsortd raises on purpose.

::

    ImgsortdError                exit code 1
    ├── ConfigError              78: the configuration (or the weights it names) cannot work
    │   ├── WeightsError         weights missing, damaged, or not fit for the layer
    │   ├── MixedFeaturesError   stored features were made by other weights or another layer
    │   └── OwnedError           the target belongs to another library
    ├── LockedError              another imgsortd holds the state folder or the inbox
    ├── StoreError               the SQLite file is newer, read-only or gone
    │   ├── StoreDamagedError    it is no database, or its pages do not fit together
    │   └── StoreLockedError     another program holds a lock on it; it may let go
    ├── WatchError               the inbox cannot be watched or listed
    ├── LostError                the target is not there, or another folder than before
    ├── MoveError                a move could not be made now; the file is untouched
    │   └── NoSpaceError         the target or the state disk is full
    ├── NoMemoryError        the machine has no memory for the model, not even for one picture
    ├── RequestError         the running daemon could not do what a command asked for
    ├── UndoError            there is nothing to undo, or none of it can be
    ├── NameRefusedError     a cluster's folder cannot have that name
    ├── PlacingError         pictures cannot be put there, or the request is not understood
    ├── PinError             what is to be freed is not pinned
    ├── FindError                what was asked about is no file or picture that can be compared
    ├── CursorError              a place in a list that was never given out
    ├── ProposalError            no such proposal, or it cannot be accepted any more
    ├── FitError                 KMeans cannot be fitted on what there is
    └── PictureError             one file cannot be sorted; it is set aside with the reason
        └── IncompleteError      it looks unfinished, so it is given time before that

An error owns its text (where, what was expected, what came, what to do) and its
exit code; only ``cli`` prints it and exits. systemd does not restart on 78.
"""

from __future__ import annotations

EXIT_FAILED = 1
EXIT_CONFIG = 78


class ImgsortdError(Exception):
    """Base of all errors with a text meant for a person."""

    exit_code = EXIT_FAILED


class ConfigError(ImgsortdError):
    """The configuration cannot work; starting again will not help."""

    exit_code = EXIT_CONFIG


class WeightsError(ConfigError):
    """VGG16 weights are missing, damaged, or do not fit the chosen layer."""


class MixedFeaturesError(ConfigError):
    """Features in the store were made by other weights or another layer."""


class OwnedError(ConfigError):
    """The target belongs to another library."""


class LockedError(ImgsortdError):
    """Another imgsortd process holds the lock."""


class StoreError(ImgsortdError):
    """The SQLite file cannot be used as it is."""


class StoreDamagedError(StoreError):
    """The SQLite file is no database, or its pages do not fit together."""


class StoreLockedError(StoreError):
    """Another program holds a lock on the SQLite file; it may let go."""


class WatchError(ImgsortdError):
    """The inbox cannot be watched or listed."""


class LostError(ImgsortdError):
    """The target is not there, or another folder stands in its place."""


class MoveError(ImgsortdError):
    """A move could not be made now. The file is where it was; it will be tried again."""


class NoSpaceError(MoveError):
    """A disk is full."""


class NoMemoryError(ImgsortdError):
    """The machine has no memory for the model, not even for one picture."""


class RequestError(ImgsortdError):
    """The running daemon could not do what a command asked for."""


class UndoError(ImgsortdError):
    """There is nothing to undo, or none of it can be."""


class NameRefusedError(ImgsortdError):
    """A cluster's folder cannot have that name."""


class PlacingError(ImgsortdError):
    """Pictures cannot be put where a request says, or it is not understood."""


class PinError(ImgsortdError):
    """What is to be freed is not pinned."""


class FindError(ImgsortdError):
    """What was asked about is not there, is no picture, or cannot be compared."""


class CursorError(ImgsortdError):
    """A place to go on from in a list is none that was given out."""


class ProposalError(ImgsortdError):
    """There is no such proposal or former fit, or it cannot be put in force."""


class FitError(ImgsortdError):
    """KMeans cannot be fitted on the stored features."""


class PictureError(ImgsortdError):
    """One file cannot be read as a picture; the text is the reason kept in the store."""


class IncompleteError(PictureError):
    """The file ends too early or begins with nothing, as one that is still being written."""
