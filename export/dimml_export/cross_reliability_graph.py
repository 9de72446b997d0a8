"""Cross-head reliability as ONNX nodes; ``dimml.fusion.cross_reliability`` is the numpy reference.

A mean over the others is a product with a matrix of shares, and so is the sum of a product with such a mean: most
statistics of pairs are computed for all heads at once. Shape suffixes: B batch, C classes, D features, H heads (a
second axis H is the other's), J columns (``reliability_graph``), K statistics, N stored training clips, P mixtures.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from onnx import TensorProto

from dimml.fusion import (
    ALONE,
    CROSS_STATISTICS,
    FIRST_OF_OTHERS,
    LEAST_NORM,
    NEIGHBOURS,
    OTHERS,
    FloatArray,
    HeadReliability,
    others_of,
)
from dimml_export.certainty_graph import sum_p_log_p
from dimml_export.onnx_graph import Graph
from dimml_export.reliability_graph import (
    COLUMNS,
    Affine,
    OwnOutputs,
    affine_arrays,
    affine_statistics,
    networks,
    own_outputs,
)

#: Statistics of a pair that are sums of products, in the order of ``_of_others``.
_PRODUCTS = ("of_vote", "of_their_vote", "agreement")


def cross_reliability(
    graph: Graph,
    features: Sequence[str],
    logits_BHC: str,
    present_BH: str,
    heads: Sequence[HeadReliability],
    *,
    modalities: int,
) -> str:
    """Add ``dimml.fusion.cross_reliability.cross_certainties``, as ``[B, H]``; contents of masked slots are finite.

    ``heads`` must have neighbours. Arguments as of ``reliability_graph.reliability``.
    """
    own = own_outputs(graph, features, logits_BHC, heads, modalities=modalities)
    columns = (*own.columns, _neighbour_cosine(graph, own, heads, modalities))
    among_HH = others_of(len(heads), modalities)
    # By row and head, the share of each other in the means, and 1 where there is one at all.
    present_B1H = graph.add("Unsqueeze", graph.add("Cast", present_BH, to=TensorProto.FLOAT), graph.axes(1))
    there_BHH = graph.add("Mul", present_B1H, graph.constant(among_HH.astype(np.float32)))
    count_BH1 = graph.add("ReduceSum", there_BHH, graph.axes(2), keepdims=1)
    share_BHH = graph.add("Div", there_BHH, graph.add("Max", count_BH1, graph.number(1)))
    accompanied_BH1 = graph.add("Clip", count_BH1, graph.number(0), graph.number(1))

    divergence_BHH, entropy_BH1 = _divergences(graph, own.p_BHC, len(heads[0].whitened_means_CD), among_HH)
    weighted_BHH = graph.add("Mul", divergence_BHH, share_BHH)
    products_BHK, theirs_BHJ = _of_others(graph, own, columns, share_BHH, heads)
    all_BHJ = graph.add(
        "Concat", *columns, entropy_BH1, weighted_BHH, products_BHK, theirs_BHJ, accompanied_BH1, axis=2
    )
    return networks(graph, all_BHJ, heads, _statistics(heads))


def _neighbour_cosine(graph: Graph, own: OwnOutputs, heads: Sequence[HeadReliability], modalities: int) -> str:
    """Add ``dimml.fusion.neighbour_cosine`` of every head, ``[B, H, 1]``."""
    stored = [np.asarray(head.neighbours_ND) for head in heads]
    nearest = [min(NEIGHBOURS, len(neighbours_ND)) for neighbours_ND in stored]
    parts_MN = _parts_of_fused(stored, modalities)
    # A mean of the nearest is the sum of what is this much smaller.
    dots = [
        graph.add("MatMul", features_B1D, graph.constant((neighbours_ND / most).T))
        for features_B1D, neighbours_ND, most in zip(
            own.features, stored if parts_MN is None else stored[:modalities], nearest, strict=False
        )
    ]
    if parts_MN is not None:
        dots_BMN = graph.concat(dots, axis=1)
        weighted_BMN = graph.add("Mul", dots_BMN, graph.constant(parts_MN[None]))
        dots = [dots_BMN, graph.add("ReduceSum", weighted_BMN, graph.axes(1), keepdims=1)]
    if len({len(neighbours_ND) for neighbours_ND in stored}) == 1:
        dots = [graph.concat(dots, axis=1)]
    sums = []
    for dots_BHN, most in zip(dots, nearest, strict=False):
        largest_BHN = graph.add("TopK", dots_BHN, graph.axes(most), outputs=2, axis=2)
        sums.append(graph.add("ReduceSum", largest_BHN, graph.axes(2), keepdims=1))
    norm_BH1 = graph.add("Max", graph.add("Sqrt", own.norm_square_BH1), graph.number(LEAST_NORM))
    return graph.add("Div", graph.concat(sums, axis=1), norm_BH1)


def _parts_of_fused(stored: Sequence[FloatArray], modalities: int) -> FloatArray | None:
    """Return by which factors the modalities' stored features are the fused head's, ``[M, N]``; None if they are not.

    They are where all heads store the same clips, as they do if every training clip has all modalities. The graph then
    need not hold them twice, nor read them: at batch 1 that is a good part of what it costs.
    """
    if len(stored) == modalities or len({len(neighbours_ND) for neighbours_ND in stored}) > 1:
        return None
    ends = np.cumsum([own_ND.shape[1] for own_ND in stored[:modalities]])[:-1]
    parts = np.split(stored[-1], ends, axis=1)
    lengths_MN = np.stack([np.linalg.norm(part_ND, axis=1) for part_ND in parts])
    alike = (
        np.allclose(part_ND, length_N[:, None] * own_ND, rtol=0, atol=3e-7)
        for part_ND, length_N, own_ND in zip(parts, lengths_MN, stored, strict=False)
    )
    return np.asarray(lengths_MN, np.float32) if all(alike) else None


def _divergences(graph: Graph, p_BHC: str, classes: int, among_HH: np.ndarray) -> tuple[str, str]:
    """Add the Jensen-Shannon divergence of pairs in bits, ``[B, H, H]``, and entropies as a share of the most."""
    heads = len(among_HH)
    pairs = sorted({(min(h, j), max(h, j)) for h, j in np.argwhere(among_HH).tolist()})
    # The heads themselves, then the mixtures of two; of all of these p ln p, of which the divergences are sums.
    members = [(h, h) for h in range(heads)] + pairs
    mixing_PH, summing_PHJ = np.zeros((len(members), heads)), np.zeros((len(members), heads, heads + 1))
    for place, pair in enumerate(members):
        for h in pair:
            mixing_PH[place, h] += 0.5
    for h, j in np.argwhere(among_HH).tolist():
        for place, factor in ((h, 0.5), (j, 0.5), (members.index((min(h, j), max(h, j))), -1)):
            summing_PHJ[place, h, j] = factor / np.log(2)
    for h in range(heads):
        summing_PHJ[h, h, heads] = -1 / np.log(classes)
    mixture_BPC = graph.add("MatMul", graph.constant(mixing_PH[None].astype(np.float32)), p_BHC)
    p_log_p_BP = sum_p_log_p(graph, mixture_BPC, keepdims=0)
    summing = graph.constant(summing_PHJ.reshape(len(members), -1).astype(np.float32))
    found_BHJ = graph.add("Reshape", graph.add("MatMul", p_log_p_BP, summing), graph.axes(-1, heads, heads + 1))
    divergence_BHH, entropy_BH1 = graph.split(found_BHJ, (heads, 1), axis=2)
    return divergence_BHH, entropy_BH1


def _of_others(
    graph: Graph, own: OwnOutputs, columns: Sequence[str], share_BHH: str, heads: Sequence[HeadReliability]
) -> tuple[str, str]:
    """Add the means over the others of ``_PRODUCTS``, ``[B, H, 3]``, and of the others' columns, ``[B, H, J]``."""
    classes = len(heads[0].whitened_means_CD)
    one_hot_BH1C = graph.add("Gather", graph.constant(np.eye(classes, dtype=np.float32)), own.vote_BH1, axis=0)
    vote_BHC = graph.add("Squeeze", one_hot_BH1C, graph.axes(2))
    ours_BHC = graph.add("Concat", vote_BHC, own.p_BHC, vote_BHC, axis=2)
    each_BHJ = graph.add("Concat", own.p_BHC, vote_BHC, vote_BHC, *columns, axis=2)
    mean_BHJ = graph.add("MatMul", share_BHH, each_BHJ)
    theirs_BHC, theirs_BHJ = graph.split(mean_BHJ, (3 * classes, len(COLUMNS) + 1), axis=2)
    summing = np.repeat(np.eye(len(_PRODUCTS), dtype=np.float32), classes, axis=0)
    products_BHK = graph.add("MatMul", graph.add("Mul", ours_BHC, theirs_BHC), graph.constant(summing[None]))
    return products_BHK, theirs_BHJ


