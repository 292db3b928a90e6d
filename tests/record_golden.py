"""Records the trajectories of tests/golden that public PyTorch code produced, again, from tests/golden/inputs.npz.

    pip install numpy torch==2.13.0
    pip install --no-deps timm==1.0.31 pytorch_optimizer==4.1.0 adam-mini==1.1.1 ai2-olmo==0.6.0
    pip install omegaconf==2.4.0
    python tests/record_golden.py --out=FOLDER [--olmo=CLONE] [--sophia=CLONE] [--mars=CLONE] [--check=tests/golden]

What is no package runs from a clone: github rosieyzh/optimizers-llm @ a1f8a3f58f4b (--olmo), Liuhong99/Sophia
@ a7e157229b71 (--sophia), AGI-Arena/MARS @ 31d813c690ab (--mars). --check compares with recorded files: exit code 1
where one differs. A file keeps the `source` and `note` of the one in tests/golden, which its README.md describes.
"""
# pyright: reportMissingImports=false

import argparse
import contextlib
import enum
import importlib
import io
import itertools
import json
import sys
import types
from collections.abc import Callable
from functools import partial
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

import numpy as np
import torch

GOLDEN = Path(__file__).parent / "golden"
INPUTS = {**np.load(GOLDEN / "inputs.npz"), **np.load(GOLDEN / "hess_inputs.npz")}
LEAVES = ("embed", "query", "mlp", "norm", "head")
STEPS = 20
OLMO_NAMES = {"embed": "wte", "query": "att_proj", "mlp": "ff_proj", "norm": "ln_f", "head": "ff_out_last"}


class Run(NamedTuple):
    source: str  # A class.
    lr: float
    hyper: dict[str, Any]  # As recorded.
    fixed: dict[str, Any] = {}  # noqa: RUF012  Further arguments of the constructor.
    layout: str = "torch"  # [out, in]; or as in JAX, "jax", or "matrix": query is [d, H*K].
    dtype: str = "float64"


ADAM = {"b1": 0.9, "b2": 0.95, "eps": 1e-15, "weight_decay": 0.0}
ADAM_DECAY = {**ADAM, "weight_decay": 0.1}
LION = {"b1": 0.9, "b2": 0.95, "weight_decay": 0.0}
LAYER = {"b1b2": [0.9, 0.95], "eps": 1e-15, "weight_decay": 0.0}
STAR = {**LAYER, "lastlayer_correction": True}
FROZEN = {**ADAM, "lastlayer_correction": True, "t_freeze": 6, "update_last": True, "update_norm": True}
HYBRID = {**ADAM, "lr_sgd": 0.316, "lr_adaptive": 3.16e-3, "adaptive_leaves": ["norm", "head"], "update_norm": True}
LAST_LAYER = {**HYBRID, "lastlayer_correction": True}
LAST_ONLY = {**LAST_LAYER, "adaptive_leaves": ["head"], "update_norm": False, "no_norm_training": True}
FACTOR_BV = {"min_dim_size_to_factor": 4, "decay_rate": 0.8, "beta2_cap": 0.999, "momentum": 0.9, "weight_decay": 0.0}
FACTOR_BV |= {"momentum_dtype": "float64", "eps": 1e-30, "clipping_threshold": None}
SGD = {"momentum": 0.98, "dampening": 0.0, "weight_decay": 0.0, "nesterov": False}
NESTEROV = {**SGD, "momentum": 0.9, "weight_decay": 0.1, "nesterov": True}
LARS = {"momentum": 0.9, "weight_decay": 0.0, "trust_coeff": 0.001, "eps": 0.0}
LAMB = {"b1": 0.9, "b2": 0.999, "eps": 1e-6, "weight_decay": 0.1}
SOPHIA_G = {"b1": 0.965, "b2": 0.99, "rho": 0.04, "bs": 5120, "weight_decay": 0.0, "update_interval": 10}
SOPHIA_H = {"b1": 0.96, "b2": 0.99, "p": 0.01, "eps": 1e-12, "weight_decay": 0.1, "update_interval": 5}
SOAP = {"b1": 0.95, "b2": 0.95, "eps": 1e-8, "weight_decay": 0.0, "precondition_frequency": 3}
MARS = {"b1": 0.95, "b2": 0.99, "betas_1d": [0.9, 0.95], "gamma": 0.025, "eps": 1e-8}
MARS |= {"weight_decay": 0.0, "weight_decay_1d": 0.0}
MARS_DECAY = {**MARS, "weight_decay": 0.1, "weight_decay_1d": 0.1}
MINI = {"dim": 6, "n_heads": 2, "verbose": False}
LR_1 = {"lr": 1.0, "lr_1d": 1.0}

