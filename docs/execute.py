"""Run examples as notebooks, and keep them with what they print and draw, for the tutorials.

``uv run --extra docs python docs/execute.py [NAME ...]``, all by default.
"""

import sys
import tempfile
from pathlib import Path

import jupytext
import nbformat
from nbclient import NotebookClient

HERE = Path(__file__).parent


def execute(name: str) -> None:
    """Run an example in an empty folder, and write it with its outputs, less progress bars and logs."""
    notebook = jupytext.read(HERE.parent / "examples" / f"{name}.py")
    with tempfile.TemporaryDirectory() as folder:
        NotebookClient(notebook, timeout=None, resources={"metadata": {"path": folder}}).execute()
    notebook.metadata = {"language_info": {"name": "python"}}
    for number, cell in enumerate(notebook.cells):
        cell.id, cell.metadata = f"cell-{number}", {}
        if cell.cell_type == "code":
            cell.outputs = [each for each in cell.outputs if each.get("name") != "stderr"]
    nbformat.write(notebook, HERE / "tutorials" / f"{name}.ipynb")


if __name__ == "__main__":
    for example in sys.argv[1:] or sorted(path.stem for path in (HERE.parent / "examples").glob("*.py")):
        print(example, flush=True)
        execute(example)
