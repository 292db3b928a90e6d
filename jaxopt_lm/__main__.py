"""`python -m jaxopt_lm`: the commands, each with its purpose and an example."""

import ast
import sys
from pathlib import Path

COMMANDS = ("train", "sweep", "report", "evaluate", "export", "prepare", "plan")


def main() -> int:
    """Prints them; exit code 2 where a word follows that is no command."""
    given = sys.argv[1:]
    if given and given[0] not in ("-h", "--help"):
        mend = f"python -m jaxopt_lm.{given[0]}" if given[0] in COMMANDS else "python -m jaxopt_lm lists all"
        print(f"error: {given[0]}: commands are modules; {mend}", file=sys.stderr)
        return 2
    print("A laboratory for language-model optimizers. Every command has --help.\n")
    for name in COMMANDS:
        purpose, _, rest = _docstring(name).partition("\n")
        example = next(line.strip() for line in rest.splitlines() if line.startswith("    "))
        print(f"{name:9} {purpose}\n          {example}\n")
    return 0


def _docstring(name: str) -> str:
    """A module's docstring, read without importing it."""
    source = Path(__file__).with_name(f"{name}.py").read_text()
    return ast.get_docstring(ast.parse(source)) or ""


if __name__ == "__main__":
    sys.exit(main())