RUNS = {
    "adamw_b95_eps1e-15_wd0": Run("torch.optim.AdamW", 3.16e-3, ADAM, {"foreach": False}),
    "adamw_b95_eps1e-15_wd0.1_f32": Run("torch.optim.AdamW", 3.16e-3, ADAM_DECAY, {"foreach": False}, dtype="float32"),
    "sgdw_m98_wd0": Run("timm.optim.sgdw.SGDW", 0.1, SGD, {"foreach": False}),
    "sgdw_m90_nesterov_wd0.1": Run("timm.optim.sgdw.SGDW", 0.1, NESTEROV, {"foreach": False}),
    "lars_m90_wd0": Run("timm.optim.lars.Lars", 1.0, LARS, {"always_adapt": True}),
    "lamb_wd0.1": Run("timm.optim.lamb.Lamb", 0.01, LAMB, {"max_grad_norm": None}),
    "adafactor_bv_f64": Run("timm.optim.adafactor_bv.AdafactorBigVision", 3.16e-3, FACTOR_BV, layout="jax"),
    "adam_mini_b95_eps1e-8_wd0": Run("adam_mini.Adam_mini", 3.16e-3, {**ADAM, "eps": 1e-8}, MINI),
    "sophiah_k5_p0.01_wd0.1": Run("pytorch_optimizer.SophiaH", 0.3, SOPHIA_H, {"update_period": 5}),
    "soap_max_dim7": Run("pytorch_optimizer.SOAP", 0.01, {**SOAP, "max_precondition_dim": 7}, layout="matrix"),
    "mars": Run("MARS.optimizers.mars.MARS", 3e-3, MARS, LR_1, layout="matrix"),
    "mars_wd0.1": Run("MARS.optimizers.mars.MARS", 3e-3, MARS_DECAY, LR_1, layout="matrix"),
    "sophiag_k10_rho0.04_wd0": Run("sophia.SophiaG", 3e-3, SOPHIA_G),
    "lion_b90_b95_wd0": Run("olmo.optim.LionW", 3.16e-4, LION),
    "signum_b90_wd0": Run("olmo.optim.LionW", 3.16e-4, {**LION, "b2": 0.9}),
    "adafactor_authors_wd0": Run("olmo.optim.AdafactorW", 3.16e-3, {**ADAM, "neuron_only": False}),
    "adalayer_wd0": Run("olmo.optim.AdalayerW", 3.16e-3, LAYER),
    "adalayer_star_wd0": Run("olmo.optim.AdalayerW", 3.16e-3, STAR),
    "adalayer_star_wd0_f32": Run("olmo.optim.AdalayerW", 3.16e-3, STAR, dtype="float32"),
    "frozen_adalayer_star_last_norm": Run("olmo.optim.AdalayerW", 3.16e-3, FROZEN),
    "hybrid_sgd_adafactor_last_norm_wd0": Run("olmo.optim.AdafactorWLast", 0.316, {**HYBRID, "update_last": True}),
    "hybrid_sgd_adalayer_last_norm_wd0": Run("olmo.optim.AdalayerWLast", 0.316, LAST_LAYER),
    "hybrid_sgd_adalayer_last_only_no_norm_training_wd0": Run("olmo.optim.AdalayerWLast", 0.316, LAST_ONLY),
}


