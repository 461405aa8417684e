"""Every block once more, in loops over single numbers, from the published equations alone.

Nothing here is imported from the package. Arrays are nested by plain indexing and computed in float64; speed does not
matter, and no operation stands for more than one step of an equation.
"""

import itertools
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
    return add_attended(x, attended, params, training=training)


def add_attended(x: np.ndarray, attended: np.ndarray, params: dict[str, np.ndarray], *, training: bool) -> np.ndarray:
    """x + BN(W_z attended) for x (b, t, c, h, w) and attended (b, t, h, w, e)."""
    z = np.stack([embed(video, params["out.weight"], np.zeros(x.shape[2])) for video in attended])
    normalised = np.empty_like(z)
    for k in range(z.shape[4]):
        channel = z[..., k]
        mean = channel.mean() if training else params["norm.running_mean"][k]
        variance = ((channel - mean) ** 2).mean() if training else params["norm.running_var"][k]
        normalised[..., k] = (channel - mean) / math.sqrt(variance + 1e-5)
        normalised[..., k] = normalised[..., k] * params["norm.weight"][k] + params["norm.bias"][k]
    return x + np.moveaxis(normalised, 4, 2)


def non_local(
    x: np.ndarray,
    params: dict[str, np.ndarray],
    *,
    axes: str,
    similarity_scale: str,
    pool_keys: bool,
    training: bool,
    pairwise: str = "embedded_gaussian",
) -> np.ndarray:
    """Non-local, equations 2 to 4 and 6, on (b, t, c, h, w): positions ask those that share the other axes."""
    attended = []
    for video in np.moveaxis(x, 2, 4):
        t, h, w, _ = video.shape
        theta = phi = video
        if pairwise != "gaussian":
            theta = embed(video, params["theta.weight"], params["theta.bias"])
            no_bias = np.zeros(theta.shape[3])
            phi = embed(video, params["phi.weight"], params["phi.bias"] if pairwise == "dot_product" else no_bias)
        g = embed(video, params["g.weight"], params["g.bias"])
        if pool_keys:
            phi = np.stack([pool_2x2(frame) for frame in phi])
            g = np.stack([pool_2x2(frame) for frame in g])
        scale = 1 / math.sqrt(theta.shape[3]) if similarity_scale == "sqrt" else 1.0
        seen = [(i, y, z) for i in range(t) for y in range(phi.shape[1]) for z in range(phi.shape[2])]
        out = np.zeros((t, h, w, g.shape[3]))
        for i in range(t):
            for y in range(h):
                for z in range(w):
                    keys = [
                        (j, u, v) for j, u, v in seen if ("t" in axes or j == i) and ("hw" in axes or (u, v) == (y, z))
                    ]
                    row = [scale * dot(theta[i, y, z], phi[key]) for key in keys]
                    row = [value / len(keys) for value in row] if pairwise == "dot_product" else softmax(row)
                    for weight, key in zip(row, keys, strict=True):
                        out[i, y, z] += weight * g[key]
        attended.append(out)
    return add_attended(x, np.stack(attended), params, training=training)


def double_attention(x: np.ndarray, params: dict[str, np.ndarray], *, training: bool) -> np.ndarray:
    """A2-Nets, section 3, on (b, t, c, h, w): weights over positions gather, weights over descriptors hand out."""
    attended = []
    for video in np.moveaxis(x, 2, 4):
        a = embed(video, params["features.weight"], params["features.bias"])
        d = params["maps.weight"].shape[0]
        b = embed(video, params["maps.weight"], np.zeros(d))
        v = embed(video, params["vectors.weight"], params["vectors.bias"])
        places = [(i, y, z) for i in range(a.shape[0]) for y in range(a.shape[1]) for z in range(a.shape[2])]
        descriptors = []
        for k in range(d):
            weights = softmax([b[place][k] for place in places])
            total = np.zeros(a.shape[3])
            for weight, place in zip(weights, places, strict=True):
                total += weight * a[place]
            descriptors.append(total)
        out = np.zeros_like(a)
        for place in places:
            for weight, descriptor in zip(softmax(list(v[place])), descriptors, strict=True):
                out[place] += weight * descriptor
        attended.append(out)
    return add_attended(x, np.stack(attended), params, training=training)


