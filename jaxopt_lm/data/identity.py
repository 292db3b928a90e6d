"""Whether tokens are those of a config: of its settings, its vocabulary and its text. Loads no TensorFlow.

Text and vocabulary are compared by their bytes, wherever they are stored and however a config writes that path. Files
that are not there, as where tokens were copied to another machine, pass where the config writes their path as it was
when the tokens were made.
"""

from pathlib import Path
from typing import Any

from jaxopt_lm.data import places
from jaxopt_lm.data.config import TokensConfig
from jaxopt_lm.data.find import Files, listed, local_files
from jaxopt_lm.data.tokens import Manifest
from jaxopt_lm.errors import InputError, require
from jaxopt_lm.files import sha256_of_file

_PLACES = ("files", "vocabulary", "vocabulary_sha256")


def place(config: TokensConfig) -> str:
    """How a message names the text."""
    return f"data.files={config.files}" if config.files else f"task {config.task}"


def settings(config: TokensConfig) -> dict[str, Any]:
    """The fields that decide the tokens by their value."""
    return {name: value for name, value in config.identity().items() if name not in _PLACES}


def check_settings(config: TokensConfig, manifest: Manifest) -> None:
    """Raises `InputError` unless the tokens were made with these settings and this vocabulary."""
    wanted, source = config.identity(), manifest.source
    compared = [*settings(config), *(["files"] if manifest.text is None else [])]
    different = [name for name in compared if source.get(name) != wanted[name]]
    if not _is_vocabulary(config, manifest):
        different += ["vocabulary", "vocabulary_sha256"]
    asked = ", ".join(f"{name}={wanted[name]!r}" for name in different)
    held = ", ".join(f"{name}={source.get(name)!r}" for name in different)
    require(
        not different,
        f"data.tokens_dir={config.tokens_dir}: holds tokens of {held}, asked for {asked}; give another folder",
    )


def _is_vocabulary(config: TokensConfig, manifest: Manifest) -> bool:
    if config.vocabulary is None:
        return manifest.source.get("vocabulary") is None
    path, wanted, found = Path(config.vocabulary), config.vocabulary_sha256, manifest.vocabulary_sha256
    if wanted is not None or path.is_file():
        return wanted in (None, found) and (not path.is_file() or sha256_of_file(path) == found)
    return manifest.source.get("vocabulary") == config.vocabulary


def check_text(config: TokensConfig, manifest: Manifest, *, sums: bool) -> str:
    """Compares the text with what the tokens were made of.

    Args:
      config: where the text is.
      manifest: of the tokens.
      sums: whether every byte is compared, as `prepare` does; else names and sizes of local files, as training does.

    Returns:
      Why it could not be compared; nothing where it was.

    Raises:
      InputError: the text is another.
    """
    if manifest.text is None:
        return "the tokens are of a version that kept no sums of its text"
    spelled = manifest.source.get("files")
    if spelled == config.files and not sums and "://" in (config.files or ""):
        return "it is not local"
    files = _files(config, manifest)
    if files is None:
        require(
            spelled == config.files,
            f"data.files={config.files}: is not there, and the tokens in {config.tokens_dir} were made of {spelled}; "
            f"put the text there, or give data.files={spelled} to use them without it",
        )
        return "it is not there"
    changed = _changes(files, manifest, sums)
    require(
        not changed,
        f"{place(config)}: {listed('', changed)} since the tokens in {config.tokens_dir} were made; give "
        "another data.tokens_dir for new tokens, or put the text back",
    )
    return ""


def _files(config: TokensConfig, manifest: Manifest) -> Files | None:
    """The files at the place that the config names; None where there are none."""
    try:
        if config.task == "sotu":
            return local_files(places.speech_files())
        if config.task == "c4":
            paths = [places.c4_folder(config) / file.name for file in manifest.text or ()]
            return local_files([path for path in paths if path.is_file()])
        return places.corpus(config).files
    except InputError:
        return None


def _changes(files: Files, manifest: Manifest, sums: bool) -> list[str]:
    """What is not as it was, by name."""
    before = {file.name: file[1:] if sums else file.size for file in manifest.text or ()}
    after = {file.name: file[1:] for file in files.sums()} if sums else files.sizes()
    changed = [f"{name} has changed" for name in before if name in after and after[name] != before[name]]
    gone = [f"{name} is gone" for name in before if name not in after]
    return changed + gone + [f"{name} is new" for name in after if name not in before]