class Leaves:
    """The parameters of one run."""

    def __init__(self, layout: str, dtype: str):
        self.layout, self.dtype = layout, getattr(torch, dtype)
        self.params = {leaf: torch.nn.Parameter(self.from_jax(leaf, INPUTS[f"p0/{leaf}"])) for leaf in LEAVES}

    def transposed(self, leaf: str) -> bool:
        return self.layout == "torch" and leaf in ("query", "mlp", "head")

    def from_jax(self, leaf: str, x: np.ndarray) -> torch.Tensor:
        x = x.reshape(len(x), -1) if leaf == "query" and self.layout != "jax" else x
        return torch.tensor(np.ascontiguousarray(x.T if self.transposed(leaf) else x), dtype=self.dtype)

    def to_jax(self, leaf: str, x: torch.Tensor) -> np.ndarray:
        y = x.detach().numpy()
        return (y.T if self.transposed(leaf) else y).reshape(INPUTS[f"p0/{leaf}"].shape).copy()

    def at_step(self, kind: str, t: int) -> list[torch.Tensor]:
        return [self.from_jax(leaf, INPUTS[f"{kind}/{leaf}"][t - 1]) for leaf in LEAVES]

    def set_grads(self, kind: str, t: int) -> None:
        for p, g in zip(self.params.values(), self.at_step(kind, t), strict=True):
            p.grad = g

    def groups(self, *leaves: str) -> list[dict[str, Any]]:
        """One parameter group a leaf, since rates are set by leaf."""
        return [{"params": [self.params[leaf]], "param_names": [OLMO_NAMES[leaf]]} for leaf in leaves or LEAVES]


def find(source: str) -> Any:
    module, _, name = source.rpartition(".")
    return getattr(importlib.import_module(module), name)


def build(run: Run, leaves: Leaves) -> list[Any]:
    h, name = run.hyper, run.source.rpartition(".")[2]
    ours = ("b1", "b2", "b1b2", "adaptive_leaves", "lr_sgd", "lr_adaptive", "update_interval", "bs")
    given = {k: v for k, v in h.items() if k not in ours} | run.fixed
    if "b2" in h or "b1b2" in h:
        given["betas"] = tuple(h.get("b1b2") or (h["b1"], h["b2"]))
    if "momentum_dtype" in h:
        given["momentum_dtype"] = getattr(torch, h["momentum_dtype"])
    if name == "SOAP":
        adam = {k: given[k] for k in ("betas", "eps", "weight_decay")}
        others = torch.optim.AdamW(leaves.groups("embed", "norm", "head"), **adam, foreach=False)
        return [find(run.source)(leaves.groups("query", "mlp"), **given), others]
    if name == "Adam_mini":  # It wants the names.
        return [find(run.source)([("lm_head" if k == "head" else k, p) for k, p in leaves.params.items()], **given)]
    return [find(run.source)(leaves.groups(), **given)]


def step(run: Run, leaves: Leaves, optimizers: list[Any], t: int) -> None:
    k = run.hyper.get("update_interval", 1)
    if run.source.endswith("SophiaH"):
        optimizers[0].step(hessian=leaves.at_step("hutch", t) if t % k == 1 else None)
    elif run.source.endswith("SophiaG"):
        optimizers[0].step(bs=run.hyper["bs"])
        if t % k == 0:
            leaves.set_grads("gnb_grad", t)
            optimizers[0].update_hessian()
    else:
        for optimizer in optimizers:
            optimizer.step()


