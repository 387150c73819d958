"""The public surface, the import contract, and what importing must not do."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import quadmix

SOURCE = Path(quadmix.__file__).parent
HEAVY = ("torch", "lightgbm", "sklearn", "transformers", "matplotlib", "tokenizers", "numba", "fasttext")
ONLY_IN = {
    "fsspec": {"io"},
    "zstandard": {"io"},
    "pyarrow.parquet": {"io"},
    "lightgbm": {"search"},
    "sklearn": {"search", "annotate"},
    "numba": {"mixing"},
    "torch": {"proxy", "pipeline", "annotate", "raters", "poso", "evaluate"},
    "transformers": {"annotate"},
    "fasttext": {"annotate"},
    "kenlm": {"annotate"},
    "langcodes": {"annotate"},
    "matplotlib": {"report"},
    "tensorboardX": {"pipeline"},
    "wandb": {"pipeline"},
    "mlflow": {"pipeline"},
    "yaml": {"recipe"},
    "pydantic": {"recipe"},
    "ray": {"engine"},
}


def imports_of(source: str) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def within(name: str, package: str) -> bool:
    return name == package or name.startswith(package + ".")


@pytest.mark.parametrize("package", sorted(ONLY_IN))
def test_a_library_is_imported_only_in_its_rooms(package: str) -> None:
    rooms = {
        file.relative_to(SOURCE).parts[0]
        for file in SOURCE.rglob("*.py")
        if any(within(name, package) for name in imports_of(file.read_text(encoding="utf-8")))
    }
    assert rooms <= ONLY_IN[package]


def test_the_import_check_sees_both_forms_of_import() -> None:
    assert {"a.b", "c"} <= imports_of("import a.b\nfrom c import d\n")


def test_public_names_are_sorted_resolvable_and_at_most_thirty() -> None:
    assert list(quadmix.__all__) == sorted(quadmix.__all__)
    assert len(quadmix.__all__) <= 30
    for name in quadmix.__all__:
        assert callable(getattr(quadmix, name))


def loaded_after(code: str) -> set[str]:
    """Run code in a fresh interpreter and return which heavy packages it loaded."""
    probe = f"{code}\nimport sys\nprint('loaded:', *[m for m in {HEAVY!r} if m in sys.modules])"
    out = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True)
    return set(out.stdout.splitlines()[-1].split()[1:])


def test_importing_the_package_loads_nothing_heavy() -> None:
    assert loaded_after("import quadmix, quadmix.mixing.curve") == set()


def test_help_loads_nothing_heavy() -> None:
    code = (
        "import sys\nfrom quadmix.cli.main import app\nsys.argv = ['quadmix', '--help']\n"
        "try:\n    app()\nexcept SystemExit:\n    pass"
    )
    assert loaded_after(code) == set()


def test_the_heavy_import_check_can_fail() -> None:
    assert loaded_after("import tokenizers") == {"tokenizers"}
