"""What holds for every module: files, compiling, exporting, autocast, empty batches; and torch is enough."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

import quadmix
from quadmix.poso import (
    PersonalizationCode,
    Poso,
    PosoLinear,
    PosoMLP,
    PosoMMoE,
    PosoMultiheadAttention,
)


class _Self(nn.Module):
    """Attention of a sequence to itself, so that it takes (x, code) as the others do."""

    def __init__(self) -> None:
        super().__init__()
        self.attention = PosoMultiheadAttention(6, 2, 8)

    def forward(self, x: torch.Tensor, pc: torch.Tensor) -> torch.Tensor:
        sequence = x.unsqueeze(1) if x.dim() == 2 else x
        return self.attention(sequence, sequence, sequence, pc)


MAKERS = {
    "linear": lambda: PosoLinear(6, 3, 8),
    "mlp": lambda: PosoMLP(6, [5, 4], 3, pc_dim=8),
    "mmoe": lambda: PosoMMoE(6, [5], 3, 2, 8),
    "general": lambda: Poso([nn.Linear(6, 3), nn.Linear(6, 3)], 8),
    "attention": _Self,
}


@pytest.fixture(params=MAKERS)
def maker(request: pytest.FixtureRequest):
    torch.manual_seed(0)
    return MAKERS[request.param]


def test_state_dict_comes_back_whole(maker, tmp_path: Path) -> None:
    x, code = torch.randn(5, 6), torch.randn(5, 8)
    module = maker()
    torch.save(module.state_dict(), tmp_path / "module.pt")
    other = maker()
    assert not torch.equal(other(x, code), module(x, code))
    other.load_state_dict(torch.load(tmp_path / "module.pt", weights_only=True))
    assert torch.equal(other(x, code), module(x, code))


def test_module_compiles_as_one_graph_with_its_gradients(maker) -> None:
    module, x, code = maker(), torch.randn(5, 4, 6), torch.randn(5, 8, requires_grad=True)
    compiled = torch.compile(module, backend="eager", fullgraph=True)
    torch.testing.assert_close(compiled(x, code), module(x, code))
    (mine,) = torch.autograd.grad(compiled(x, code).square().sum(), code)
    (theirs,) = torch.autograd.grad(module(x, code).square().sum(), code)
    torch.testing.assert_close(mine, theirs)


def test_module_exports(maker) -> None:
    module, x, code = maker(), torch.randn(5, 4, 6), torch.randn(5, 8)
    batch = torch.export.Dim("batch", min=2, max=64)
    exported = torch.export.export(module, (x, code), dynamic_shapes=({0: batch}, {0: batch}))
    more, codes = torch.randn(9, 4, 6), torch.randn(9, 8)
    torch.testing.assert_close(exported.module()(more, codes), module(more, codes))


def test_module_runs_under_autocast_and_in_bfloat16(maker) -> None:
    module, x, code = maker(), torch.randn(5, 4, 6), torch.randn(5, 8)
    whole = module(x, code)
    with torch.autocast("cpu", torch.bfloat16):
        found = module(x, code)
    found.float().square().sum().backward()
    torch.testing.assert_close(found.float(), whole, atol=0.1, rtol=0.1)
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in module.parameters())
    half = module.bfloat16()(x.bfloat16(), code.bfloat16())
    assert half.dtype == torch.bfloat16
    torch.testing.assert_close(half.float(), whole, atol=0.1, rtol=0.1)


def test_batch_may_be_empty(maker) -> None:
    found = maker()(torch.randn(0, 4, 6), torch.randn(0, 8))
    assert found.shape[0] == 0


def test_code_compiles_with_the_module_that_reads_it() -> None:
    code = PersonalizationCode({"language": 3}, {"labels": [1, 10]}, dim=4)
    head = PosoMLP(6, [5], 1, pc_dim=code.pc_dim)

    def score(x, languages, labels):
        return head(x, code({"language": languages, "labels": labels}))

    given = (
        torch.randn(5, 6),
        torch.tensor([0, 1, 2, 3, 3]),
        torch.tensor([0.0, 1.0, 5.0, 10.0, float("nan")]),
    )
    code.eval()
    compiled = torch.compile(score, backend="eager", fullgraph=True)
    torch.testing.assert_close(compiled(*given), score(*given))


def test_torch_is_all_that_the_room_needs() -> None:
    """A fresh interpreter in which every other package that quadmix uses cannot be imported."""
    probe = f"""
import sys
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {{"pyarrow", "pydantic", "scipy", "yaml", "xxhash", "orjson", "fsspec"}}:
            raise ImportError(name)
sys.meta_path.insert(0, Absent())
sys.path.insert(0, {str(Path(quadmix.__file__).parent.parent)!r})
from quadmix.poso import PosoMLP
print(PosoMLP(4, [3], 1, pc_dim=2), sorted(m for m in sys.modules if m.startswith("quadmix")))
"""
    out = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True)
    loaded = set(out.stdout.split("[")[-1].strip("]\n").replace("'", "").split(", "))
    assert {m for m in loaded if not m.startswith("quadmix.poso")} == {"quadmix", "quadmix.errors"}