def final_state(run: Run, leaves: Leaves, optimizer: Any) -> dict[str, np.ndarray]:
    if run.source.endswith("LionW"):
        return {"state/cos_sim": optimizer.get_post_step_metrics(None)["update_cos_sim"].numpy()}
    if not run.source.endswith("AdalayerW"):
        return {}
    state = {leaf: optimizer.state[p] for leaf, p in leaves.params.items()}
    m = {f"state/m/{leaf}": leaves.to_jax(leaf, s["exp_avg"]) for leaf, s in state.items()}
    return m | {f"state/v/{leaf}": s["exp_avg_sq"].numpy() for leaf, s in state.items()}


def record(name: str, run: Run) -> dict[str, Any]:
    leaves, h = Leaves(run.layout, run.dtype), run.hyper
    optimizers = build(run, leaves)
    peak = [h["lr_adaptive"] if leaf in h.get("adaptive_leaves", ()) else run.lr for leaf in LEAVES]
    lr = np.where(np.arange(STEPS) < h.get("t_freeze", 0), 0.0, np.array(peak)[:, None])
    row = {p: i for i, p in enumerate(leaves.params.values())}
    after = []
    for t in range(1, STEPS + 1):
        leaves.set_grads("grad", t)
        for group in itertools.chain(*(o.param_groups for o in optimizers)):
            group["lr"] = float(lr[row[group["params"][0]], t - 1])
        step(run, leaves, optimizers, t)
        after.append({leaf: leaves.to_jax(leaf, p) for leaf, p in leaves.params.items()})
    old = GOLDEN / f"{name}.npz"
    meta = {"name": name, "kind": "public-implementation", "source": run.source, "note": ""}
    meta |= json.loads(str(np.load(old)["meta"])) if old.exists() else {}
    meta |= {"hyperparams": h, "layout_run": run.layout, "leaves": LEAVES, "dtype": run.dtype}
    meta["versions"] = ", ".join(f"{p} {version(p)}" for p in ("torch", "timm", "pytorch_optimizer", "adam-mini"))
    arrays = {f"traj/{leaf}": np.stack([x[leaf] for x in after]) for leaf in LEAVES}
    return {**arrays, "lr": lr, **final_state(run, leaves, optimizers[0]), "meta": json.dumps(meta)}


def schedules() -> dict[str, Any]:
    cosine = find("olmo.optim.CosWithWarmup")(None, None, warmup_steps=10)
    frozen = find("olmo.optim.FreezeCosWithWarmup")(None, None, t_freeze=7, warmup_steps=10)
    values = {
        "steps": np.arange(131),
        "cos_with_warmup": np.array([cosine.get_lr(1.0, s, 100) for s in range(131)]),
        "freeze_cos_with_warmup": np.array([frozen.get_lr(1.0, s, 107) for s in range(131)]),
    }
    return {**values, "meta": np.load(GOLDEN / "schedules_authors.npz")["meta"]}


def gnb() -> dict[str, Any]:
    """Curvature estimates of logits tanh(X W1) W2 by autograd, at the recorded X, weights, labels and one draw."""
    old = dict(np.load(GOLDEN / "gnb.npz"))
    x, w1, w2 = (torch.tensor(old[k]) for k in ("X", "W1", "W2"))
    theta, n = torch.cat([w1.flatten(), w2.flatten()]), len(x)

    def logits(theta: torch.Tensor) -> torch.Tensor:
        return torch.tanh(x @ theta[: w1.numel()].view_as(w1)) @ theta[w1.numel() :].view_as(w2)

    def loss(labels: Any) -> Callable[[torch.Tensor], torch.Tensor]:
        return lambda theta: torch.nn.functional.cross_entropy(logits(theta), torch.as_tensor(labels))

    def estimate(labels: Any) -> torch.Tensor:
        return n * torch.autograd.functional.jacobian(loss(labels), theta) ** 2

    probs, rows = logits(theta).softmax(-1), torch.autograd.functional.jacobian(logits, theta)
    draws = [torch.tensor(draw) for draw in itertools.product(range(w2.shape[1]), repeat=n)]
    curvature = torch.diag_embed(probs) - probs[:, :, None] * probs[:, None, :]
    values = {
        "one_draw_grad": torch.autograd.functional.jacobian(loss(old["one_draw_labels"]), theta),
        "one_draw_h": estimate(old["one_draw_labels"]),
        "gn_diag": torch.einsum("bcp,bcd,bdp->p", rows, curvature, rows) / n,
        "expected_h": sum(probs[range(n), draw].prod() * estimate(draw) for draw in draws),
    }
    new = {k: old[k] for k in ("X", "W1", "W2", "y", "one_draw_labels", "meta")} | {"probs": probs.numpy()}
    new["hess_diag"] = torch.autograd.functional.hessian(loss(old["y"]), theta).diag().numpy()
    for k, v in values.items():
        new |= {f"{k}_W1": v[: w1.numel()].view_as(w1).numpy(), f"{k}_W2": v[w1.numel() :].view_as(w2).numpy()}
    return new


