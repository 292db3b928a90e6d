"""The one process that runs a study: it asks what is wanted, hands out units, and asks again when one has ended."""

from collections.abc import Callable
from pathlib import Path
from typing import Literal, Protocol

from jaxopt_lm.errors import InputError
from jaxopt_lm.studies.local import Ended
from jaxopt_lm.studies.search import Progress, followed
from jaxopt_lm.studies.store import Store
from jaxopt_lm.studies.study import Run

ATTEMPTS = 3
"""How often a unit is begun that crashes, or is killed, before it counts as failed."""

_POLL_SECONDS = 0.5


class Engine(Protocol):
    """What trains units: the processes of this machine, or a cluster's."""

    @property
    def free(self) -> int: ...
    @property
    def running(self) -> list[str]: ...
    def submit(self, unit: str, log: Path) -> None: ...
    def poll(self, seconds: float) -> list[Ended]: ...
    def cancel(self) -> None: ...
    def close(self) -> None: ...


def progress(store: Store, known: dict[Run, float] | None = None) -> Progress:
    """Where a study is, by its files; losses that are known are not read again."""
    return followed(store.study, store.losses, known)


def coordinate(
    store: Store,
    engine: Engine,
    cores: int | None,
    *,
    tell: Callable[[Progress], None],
    say: Callable[[str], None],
    stop: Callable[[], bool],
) -> Literal["done", "interrupted"]:
    """Trains what the study wants until it wants no more, or a stop; then every unit under way has saved its state.

    Args:
      store: the study, whose lock is held.
      engine: trains units.
      cores: of each of its processes.
      tell: told where the study is whenever it may have moved.
      say: shows a line.
      stop: whether to stop, asked twice a second.

    Raises:
      InputError: of a unit, once the others have saved their state: a full disk, say.
    """
    crashes: dict[str, int] = {}
    refused: InputError | None = None
    at = progress(store)
    tell(at)
    while at.open or engine.running:
        stopping = refused is not None or stop()
        if stopping and not engine.running:
            break
        if stopping:
            engine.cancel()
        for run in at.open if not stopping else []:
            if engine.free and store.id(run) not in engine.running:
                unit = store.plan(run, cores)
                engine.submit(unit.id, store.log(unit.id))
        ended = engine.poll(_POLL_SECONDS)
        for unit, error in ended:
            if isinstance(error, InputError):
                refused = refused or error
            elif error is not None and not stopping:
                crashes[unit] = crashes.get(unit, 0) + 1
                _report(store, unit, crashes[unit], error, say)
        if ended:
            at = progress(store, at.losses)
        tell(at)
    engine.close()
    if refused:
        raise refused
    return "interrupted" if at.open else "done"


def _report(store: Store, unit: str, crashes: int, error: BaseException, say: Callable[[str], None]) -> None:
    """Says that a unit has crashed, and records it where that was once too often."""
    log = store.log(unit)
    lines = log.read_text(errors="replace").splitlines()[-5:] if log.exists() else []
    last = " | ".join([*lines, f"{type(error).__name__}: {error}"])
    if crashes < ATTEMPTS:
        say(f"warning: unit {unit} ended early ({last}); it is begun again")
    else:
        store.fail(store.unit(unit), last)
        say(f"warning: unit {unit} ended early {crashes} times and is left out: {last}; see {log}, then `sweep retry`")