def _statistics(heads: Sequence[HeadReliability]) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return the statistics of each head as ``networks`` takes them."""
    others = [f"divergence_{j}" for j in range(len(heads))]
    own = (*COLUMNS, "cosine")
    columns = (*own, "entropy", *others, *_PRODUCTS, *(f"other_{name}" for name in own), "accompanied")
    affine: dict[str, Affine] = affine_statistics({"entropy": -1}) | {
        "neighbour_cosine": ({"cosine": 1}, 0),
        "divergence": (dict.fromkeys(others, 1), 0),
        "alone": ({"accompanied": -1}, 1),
    }
    affine |= {name: ({name: 1}, 0) for name in _PRODUCTS}
    for name in OTHERS:
        factors, added = affine[name]
        affine[f"other_{name}"] = {f"other_{column}": factor for column, factor in factors.items()}, added
    factors_JK, added_K = affine_arrays(columns, [affine[name] for name in CROSS_STATISTICS])
    found = []
    for head in heads:
        own_JK, own_K = factors_JK.copy(), added_K - head.offset_K
        # Those of others that are not there are at their mean, 0 once standardised, as the means are 0 there.
        own_JK[-1, FIRST_OF_OTHERS:ALONE] += own_K[FIRST_OF_OTHERS:ALONE]
        own_K[FIRST_OF_OTHERS:ALONE] = 0
        found.append((own_JK, own_K))
    return found
