"""A tiny vision transformer in numpy, and its state_dict as DINOv2 names it."""

import math

import numpy as np

from sare_tf.model.vit_architectures import Architecture

# Two heads of 64 channels, as the reader takes heads to be.
LENGTH, HIDDEN = 128, 24


def architecture(*, registers=0, swiglu=False, depth=2, **options):
    return Architecture(
        dimension=LENGTH,
        depth=depth,
        num_heads=2,
        hidden=HIDDEN,
        swiglu=swiglu,
        num_registers=registers,
        **{"antialias": registers > 0, **options},
    )


def state_dict(*, registers=0, swiglu=False, depth=2, seed=0):
    rng = np.random.default_rng(seed)

    def normal(*shape, scale=1.0):
        return np.float32(scale * rng.normal(size=shape))

    state = {
        "cls_token": normal(1, 1, LENGTH),
        "pos_embed": normal(1, 1370, LENGTH),
        "mask_token": normal(1, LENGTH),
        "patch_embed.proj.weight": normal(LENGTH, 3, 14, 14, scale=0.05),
        "patch_embed.proj.bias": normal(LENGTH),
        "norm.weight": normal(LENGTH),
        "norm.bias": normal(LENGTH),
    }
    if registers:
        state["register_tokens"] = normal(1, registers, LENGTH)
    sizes = {"attn.qkv": (3 * LENGTH, LENGTH), "attn.proj": (LENGTH, LENGTH)}
    if swiglu:
        sizes["mlp.w12"] = (2 * HIDDEN, LENGTH)
        sizes["mlp.w3"] = (LENGTH, HIDDEN)
    else:
        sizes["mlp.fc1"] = (HIDDEN, LENGTH)
        sizes["mlp.fc2"] = (LENGTH, HIDDEN)
    for block in range(depth):
        for name, (outputs, inputs) in sizes.items():
            scale = 2 * inputs**-0.5
            state[f"blocks.{block}.{name}.weight"] = normal(
                outputs, inputs, scale=scale
            )
            state[f"blocks.{block}.{name}.bias"] = normal(outputs)
        for number in (1, 2):
            for part in ("weight", "bias"):
                state[f"blocks.{block}.norm{number}.{part}"] = normal(LENGTH)
            state[f"blocks.{block}.ls{number}.gamma"] = normal(LENGTH)
    return state


def axis_weights(size, antialias, source=37):
    """Tap by tap, as PyTorch's loops."""
    a = -0.5 if antialias else -0.75

    def cubic(x):
        x = abs(x)
        if x <= 1:
            return (a + 2) * x**3 - (a + 3) * x**2 + 1
        if x < 2:
            return a * x**3 - 5 * a * x**2 + 8 * a * x - 4 * a
        return 0.0

    result = np.zeros((size, source))
    for i in range(size):
        if antialias:
            scale = source / size
            stretch = max(scale, 1.0)
            centre = scale * (i + 0.5)
            first = max(int(centre - 2 * stretch + 0.5), 0)
            end = min(int(centre + 2 * stretch + 0.5), source)
            taps = {
                j: cubic((j - centre + 0.5) / stretch)
                for j in range(first, end)
            }
            for j, weight in taps.items():
                result[i, j] = weight / sum(taps.values())
        else:
            where = (i + 0.5) * source / (size + 0.1) - 0.5
            first = math.floor(where)
            for j in range(first - 1, first + 3):
                nearest = min(max(j, 0), source - 1)
                result[i, nearest] += cubic(where - j)
    return result


def _normalise(x, state, name):
    x = x - x.mean(axis=-1, keepdims=True)
    x = x / np.sqrt(np.mean(x**2, axis=-1, keepdims=True) + 1e-6)
    return x * state[f"{name}.weight"] + state[f"{name}.bias"]


def _dense(x, state, name):
    return x @ np.float64(state[f"{name}.weight"]).T + state[f"{name}.bias"]


def _gelu(x):
    return 0.5 * x * (1 + np.vectorize(math.erf)(x / math.sqrt(2)))


def _attend(qkv, heads=2):
    parts = []
    for head in range(heads):
        columns = slice(head * LENGTH // heads, (head + 1) * LENGTH // heads)
        q, k, v = (
            qkv[:, part * LENGTH : (part + 1) * LENGTH][:, columns]
            for part in range(3)
        )
        scores = q @ k.T / math.sqrt(LENGTH // heads)
        weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
        parts.append(weights / weights.sum(axis=-1, keepdims=True) @ v)
    return np.concatenate(parts, axis=-1)


def tokens(state, image, *, learned=None, before=None, antialias=None):
    """Of one image, [H, W, 3]: tokens by name of the layer, in float64.

    `learned` tokens join before the block of the index `before`.
    """
    height, width = (side // 14 for side in image.shape[:2])
    kernel = np.float64(state["patch_embed.proj.weight"])
    if antialias is None:
        antialias = "register_tokens" in state
    grid = np.float64(state["pos_embed"][0, 1:]).reshape(37, 37, LENGTH)
    if (height, width) != (37, 37):
        rows, columns = (axis_weights(n, antialias) for n in (height, width))
        grid = np.einsum("hi,wj,ijd->hwd", rows, columns, grid)
    x = [state["cls_token"][0, 0] + np.float64(state["pos_embed"][0, 0])]
    x.extend(state.get("register_tokens", np.zeros((1, 0, LENGTH)))[0])
    for i in range(height):
        for j in range(width):
            patch = image[14 * i : 14 * i + 14, 14 * j : 14 * j + 14]
            token = np.einsum("dcij,ijc->d", kernel, patch)
            x.append(token + state["patch_embed.proj.bias"] + grid[i, j])
    x = np.stack(x)
    result = {"embedding": x}
    depth = sum(name.endswith("ls1.gamma") for name in state)
    for block in range(depth):
        name = f"blocks.{block}"
        if block == before:
            x = np.concatenate([learned, x])
        qkv = _dense(
            _normalise(x, state, f"{name}.norm1"), state, f"{name}.attn.qkv"
        )
        result[f"block{block}_qkv"] = qkv
        y = _dense(_attend(qkv), state, f"{name}.attn.proj")
        x = x + state[f"{name}.ls1.gamma"] * y
        y = _normalise(x, state, f"{name}.norm2")
        if f"{name}.mlp.w3.weight" in state:
            gate, value = np.split(_dense(y, state, f"{name}.mlp.w12"), 2, -1)
            y = gate / (1 + np.exp(-gate)) * value
            y = _dense(y, state, f"{name}.mlp.w3")
        else:
            y = _gelu(_dense(y, state, f"{name}.mlp.fc1"))
            y = _dense(y, state, f"{name}.mlp.fc2")
        x = x + state[f"{name}.ls2.gamma"] * y
        result[f"block{block}_ls2"] = x
    result["norm"] = _normalise(x, state, "norm")
    return result
