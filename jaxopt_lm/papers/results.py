"""What the studies of configs/papers found at scale=tiny, as the page docs/results/README.md.

    python -m jaxopt_lm.papers.results                                             # make results
    python -m jaxopt_lm.papers.results --add=configs/papers/almvr/table1_losses.py:scale=tiny

The first judges every claim anew from the tables in docs/results/tiny, draws their figures and writes the page; what no
table is there for is "not run". The second first adds the table of a study that `sweep` has trained to its end: the
table as Parquet, and beside it a JSON file with the study's command and what it ran on. Words of our own about a study
are in NAME.md beside them.
"""

import ast
import dataclasses
import json
import math
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from jaxopt_lm.config_io import load_as, parse_command_line
from jaxopt_lm.errors import report_input_errors, require
from jaxopt_lm.files import read_json, write_atomically
from jaxopt_lm.runs.read import read_machines
from jaxopt_lm.studies import Study, figures, hardware, points
from jaxopt_lm.studies.choice import Choice
from jaxopt_lm.studies.claims import FAILS, HOLDS, OPEN
from jaxopt_lm.studies.conclude import verdict_table
from jaxopt_lm.studies.coordinate import progress
from jaxopt_lm.studies.drawing import styles
from jaxopt_lm.studies.frames import ENDED, only
from jaxopt_lm.studies.fresh import fresh, rows
from jaxopt_lm.studies.markup import markdown, saved
from jaxopt_lm.studies.search import choices, followed, written
from jaxopt_lm.studies.sentences import JUDGED
from jaxopt_lm.studies.statistics import t_interval
from jaxopt_lm.studies.store import Store
from jaxopt_lm.studies.study import Run
from jaxopt_lm.studies.table import table
from jaxopt_lm.studies.verdicts import verdicts

NOT_RUN = "not run"
_SCALE = "scale=tiny"


@dataclasses.dataclass(frozen=True, kw_only=True)
class ResultsConfig:
    """What to add, and where things are."""

    add: str | None = None
    """Config of a study that has been trained, FILE.py:scale=tiny."""
    configs: str = "configs/papers"
    """Folder of the studies."""
    out: str = "docs/results"
    """Folder of the page; tables and figures are in `tiny` below it."""


class Piece(NamedTuple):
    """A study of configs/papers and what is kept of it.

    Attributes:
      file: its config's.
      stem: what its files are called without their ending, `tiny/almvr_table1_losses` below the page's folder.
      about: config, date, hardware; None: it has not been run.
    """

    file: Path
    stem: Path
    about: dict[str, str] | None

    @property
    def config(self) -> str:
        """The value of `--config` that was run, or is to be."""
        return self.about["config"] if self.about else f"{self.file.as_posix()}:{_SCALE}"

    def with_suffix(self, suffix: str) -> Path:
        return self.stem.with_name(self.stem.name + suffix)


class Found(NamedTuple):
    """What the table of a study says: its claims and, of each setting and arm, the rate chosen and the loss there."""

    claims: pd.DataFrame
    best: pd.DataFrame


def pieces(configs: Path, out: Path) -> list[Piece]:
    """Every study below `configs`, by the names of their files."""
    found = []
    for file in sorted(configs.rglob("*.py")):
        stem = out / "tiny" / "_".join(file.relative_to(configs).with_suffix("").parts)
        about = stem.with_name(stem.name + ".json")
        found.append(Piece(file, stem, read_json(about, "add the study again") if about.exists() else None))
    return found


def add(spec: str, configs: Path, out: Path) -> None:
    """Keeps the table of a study that has ended.

    Raises:
      InputError: it is no study below `configs` at scale tiny, or has runs left to train.
    """
    study = load_as(Study, spec)
    file = Path(spec.partition(":")[0])
    piece = next((piece for piece in pieces(configs, out) if piece.file == file), None)
    require(piece is not None and _SCALE in spec, f"add={spec}: must be a file below {configs}, with :{_SCALE}")
    assert piece
    store = Store(Path(study.base.workdir), study)
    at = progress(store)
    command = f"python -m jaxopt_lm.sweep --config={spec}"
    require(not at.open, f"add={spec}: {len(at.open)} of {len(at.runs)} runs are not trained; {command}")
    kinds = Counter(hardware.kind(read_machines(store.folder(run))) for run in at.runs)
    about = {
        "config": spec,
        "date": time.strftime("%Y-%m-%d"),
        "hardware": "; ".join(", ".join(f"{name} {value}" for name, value in kind) for kind in kinds),
    }
    piece.stem.parent.mkdir(parents=True, exist_ok=True)
    kept = table(store, at.runs).to_parquet(compression="zstd", index=False)
    write_atomically(piece.with_suffix(".parquet"), kept)
    write_atomically(piece.with_suffix(".json"), (json.dumps(about, indent=2) + "\n").encode())


def found(study: Study, runs: pd.DataFrame) -> tuple[Found, bytes]:
    """What a table says of its study, and its figure, a PNG: of rates, or of differences where each arm has one."""
    losses = _losses(study, runs)
    chosen, baseline = choices(study, losses), study.baseline.name
    claims = pd.DataFrame([claim.judge(runs, chosen, baseline)._asdict() for claim in study.claims])
    frame = pd.DataFrame(chosen, columns=list(Choice._fields))  # pyright: ignore[reportArgumentType]
    looks = styles([arm.name for arm in study.arms], baseline)
    judged = only(verdict_table(verdicts(runs, chosen, baseline, study.rules.level)), kind=JUDGED)
    if len(judged) and all(len(arm.learning_rates) == 1 for arm in study.arms):
        drawn = figures.differences(judged, looks, baseline)
    else:
        drawn = figures.rates(only(runs, status=ENDED), frame, points.fit_points(runs), looks)
    best = pd.DataFrame([_best(choice, runs) for choice in chosen])
    return Found(claims, best), saved(drawn.figure, "png")