QK_NORM = {"d_model": 16, "n_heads": 2, "n_layers": 2, "mlp_hidden_size": 24, "vocab_size": 32, "embedding_size": None}
QK_NORM |= {"attention_layer_norm": True, "activation_type": "gelu", "rope": True, "include_bias": False}
QK_NORM |= {"layer_norm_with_affine": True, "weight_tying": False, "rope_full_precision": False, "init_device": "cpu"}
QK_NORM |= {"attention_dropout": 0.0, "residual_dropout": 0.0, "embedding_dropout": 0.0}
QK_NORM |= {"max_sequence_length": 10, "eos_token_id": 0, "pad_token_id": 0}


def olmo_weight(rng: np.random.Generator, name: str, shape: tuple[int, ...]) -> np.ndarray:
    """Scales of norms about 1, matrices like their initialisation; but queries and keys of layer 0 near sqrt(eps)."""
    if len(shape) == 1:
        return rng.uniform(0.5, 1.5, shape).astype(np.float32)
    weight = rng.normal(size=shape) / shape[1] ** 0.5
    if name == "transformer.blocks.0.att_proj.weight":
        weight[:32] *= 0.003
    return weight.astype(np.float32)


def make_ai2_importable() -> None:
    """ai2-olmo's model without the rest of the package, which needs clouds' clients."""
    for name in [name for name in sys.modules if name.partition(".")[0] == "olmo"]:
        del sys.modules[name]
    package, util = types.ModuleType("olmo"), types.ModuleType("olmo.util")
    package.__path__ = list(find_spec("olmo").submodule_search_locations)  # pyright: ignore
    util.StrEnum = enum.StrEnum  # pyright: ignore
    sys.modules |= {"olmo": package, "olmo.util": util}


def olmo_qk_norm() -> dict[str, Any]:
    """Logits, losses and gradients of AI2's OLMo with norms of queries and keys, at weights and tokens of our own."""
    rng, z_loss = np.random.default_rng(0), 1e-4
    with mock.patch.dict(sys.modules), mock.patch.object(torch, "float", torch.float64):  # RoPE's angles
        make_ai2_importable()
        config = find("olmo.config.ModelConfig")(**QK_NORM)
        model = find("olmo.model.OLMo")(config).double()
        weights = {name: olmo_weight(rng, name, tuple(p.shape)) for name, p in sorted(model.named_parameters())}
        model.load_state_dict({name: torch.tensor(w, dtype=torch.float64) for name, w in weights.items()})
        tokens = rng.integers(0, config.vocab_size, (2, 10))
        logits = model(torch.tensor(tokens)).logits
        predicted, targets = logits[:, :-1].flatten(0, 1), torch.tensor(tokens[:, 1:]).flatten()
        ce, z = torch.nn.functional.cross_entropy(predicted, targets), predicted.logsumexp(-1).square().mean()
        (ce + z_loss * z).backward()
    values = {"tokens": tokens, "logits": logits.detach().numpy(), "ce": ce.item(), "log_z_squared": z.item()}
    for name, p in model.named_parameters():
        renamed = name.replace("transformer.ff_out", "transformer.ff_out_last")  # as in the other files
        values |= {f"w/{renamed}": weights[name], f"grad/{renamed}": p.grad.numpy()}  # pyright: ignore
    versions = ", ".join(f"{package} {version(package)}" for package in ("torch", "ai2-olmo"))
    meta = {"source": "olmo.model.OLMo", "config": QK_NORM, "z_loss": z_loss, "versions": versions}
    return {**values, "meta": json.dumps(meta)}