def relation(features: np.ndarray, params: dict[str, np.ndarray], *, num_relations: int) -> np.ndarray:
    """TRN, equation 3, on (b, t, f), every relation of every scale, scaled to num_relations a scale; to (b, k)."""
    _, t, f = features.shape
    out = []
    for video in features:
        scores = np.zeros(params["score.0.bias"].shape[0])
        for d in range(2, t + 1):
            weights = [params[f"{layer}.{d - 2}.{kind}"] for layer in ("fuse", "score") for kind in ("weight", "bias")]
            relations = [order for order in itertools.product(range(t), repeat=d) if list(order) == sorted(set(order))]
            share = min(num_relations, len(relations)) / len(relations)
            for frames in relations:
                joined = np.zeros(d * f)
                for place, i in enumerate(frames):
                    for k in range(f):
                        joined[place * f + k] = max(video[i, k], 0.0)
                hidden = linear(joined, weights[0], weights[1])
                hidden = np.array([max(value, 0.0) for value in hidden])
                scores += share * linear(hidden, weights[2], weights[3])
        out.append(scores)
    return np.stack(out)


def attention_pooling(features: np.ndarray, query: np.ndarray, weight: np.ndarray, bias: np.ndarray) -> np.ndarray:
    """Features (b, t, d) pooled by attention with one query (d), then a linear layer; to (b, k)."""
    out = []
    for video in features:
        logits = [sum(query[c] * frame[c] for c in range(len(query))) for frame in video]
        total = sum(math.exp(logit) for logit in logits)
        pooled = np.zeros(video.shape[1])
        for frame, logit in zip(video, logits, strict=True):
            pooled += math.exp(logit) / total * frame
        out.append(linear(pooled, weight, bias))
    return np.stack(out)


def temporal_shift(x: np.ndarray, divisor: int, direction: str = "both") -> np.ndarray:
    """TSM, figures 1b ("both") and 1c ("past"), on (b, t, c, h, w)."""
    b, t, c, _, _ = x.shape
    n = c // divisor
    out = np.zeros_like(x)
    for i in range(b):
        for j in range(t):
            for k in range(c):
                if direction == "both":
                    source = j + 1 if k < n else j - 1 if k < 2 * n else j
                else:
                    source = j - 1 if k < n else j
                if 0 <= source < t:
                    out[i, j, k] = x[i, source, k]
    return out


def temporal_aggregation(x: np.ndarray, params: dict[str, np.ndarray]) -> np.ndarray:
    """bLVNet-TAM's module with three frames, on (b, t, c, h, w)."""
    b, t, c, h, w = x.shape
    out = np.zeros_like(x)
    for i, j, k, y, z in itertools.product(range(b), range(t), range(c), range(h), range(w)):
        total = 0.0
        for name, source in (("prev", j - 1), ("curr", j), ("next", j + 1)):
            if 0 <= source < t:
                total += params[f"{name}.weight"][k, 0, 0, 0] * x[i, source, k, y, z]
        out[i, j, k, y, z] = max(total, 0.0)
    return out


def sigmoid(value: float) -> float:
    return 1 / (1 + math.exp(-value))


def unit_length(x: np.ndarray) -> np.ndarray:
    length = math.sqrt(dot(x, x))
    return np.array([value / length for value in x])


