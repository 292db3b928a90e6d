"""Every notebook runs from top to bottom, and is committed without outputs."""

import json
import re
import sys
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

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
def test_committed_without_outputs(path):
    for cell in code_cells(nbformat.read(path, as_version=4)):
        assert not cell.outputs
        assert cell.execution_count is None


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
@pytest.mark.usefixtures("python3")
def test_runs(path, tmp_path, full):
    """A fifth of the training steps without --full."""
    notebook, work = nbformat.read(path, as_version=4), tmp_path / "work"
    work.mkdir()
    if not full:
        (first, *_) = code_cells(notebook)
        first.source, found = re.subn(r"(STEPS = .*), 300\b", r"\1, 60", first.source)
        assert found == 1
    NotebookClient(notebook, kernel_name="python3", timeout=600, resources={"metadata": {"path": str(work)}}).execute()
    outputs = [output for cell in code_cells(notebook) for output in cell.outputs]
    assert any("image/png" in output.get("data", {}) for output in outputs)
    assert not list(work.iterdir())
