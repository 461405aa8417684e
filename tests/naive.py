"""Every block once more, in loops over single numbers, from the published equations alone.

Nothing here is imported from the package. Arrays are nested by plain indexing and computed in float64; speed does not
matter, and no operation stands for more than one step of an equation.
"""

import math

import numpy as np


def linear(x: np.ndarray, weight: np.ndarray, bias: np.ndarray | None) -> np.ndarray:
    """A 1x1 convolution at one position: (c,) to (e,)."""
    out = np.zeros(weight.shape[0])
    for i in range(weight.shape[0]):
        for j in range(weight.shape[1]):
            out[i] += weight[i, j] * x[j]
        if bias is not None:
            out[i] += bias[i]
    return out


def softmax(row: list[float]) -> list[float]:
    largest = max(row)
    exponentials = [math.exp(value - largest) for value in row]
    total = sum(exponentials)
    return [value / total for value in exponentials]


def dot(a: np.ndarray, b: np.ndarray) -> float:
    return sum(float(x) * float(y) for x, y in zip(a.ravel(), b.ravel(), strict=True))


def pool_2x2(z: np.ndarray) -> np.ndarray:
    """(h, w, e) to its 2x2 maxima; windows at an odd end are smaller."""
    h, w, e = z.shape
    out = np.empty(((h + 1) // 2, (w + 1) // 2, e))
    for i in range(out.shape[0]):
        for j in range(out.shape[1]):
            for k in range(e):
                out[i, j, k] = max(
                    z[y, x, k] for y in (2 * i, 2 * i + 1) for x in (2 * j, 2 * j + 1) if y < h and x < w
                )
    return out


def embed(x: np.ndarray, weight: np.ndarray, bias: np.ndarray) -> np.ndarray:
    """(t, h, w, c) to (t, h, w, e), position by position."""
    t, h, w, _ = x.shape
    out = np.empty((t, h, w, weight.shape[0]))
    for i in range(t):
        for y in range(h):
            for z in range(w):
                out[i, y, z] = linear(x[i, y, z], weight, bias)
    return out


def ssa_video(
    x: np.ndarray,
    params: dict[str, np.ndarray],
    *,
    similarity_scale: str,
    position_branch: bool,
    channel_branch: bool,
    shared_value: bool,
    temporal_kernel: int,
    temporal_embedding: str,
    temporal_scope: str,
    pool_keys: bool,
) -> np.ndarray:
    """M_T g_T of equations 4 to 8 for one video, (t, h, w, c) to (t, h, w, e)."""
    t, h, w, _ = x.shape
    g = embed(x, params["g.weight"], params["g.bias"])
    e = g.shape[3]

    def scale(length: int) -> float:
        return 1 / math.sqrt(length) if similarity_scale == "sqrt" else 1.0

    a = np.zeros_like(g)
    if position_branch or channel_branch:
        theta = embed(x, params["theta.weight"], params["theta.bias"])
        phi = embed(x, params["phi.weight"], params["phi.bias"])
    else:
        a = g.copy()
    for i in range(t):
        if position_branch:
            # Equation 4, row by row, times g_t.
            keys = pool_2x2(phi[i]) if pool_keys else phi[i]
            values = pool_2x2(g[i]) if pool_keys else g[i]
            keys, values = keys.reshape(-1, e), values.reshape(-1, e)
            for y in range(h):
                for z in range(w):
                    row = softmax([scale(e) * dot(theta[i, y, z], key) for key in keys])
                    for weight, value in zip(row, values, strict=True):
                        a[i, y, z] += weight * value
        if channel_branch:
            # Equation 5, row by row; channel k of the result gathers channels j with the weights of row k.
            for k in range(e):
                row = softmax([scale(h * w) * dot(theta[i, :, :, k], phi[i, :, :, j]) for j in range(e)])
                for y in range(h):
                    for z in range(w):
                        a[i, y, z, k] += sum(row[j] * g[i, y, z, j] for j in range(e))

    # The convolution over time: weight (out, e, kernel, 1), zeros beyond the ends.
    weight, bias = params["temporal.weight"], params["temporal.bias"]
    embedded = np.empty((t, h, w, weight.shape[0]))
    for i in range(t):
        for y in range(h):
            for z in range(w):
                total = bias.copy()
                for k in range(temporal_kernel):
                    at = i + k - temporal_kernel // 2
                    if 0 <= at < t:
                        total = total + linear(a[at, y, z], weight[:, :, k, 0], None)
                embedded[i, y, z] = total
    theta_t, phi_t = (embedded[..., :e], embedded[..., e:]) if temporal_embedding == "split" else (embedded, embedded)
    value = g if shared_value else embed(a, params["g_temporal.weight"], params["g_temporal.bias"])

    out = np.zeros((t, h, w, e))
    if temporal_scope == "frame":
        for i in range(t):
            row = softmax([scale(h * w * e) * dot(theta_t[i], phi_t[j]) for j in range(t)])
            for j in range(t):
                out[i] += row[j] * value[j]
    else:
        for y in range(h):
            for z in range(w):
                for i in range(t):
                    row = softmax([scale(e) * dot(theta_t[i, y, z], phi_t[j, y, z]) for j in range(t)])
                    for j in range(t):
                        out[i, y, z] += row[j] * value[j, y, z]
    return out


def ssa(x: np.ndarray, params: dict[str, np.ndarray], *, output: str, training: bool, **switches: object) -> np.ndarray:
    """The whole block on videos (b, t, c, h, w)."""
    videos = np.moveaxis(x, 2, 4)
    attended = np.stack([ssa_video(video, params, **switches) for video in videos])  # type: ignore[arg-type]
    if output == "plain":
        return np.moveaxis(attended, 4, 2)
    z = np.stack([embed(video, params["out.weight"], np.zeros(x.shape[2])) for video in attended])
    normalised = np.empty_like(z)
    for k in range(z.shape[4]):
        channel = z[..., k]
        mean = channel.mean() if training else params["norm.running_mean"][k]
        variance = ((channel - mean) ** 2).mean() if training else params["norm.running_var"][k]
        normalised[..., k] = (channel - mean) / math.sqrt(variance + 1e-5)
        normalised[..., k] = normalised[..., k] * params["norm.weight"][k] + params["norm.bias"][k]
    return x + np.moveaxis(normalised, 4, 2)


def temporal_shift(x: np.ndarray, divisor: int) -> np.ndarray:
    """TSM, figure 1b, on (b, t, c, h, w)."""
    b, t, c, _, _ = x.shape
    n = c // divisor
    out = np.zeros_like(x)
    for i in range(b):
        for j in range(t):
            for k in range(c):
                source = j + 1 if k < n else j - 1 if k < 2 * n else j
                if 0 <= source < t:
                    out[i, j, k] = x[i, source, k]
    return out