def gated_embedding(x: np.ndarray, params: dict[str, np.ndarray]) -> np.ndarray:
    """HowTo100M's gated embedding unit on (b, f), to (b, d)."""
    out = []
    for row in x:
        y = linear(row, params["fc.weight"], params["fc.bias"])
        gate = linear(y, params["gate.weight"], params["gate.bias"])
        out.append(unit_length(np.array([y[i] * sigmoid(gate[i]) for i in range(len(y))])))
    return np.stack(out)


def attention_over_time(x: np.ndarray, num: list[int], score: np.ndarray) -> np.ndarray:
    """Vectors (b, t, f), of which the first num[i] count, to (b, f); score is (f,)."""
    out = []
    for video, n in zip(x, num, strict=True):
        weights = softmax([dot(video[j], score) for j in range(n)])
        total = np.zeros(x.shape[2])
        for j in range(n):
            for k in range(x.shape[2]):
                total[k] += weights[j] * video[j, k]
        out.append(unit_length(total))
    return np.stack(out)


def max_over_words(x: np.ndarray, weight: np.ndarray, bias: np.ndarray) -> np.ndarray:
    """HowTo100M's sentence encoder on word vectors (b, l, f), the padding's zeros among them, to (b, k)."""
    out = np.empty((len(x), len(bias)))
    for i, caption in enumerate(x):
        rows = [linear(word, weight, bias) for word in caption]
        for k in range(len(bias)):
            out[i, k] = max(max(row[k], 0.0) for row in rows)
    return out


def recurrent(x: np.ndarray, params: dict[str, np.ndarray], *, kind: str, backwards: bool = False) -> np.ndarray:
    """The last hidden state (h,) of torch's GRU or LSTM over the word vectors (l, f) of one caption.

    The gates' rows of a weight lie one after the other: of a GRU reset, update, new; of an LSTM input, forget, cell,
    output.
    """
    end = "_l0_reverse" if backwards else "_l0"
    h = params[f"weight_hh{end}"].shape[1]
    state, memory = np.zeros(h), np.zeros(h)
    for word in x[::-1] if backwards else x:
        of_word = linear(word, params[f"weight_ih{end}"], params[f"bias_ih{end}"])
        of_state = linear(state, params[f"weight_hh{end}"], params[f"bias_hh{end}"])
        after = np.empty(h)
        for k in range(h):
            if kind == "gru":
                reset = sigmoid(of_word[k] + of_state[k])
                update = sigmoid(of_word[h + k] + of_state[h + k])
                new = math.tanh(of_word[2 * h + k] + reset * of_state[2 * h + k])
                after[k] = (1 - update) * new + update * state[k]
            else:
                take, forget, cell, give = (of_word[g * h + k] + of_state[g * h + k] for g in range(4))
                memory[k] = sigmoid(forget) * memory[k] + sigmoid(take) * math.tanh(cell)
                after[k] = sigmoid(give) * math.tanh(memory[k])
        state = after
    return state


def grown_caption(
    texts: list[str], starts: list[float], ends: list[float], index: int, min_seconds: float, min_words: int
) -> list[int]:
    """Which captions one grows to, in the order in which they are taken (Miech et al., ICCV 2019)."""
    taken = [index]
    while True:
        words = [run for place in taken for run in runs_of_letters(texts[place])]
        begin, end = min(taken), max(taken)
        if len(words) >= min_words and not ends[end] - starts[begin] < min_seconds:
            return taken
        choices = []  # what it costs to take one, and which side wins where the costs are equal
        for turn, place in enumerate((begin - 1, end + 1)):
            if 0 <= place < len(texts):
                if min_seconds > 0:
                    cost = ends[max(end, place)] - starts[min(begin, place)]
                else:
                    cost = -float(len(runs_of_letters(texts[place])))
                choices.append((cost, turn, place))
        if not choices:
            return taken
        taken.append(min(choices)[2])


def runs_of_letters(text: str) -> list[str]:
    """Runs of letters, digits, underscores and apostrophes, one character after another."""
    runs = [""]
    for letter in text:
        if letter.isalnum() or letter in "_'":
            runs[-1] += letter
        else:
            runs.append("")
    return [run for run in runs if run]


