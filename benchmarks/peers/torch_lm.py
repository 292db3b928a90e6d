"""The model in PyTorch, eager or, with --compile, through torch.compile; queries, keys and values are one product.

Shapes: B batch, L length, D width, H heads, K head width.
"""

import functools
import platform
import re
import sys

import numpy as np
import serve
import torch
import torch.nn.functional as F
from torch import nn


def layer_norm(width: int) -> nn.LayerNorm:
    return nn.LayerNorm(width, eps=1e-5, bias=False)


def linear(inputs: int, outputs: int) -> nn.Linear:
    return nn.Linear(inputs, outputs, bias=False)


def rotary(x_BHLK, cos_LK, sin_LK):
    first, second = x_BHLK.chunk(2, dim=-1)
    return torch.cat((first * cos_LK - second * sin_LK, second * cos_LK + first * sin_LK), dim=-1)


class Block(nn.Module):
    """x + attention(norm x), then x + mlp(norm x); queries and keys normalized over the whole width."""

    def __init__(self, width: int):
        super().__init__()
        self.attention_norm, self.mlp_norm = layer_norm(width), layer_norm(width)
        self.q_norm, self.k_norm = layer_norm(width), layer_norm(width)
        self.qkv, self.out = linear(width, 3 * width), linear(width, width)
        self.up, self.down = linear(width, 4 * width), linear(4 * width, width)

    def forward(self, x_BLD, cos_LK, sin_LK):
        q_BLD, k_BLD, v_BLD = self.qkv(self.attention_norm(x_BLD)).chunk(3, dim=-1)
        q, k, v = (
            z.unflatten(-1, (-1, serve.HEAD)).transpose(1, 2) for z in (self.q_norm(q_BLD), self.k_norm(k_BLD), v_BLD)
        )
        q, k = rotary(q, cos_LK, sin_LK), rotary(k, cos_LK, sin_LK)
        mixed_BHLK = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x_BLD = x_BLD + self.out(mixed_BHLK.transpose(1, 2).flatten(2))
        return x_BLD + self.down(F.gelu(self.up(self.mlp_norm(x_BLD))))


class Decoder(nn.Module):
    """Tokens and targets to the mean loss of the targets that are not -100."""

    def __init__(self, size: serve.Size):
        super().__init__()
        self.embed = nn.Embedding(size.vocabulary, size.width)
        self.blocks = nn.ModuleList(Block(size.width) for _ in range(size.depth))
        self.final_norm, self.head = layer_norm(size.width), linear(size.width, size.vocabulary)
        half = serve.HEAD // 2
        angle_LK = torch.arange(size.length)[:, None] * 10_000.0 ** (-torch.arange(half) / half)
        self.register_buffer("cos", angle_LK.cos(), persistent=False)
        self.register_buffer("sin", angle_LK.sin(), persistent=False)
        for parameter in self.parameters():
            if parameter.ndim == 2:
                nn.init.normal_(parameter, std=size.width**-0.5)

    def forward(self, tokens_BL, targets_BL):
        x_BLD = self.embed(tokens_BL)
        for block in self.blocks:
            x_BLD = block(x_BLD, self.cos, self.sin)
        logits_BLV = self.head(self.final_norm(x_BLD))
        return F.cross_entropy(logits_BLV.flatten(0, 1), targets_BL.flatten(), ignore_index=-100)


def given(weights: dict[str, np.ndarray]) -> dict[str, torch.Tensor]:
    """The decoder's state dict."""
    flat, state = serve.as_matrices(weights), {}
    for name, x in flat.items():
        path = re.sub(r"^layer_(\d+)/", lambda match: f"blocks.{int(match[1])}.", name.removesuffix("/scale"))
        block, _, part = name.rpartition("/")
        if part == "query":
            path = path.replace("query", "qkv")
            x = np.concatenate([x, flat[f"{block}/key"], flat[f"{block}/value"]], axis=1)
        if part not in ("key", "value"):
            state[f"{path}.weight"] = torch.from_numpy(x if x.ndim == 1 or name == "embed" else x.T.copy())
    return state


class Torch(serve.Peer):
    def __init__(self, compiled: bool, size: serve.Size, weights: dict[str, np.ndarray] | None):
        torch.set_num_threads(serve.cores())
        torch.manual_seed(0)
        decoder = Decoder(size)
        if weights is not None:
            decoder.load_state_dict(given(weights))
        self._params = list(decoder.parameters())
        self._loss = torch.compile(decoder) if compiled else decoder
        self._tx = torch.optim.AdamW(
            self._params,
            lr=serve.LEARNING_RATE,
            betas=(serve.B1, serve.B2),
            eps=serve.EPS,
            weight_decay=serve.WEIGHT_DECAY,
            fused=True,
        )
        self.facts = {
            "versions": {"torch": torch.__version__, "python of torch": platform.python_version()},
            "threads": torch.get_num_threads(),
            "num_params": sum(x.numel() for x in self._params),
        }

    def step(self, tokens):
        tokens_BL = torch.from_numpy(tokens).long()
        targets_BL = tokens_BL.roll(-1, dims=1)
        targets_BL[:, -1] = -100
        loss = self._loss(tokens_BL, targets_BL)
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(self._params, serve.MAX_NORM)
        self._tx.step()
        self._tx.zero_grad(set_to_none=True)
        return loss.item(), norm.item()

    def params_norm(self):
        return serve.norm(x.detach().numpy() for x in self._params)


if __name__ == "__main__":
    serve.main(functools.partial(Torch, "--compile" in sys.argv))