def _losses(study: Study, runs: pd.DataFrame) -> dict[Run, float]:
    """The losses of the study's runs, by their rows in its table."""
    known = {
        (row.setting, row.arm, row.changed, row.learning_rate, row.seed): row.loss
        for row in rows(runs)
        if row.status != "missing"
    }

    def find(asked: Sequence[Run]) -> dict[Run, float]:
        keys = {run: (run.setting, run.arm, written(run.changed), run.learning_rate, run.seed) for run in asked}
        return {run: known[key] for run, key in keys.items() if key in known}

    return followed(study, find).losses


def _best(choice: Choice, runs: pd.DataFrame) -> dict[str, str]:
    at = fresh(rows(runs), choice)
    end = ", the only one tried" if choice.trials == 1 else ", at the end of those tried"
    losses = list(at.losses.values())
    interval = t_interval(losses) if losses else None
    return {
        "setting": choice.setting,
        "optimizer": choice.arm,
        "best rate": f"{choice.learning_rate:.3g}" + ("" if choice.inside else end),
        "loss, tuning seed": f"{choice.loss:.3f}",
        "loss, fresh seeds": f"{interval.mean:.3f} [{interval.low:.3f}, {interval.high:.3f}]" if interval else "",
        "seeds": f"{len(losses)}" + (f", {at.diverged} diverged" if at.diverged else ""),
    }


def page(configs: Path, out: Path) -> str:
    """The page, in Markdown; figures are written beside the tables."""
    sections: list[str] = []
    outcomes: Counter[str] = Counter()
    for piece in pieces(configs, out):
        study = load_as(Study, piece.config)
        if piece.about is None:
            names = pd.DataFrame([{"claim": claim.text, "verdict": NOT_RUN} for claim in study.claims])
            claims, body = names, []
        else:
            runs = pd.read_parquet(piece.with_suffix(".parquet"))
            result, figure = found(study, runs)
            write_atomically(piece.with_suffix(".png"), figure)
            claims, body = _claims(result.claims), list(_body(piece, out, runs, result))
        outcomes.update(claims["verdict"] if len(claims) else [])
        title = (_docstring(piece.file).partition("\n")[0]).rstrip(".")
        lines = [f"### {title}", f"`python -m jaxopt_lm.sweep --config={piece.config}`", *body]
        sections.append("\n\n".join(lines + ([markdown(claims).strip()] if len(claims) else [])))
    counted = ", ".join(f"{name} {outcomes[name]}" for name in (HOLDS, FAILS, OPEN, NOT_RUN))
    return "\n\n".join([_HEAD.format(counted=counted, total=sum(outcomes.values())), *sections]) + "\n"


_HEAD = """# What the papers claim, and what was found

Made by `make results` from the tables in `tiny/`: nothing here is copied by hand but the remarks. The claims of five
papers are predicates on a study's table, judged by seeds that chose nothing. Of {total} claims: {counted}.

All of it is at scale=tiny: models of width 64 with two to eight layers, the State of the Union addresses with a
vocabulary of 4,096, 400 steps of 32 x 64 tokens, on two CPU cores. `small`, on one GPU, and `paper` have not been run.
A claim that does not hold here may hold at the paper's scale; `not resolved` says that the seeds or rates tried do not
tell. Losses are cross-entropy in nats per token, with 95% intervals over seeds."""


def _claims(judged: pd.DataFrame) -> pd.DataFrame:
    if not len(judged):
        return judged
    return pd.DataFrame({"claim": judged.text, "found": judged.sentence, "verdict": judged.outcome})


def _body(piece: Piece, out: Path, runs: pd.DataFrame, result: Found) -> Iterator[str]:
    assert piece.about
    ended = only(runs, status=ENDED)
    seconds = float(ended.seconds.sum())
    entropy = float(ended.unigram_entropy.max())
    yield (
        f"{len(runs)} runs, {int(runs.tokens.sum()):,} tokens, {seconds / 60:.0f} core minutes of training steps; "
        f"{piece.about['date']}, {piece.about['hardware']}."
        + (f" Unigram entropy {entropy:.3f} nats." if not math.isnan(entropy) else "")
    )
    notes = piece.with_suffix(".md")
    if notes.exists():
        yield notes.read_text().strip()
    picture = piece.with_suffix(".png").relative_to(out).as_posix()
    yield f"![{piece.stem.name}]({picture})"
    best = result.best.drop(columns="setting") if set(result.best.setting) == {""} else result.best
    yield markdown(best).strip()


def _docstring(file: Path) -> str:
    """The docstring of a config file, without executing it."""
    return ast.get_docstring(ast.parse(file.read_text())) or file.stem


@report_input_errors
def main() -> None:
    """The command line."""
    config = parse_command_line(ResultsConfig, __doc__ or "")
    configs, out = Path(config.configs), Path(config.out)
    require(configs.is_dir(), f"configs={configs}: no such folder; run it in the checkout")
    if config.add:
        add(config.add, configs, out)
    out.mkdir(parents=True, exist_ok=True)
    write_atomically(out / "README.md", page(configs, out).encode())
    missing = [piece.config for piece in pieces(configs, out) if piece.about is None]
    print(f"{out / 'README.md'}: {len(missing)} studies have not been run")
    for spec in missing:
        print(f"  python -m jaxopt_lm.sweep --config={spec}")


if __name__ == "__main__":
    sys.exit(main())