def similarity(texts: np.ndarray, videos: np.ndarray) -> list[list[float]]:
    """Products of every text with every video."""
    return [[dot(text, video) for video in videos] for text in texts]


def max_margin(
    texts: np.ndarray,
    videos: np.ndarray,
    groups: list[int],
    *,
    margin: float,
    hard_negative_rate: float,
    negative_weighting: bool,
    leave_out: bool,
) -> float:
    """HowTo100M, section 4.2: hinges of every pair against every other in both directions, by weight."""
    s, b = similarity(texts, videos), len(groups)
    num_intra = sum(groups[i] == groups[j] for i in range(b) for j in range(b))
    total, num = 0.0, 0
    for i in range(b):
        for j in range(b):
            same = groups[i] == groups[j]
            if leave_out and same and i != j:
                continue
            weight = 1.0
            if negative_weighting and not leave_out and b < num_intra < b * b:
                weight = hard_negative_rate * b * b / num_intra
                if not same:
                    weight = (1 - hard_negative_rate) * b * b / (b * b - num_intra)
            total += weight * (max(0.0, margin + s[i][j] - s[i][i]) + max(0.0, margin + s[i][j] - s[j][j]))
            num += 1
    return total / num


def hardest_negative(
    texts: np.ndarray, videos: np.ndarray, groups: list[int], *, margin: float, leave_out: bool
) -> float:
    """VSE++, equation 6, the mean over the pairs."""
    s, b = similarity(texts, videos), len(groups)
    total = 0.0
    for i in range(b):
        others = [j for j in range(b) if j != i and not (leave_out and groups[j] == groups[i])]
        total += max([max(0.0, margin + s[i][j] - s[i][i]) for j in others], default=0.0)
        total += max([max(0.0, margin + s[j][i] - s[i][i]) for j in others], default=0.0)
    return total / b


def info_nce(texts: np.ndarray, videos: np.ndarray, groups: list[int], *, temperature: float, leave_out: bool) -> float:
    """The mean of both directions' cross-entropies of the pairs."""
    s, b = similarity(texts, videos), len(groups)
    total = 0.0
    for i in range(b):
        seen = [j for j in range(b) if j == i or not (leave_out and groups[j] == groups[i])]
        for row in ([s[i][j] for j in seen], [s[j][i] for j in seen]):
            total -= math.log(softmax([value / temperature for value in row])[seen.index(i)]) / 2
    return total / b


def mil_nce(
    texts: np.ndarray, videos: np.ndarray, groups: list[int], *, temperature: float, positives_twice: bool
) -> float:
    """MIL-NCE, equation 1: the rows of one video count as one."""
    s, b = similarity(texts, videos), len(groups)  # a row a text
    losses = []
    for group in sorted(set(groups)):
        right = wrong = 0.0
        for i in range(b):
            for j in range(b):
                value = math.exp(s[j][i] / temperature) / groups.count(groups[i])  # video i, text j
                if groups[i] == group and groups[j] == group:
                    right += value
                elif groups[i] == group or groups[j] == group:
                    wrong += value
        losses.append(-math.log(right / (right * (2 if positives_twice else 1) + wrong)))
    return sum(losses) / len(losses)


def retrieval_ranks(scores: np.ndarray, right: list[set[int]]) -> tuple[list[int], int]:
    """For each row the rank of the best of what is right, ties against it; and for how many rows there is such a tie.

    Rows for which nothing is right are left out.
    """
    ranks, num_ties = [], 0
    for row, own in zip(scores, right, strict=True):
        if not own:
            continue
        best = max(row[column] for column in own)
        wrong = [row[column] for column in range(len(row)) if column not in own]
        ranks.append(1 + sum(value >= best for value in wrong))
        num_ties += best in wrong
    return ranks, num_ties