class Stub(types.ModuleType):
    """A module in which every name is a class: stands in for what olmo/optim.py imports and does not use here."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return type(name, (), {})


def make_importable(args: argparse.Namespace) -> None:
    """Clones, and timm.optim without the rest of timm, which needs torchvision."""
    sys.path += [clone for clone in (args.sophia, args.mars) if clone]
    timm = find_spec("timm").submodule_search_locations[0]  # pyright: ignore
    for name, folder in {"timm": timm, "timm.optim": f"{timm}/optim"}.items():
        sys.modules[name] = types.ModuleType(name)
        sys.modules[name].__path__ = [folder]
    importlib.import_module("timm.optim.sgdw")
    if args.olmo:
        sys.modules |= {name: Stub(name) for name in ("olmo", "olmo.config", "olmo.torch_util", "olmo.sophia")}
        sys.modules["olmo.torch_util"].get_default_device = lambda: torch.device("cpu")  # pyright: ignore
        sys.modules["olmo.optim"] = types.ModuleType("olmo.optim")
        # It knows the logits' matrix by its size.
        text = Path(args.olmo, "olmo/optim.py").read_text().replace("shape[0] > 10000", "shape[0] > 0")
        exec(compile(text, "olmo/optim.py", "exec"), sys.modules["olmo.optim"].__dict__)


def differences(new: dict[str, Any], old: dict[str, Any], dtype: str) -> list[str]:
    """The arrays and hyperparameters that differ."""
    rtol, atol = (2e-5, 5e-6) if dtype == "float32" else (1e-9, 1e-11)
    keys = [k for k in sorted(new.keys() & old.keys() - {"meta"}) if not np.allclose(new[k], old[k], rtol, atol)]
    now, then = (json.loads(str(x["meta"])).get("hyperparams", {}) for x in (new, old))
    return sorted(new.keys() ^ old.keys()) + keys + [k for k in then if now.get(k) != then[k]]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--check", type=Path)
    for clone in ("olmo", "sophia", "mars"):
        parser.add_argument(f"--{clone}")
    args = parser.parse_args()
    make_importable(args)
    Path(args.out, "model").mkdir(parents=True, exist_ok=True)
    makers = {n: (run.source.partition(".")[0].lower(), run.dtype, partial(record, n, run)) for n, run in RUNS.items()}
    makers |= {"gnb": ("torch", "float64", gnb), "schedules_authors": ("olmo", "float64", schedules)}
    makers |= {"model/olmo_qk_norm": ("ai2", "float64", olmo_qk_norm)}
    failed = False
    for name, (package, dtype, make) in makers.items():
        if not getattr(args, package, True):
            print(f"{name}: left out, needs --{package}")
            continue
        # The sources' own float32 (a scalar state, a cast before qr) is float64 in a float64 run. Some print.
        with mock.patch.object(torch, "float32", getattr(torch, dtype)), contextlib.redirect_stdout(io.StringIO()):
            new = make()
        np.savez_compressed(args.out / f"{name}.npz", **new)
        if args.check:
            old = args.check / f"{name}.npz"
            bad = differences(new, dict(np.load(old)), dtype) if old.exists() else ["no such file"]
            print(f"{name}: {'differs in ' + ', '.join(bad) if bad else 'equal'}")
            failed |= bool(bad)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
