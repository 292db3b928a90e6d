"""Every notebook runs from top to bottom; those that show results are committed with their outputs."""

import json
import re
import sys
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

from tests.studies.trained import train_study

OF_A_STUDY = "compare_optimizers"
WITH_OUTPUTS = (OF_A_STUDY, "is_the_difference_real")
NOTEBOOKS = sorted((Path(__file__).parent.parent / "notebooks").glob("*.ipynb"))


def code_cells(notebook: nbformat.NotebookNode) -> list[nbformat.NotebookNode]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


@pytest.fixture
def python3(monkeypatch, tmp_path):
    """Kernel `python3` is the interpreter that runs the tests, whatever else is installed; it writes in `tmp_path`."""
    spec = tmp_path / "jupyter" / "kernels" / "python3" / "kernel.json"
    spec.parent.mkdir(parents=True)
    command = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    spec.write_text(json.dumps({"argv": command, "display_name": "Python 3", "language": "python"}))
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path / "jupyter"))
    monkeypatch.setenv("JUPYTER_RUNTIME_DIR", str(tmp_path / "runtime"))
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))


def test_there_are_notebooks():
    assert NOTEBOOKS


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_committed_with_outputs_only_where_they_are_results(path):
    for number, cell in enumerate(code_cells(nbformat.read(path, as_version=4)), 1):
        shown = path.stem in WITH_OUTPUTS
        assert cell.execution_count == (number if shown else None)
        assert shown or not cell.outputs


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
@pytest.mark.usefixtures("python3")
def test_runs(path, tmp_path, full, tiny, tokens_dir):
    """Fewer training steps without --full, and a study of seconds."""
    notebook, work = nbformat.read(path, as_version=4), tmp_path / "work"
    work.mkdir()
    if path.stem == OF_A_STUDY:
        train_study(work / "runs" / "compare", tokens_dir, tiny)
    elif not full and path.stem not in WITH_OUTPUTS:
        (first, *_) = code_cells(notebook)
        first.source, found = re.subn(r"(STEPS = .*), 300\b", r"\1, 40", first.source)
        assert found == 1
    before = {path: path.stat().st_mtime_ns for path in work.rglob("*") if path.is_file()}
    NotebookClient(notebook, kernel_name="python3", timeout=600, resources={"metadata": {"path": str(work)}}).execute()
    outputs = [output for cell in code_cells(notebook) for output in cell.outputs]
    assert any("image/png" in output.get("data", {}) for output in outputs)
    assert {path: path.stat().st_mtime_ns for path in work.rglob("*") if path.is_file()} == before
