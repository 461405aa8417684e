"""Tables 1 to 6 of the SSAN paper (section 4.3): what they report, and which recipe is which row.

Accuracies are shares, as everywhere; the paper prints percent. A row without recipe and without members is a network
that is not among ours: it has the paper's figures and stays blank otherwise.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from ssan.errors import UsageError, unknown


class TableRow:
    """What the rows of all tables have, whatever is trained for them."""

    name: str
    title: str
    recipe: str | None
    note: str
    members: tuple[str, ...] = ()


R = TypeVar("R", bound=TableRow)


@dataclass(frozen=True)
class Row(TableRow):
    """A row of a table.

    :param name: the word for it on the command line.
    :param title: as the paper calls it.
    :param frames: of a video, as the paper says it.
    :param recipe: the shipped recipe that trains it.
    :param layer: options of the layer that differ from the recipe's, and ``places`` likewise.
    :param members: the rows whose scores are added, of an ensemble.
    :param top1: and ``top5``, ``test_top1``: the paper's figures, of validation and of the leaderboard's test set.
    :param note: what has to be known to compare.
    """

    name: str
    title: str
    frames: str = "8"
    recipe: str | None = None
    layer: Mapping[str, Any] = field(default_factory=dict)
    places: Mapping[str, Any] = field(default_factory=dict)
    members: tuple[str, ...] = ()
    top1: float | None = None
    top5: float | None = None
    test_top1: float | None = None
    note: str = ""


@dataclass(frozen=True)
class Table(Generic[R]):
    """A table: its rows, and the data that they are trained and evaluated on.

    :param title: what it is about.
    :param format: of the data, a name that ``--format`` takes, and ``options`` for its reader.
    :param split: what is evaluated.
    """

    name: str
    title: str
    format: str
    rows: tuple[R, ...]
    split: str = "val"
    options: tuple[str, ...] = ()

    def row(self, name: str) -> R:
        return next(row for row in self.rows if row.name == name)

    def chosen(self, names: list[str] | None) -> list[R]:
        """The rows of these names, in the table's order, with the members of the ensembles among them.

        :raises UsageError: a name that the table does not have.
        """
        known = [row.name for row in self.rows]
        for name in names or []:
            if name not in known:
                raise UsageError(f"--rows of {self.name}: " + unknown("row", name, known))
        wanted = set(names or known)
        wanted |= {member for row in self.rows if row.name in wanted for member in row.members}
        return [row for row in self.rows if row.name in wanted]


def none_trainable(rows: Iterable[TableRow]) -> UsageError:
    """What is said where none of the rows that are asked for is a network of ours."""
    return UsageError(
        f"none of the rows can be trained here: {', '.join(row.name for row in rows)}; choose others with --rows"
    )


IN_BNINCEPTION = "the paper's figure is of BNInception, ours of ResNet-50"
IN_RESNET_I3D = "the paper's figure is of a ResNet-50 I3D, ours of the Inception I3D that was released"
IN_BLRESNET50 = "the paper's figure is that of the method's own paper; that it is of bLResNet-50 is our reading"
ITS_OWN = "the paper's figure is that of the method's own paper"
TEN_CLIPS = "the paper's figure is TSM's own, of 10 clips a video"
STARTS = "weight 1 in place of the identity; in small networks, which start from random weights, the identity"
ARTNETS_C3D = "the paper's figure is of ARTNet's C3D-ResNet18, 25 clips a video: a 3-D ResNet, not C3D's own network"
C2D_NL = (
    "the paper's figure is of C2D + NL with 32 frames (table4/c2d_nl_32f); its authors have 74.7 / 91.6 for 8 frames"
)
NOT_OURS = "not among our networks"


def _ssa_changed(
    name: str, title: str, *, note: str = "", places: Mapping[str, Any] | None = None, **layer: Any
) -> Row:
    """SSA with another choice than method's default, under the same recipe."""
    return Row(name, title, recipe="table2/ssa", layer=layer, places=places or {}, note=note)


_TABLES = (
    Table(
        "table1",
        "Something-Something V1: SSA and the state of the art",
        "sthv1",
        (
            Row("i3d", "I3D", "64", "table1/i3d", top1=0.458, top5=0.765, test_top1=0.272, note=IN_RESNET_I3D),
            Row("nl_i3d_gcn", "NL I3D + GCN", "32+32", top1=0.461, top5=0.768, test_top1=0.450, note=NOT_OURS),
            Row("s3d", "S3D", "64", "table1/s3d", top1=0.473, top5=0.781, note=ITS_OWN),
            Row("s3dg", "S3D-G", "64", "table1/s3dg", top1=0.482, top5=0.787, test_top1=0.420, note=ITS_OWN),
            Row("tsn", "TSN", "8", "table1/tsn_8f", top1=0.195, note=IN_BNINCEPTION),
            Row("tsn_bninception", "TSN, BN-Inception", "8", "table1/tsn_bninception_8f", top1=0.195, note=ITS_OWN),
            Row("trn", "TRN", "8", "table1/trn_8f", top1=0.344, test_top1=0.336, note=IN_BNINCEPTION),
            Row(
                "trn_bninception", "TRN, BN-Inception", "8", "table1/trn_bninception_8f", top1=0.344, test_top1=0.336,
                note=ITS_OWN,
            ),
            Row(
                "blvnet_r50", "bLVNet-TAM, bLResNet-50", "16x2", "table1/blvnet_r50", top1=0.484, top5=0.788,
                note=ITS_OWN,
            ),
            Row(
                "blvnet_r101", "bLVNet-TAM, bLResNet-101", "16x2", "table1/blvnet_r101", top1=0.496, top5=0.798,
                test_top1=0.489, note=ITS_OWN,
            ),
            Row("tsm_8f", "TSM", "8", "table1/tsm_8f", top1=0.456, top5=0.742),
            Row("tsm_16f", "TSM", "16", "table1/tsm_16f", top1=0.472, top5=0.771, test_top1=0.460),
            Row("tsm_en", "TSM, ensemble", "24", members=("tsm_16f", "tsm_8f"), top1=0.497, top5=0.785),
            Row("tsm_2stream", "TSM, two streams", "16+16", top1=0.526, top5=0.819, test_top1=0.507, note=NOT_OURS),
            Row("ssa_8f", "SSA", "8", "table1/ssa_8f", top1=0.495, top5=0.795),
            Row("ssa_16f", "SSA", "16", "table1/ssa_16f", top1=0.517, top5=0.813),
            Row(
                "ssa_en", "SSA, ensemble", "16+8", members=("ssa_16f", "ssa_8f"), top1=0.551, top5=0.849,
                test_top1=0.540,
            ),
        ),
    ),
    Table(
        "table2",
        "Something-Something V2, 8 frames: SSA and non-local blocks in the same places",
        "sthv2",
        (
            Row("nl3d", "3D NL", recipe="table2/nl3d", top1=0.606),
            Row("nl2d", "2D NL", recipe="table2/nl2d", top1=0.603),
            Row("nl1d", "1D NL", recipe="table2/nl1d", top1=0.601),
            Row("nl2d1d", "2D+1D NL", recipe="table2/nl2d1d", top1=0.610),
            Row("ssa", "SSA", recipe="table2/ssa", top1=0.623),
        ),
    ),
    Table(
        "table3",
        "Something-Something V2: SSA and the state of the art",
        "sthv2",
        (
            Row("tsn", "TSN", "8", "table3/tsn_8f", top1=0.319),
            Row("trn", "TRN", "8", "table3/trn_r50", top1=0.488, test_top1=0.509, note=IN_BNINCEPTION),
            Row(
                "trn_bninception", "TRN, BN-Inception", "8", "table3/trn_bninception", top1=0.488, test_top1=0.509,
                note=ITS_OWN,
            ),
            Row("blvnet_r50", "bLVNet-TAM, bLResNet-50", "16+16", "table3/blvnet_r50", top1=0.617, note=ITS_OWN),
            Row("blvnet_r101", "bLVNet-TAM, bLResNet-101", "16+16", "table3/blvnet_r101", top1=0.619, note=ITS_OWN),
            Row("tsm_8f", "TSM", "8", "table3/tsm_8f", top1=0.591),
            Row("tsm_16f", "TSM", "16", "table3/tsm_16f", top1=0.634, test_top1=0.643),
            Row("tsm_2stream", "TSM, two streams", "16+16", top1=0.660, test_top1=0.666, note=NOT_OURS),
            Row("ssa_8f", "SSA", "8", "table3/ssa_8f", top1=0.623),
            Row("ssa_16f", "SSA", "16", "table3/ssa_16f", top1=0.660),
            Row("ssa_en", "SSA, ensemble", "16+8", members=("ssa_16f", "ssa_8f"), top1=0.674, test_top1=0.682),
        ),
    ),
    Table(
        "table4",
        "Kinetics-400: SSA and the state of the art",
        "kinetics400",
        (
            Row("c3d", "C3D", "-", "table4/c3d", top1=0.656, top5=0.857, note=ARTNETS_C3D),
            Row("i3d", "I3D", "64", "table4/i3d", top1=0.711, top5=0.893, note=ITS_OWN),
            Row("s3d", "S3D", "64", "table4/s3d", top1=0.722, top5=0.906, note=ITS_OWN),
            Row("tsn", "TSN", "8", "table4/tsn_8f", top1=0.706, top5=0.892),
            Row("tsm_8f", "TSM", "8", "table4/tsm_8f", top1=0.741, top5=0.912, note=TEN_CLIPS),
            Row("tsm_16f", "TSM", "16", "table4/tsm_16f", top1=0.747, note=TEN_CLIPS),
            Row(
                "blvnet_8", "bLVNet-TAM", "8+8", "table4/blvnet_8x2", top1=0.710, top5=0.898, note=IN_BLRESNET50
            ),
            Row(
                "blvnet_16", "bLVNet-TAM", "16+16", "table4/blvnet_16x2", top1=0.720, top5=0.906, note=IN_BLRESNET50
            ),
            Row(
                "blvnet_24", "bLVNet-TAM", "24+24", "table4/blvnet_24x2", top1=0.735, top5=0.912, note=IN_BLRESNET50
            ),
            Row("a2", "A2-Nets", "8", "table4/a2_r50", top1=0.746, top5=0.915, note=ITS_OWN),
            Row("nl_i3d_8f", "NL I3D", "8", "table4/nl_i3d_8f", top1=0.738, top5=0.910, note=C2D_NL),
            Row("nl_i3d_128f", "NL I3D", "128", "table4/nl_i3d_128f", top1=0.765, top5=0.926, note=ITS_OWN),
            Row("ssa_8f", "SSA", "8", "table4/ssa_8f", top1=0.758, top5=0.924),
            Row("ssa_16f", "SSA", "16", "table4/ssa_16f", top1=0.764, top5=0.927),
            Row("ssa_en", "SSA, ensemble", "8+16", members=("ssa_16f", "ssa_8f"), top1=0.775, top5=0.933),
        ),
    ),
    Table(
        "table5",
        "Something-Something V2, 8 frames: from 2D+1D NL to SSA, step by step",
        "sthv2",
        (
            Row("none", "2D+1D NL", recipe="table5/none", top1=0.610),
            Row("sa", "+ SA", recipe="table5/sa", top1=0.615),
            Row("sa_sve", "+ SA + SVE", recipe="table5/sa_sve", top1=0.614, note="our reading of the ticks"),
            Row("sa_sve_ta", "+ SA + SVE + TA, which is SSA", recipe="table5/sa_sve_ta", top1=0.623),
            Row("sve", "+ SVE", recipe="table5/sve"),
            Row("ta", "+ TA", recipe="table5/ta"),
            Row("sa_ta", "+ SA + TA", recipe="table5/sa_ta"),
            Row("sve_ta", "+ SVE + TA", recipe="table5/sve_ta"),
        ),
    ),
    Table(
        "table6",
        "Something-Something V2, 8 frames: where SSA sits",
        "sthv2",
        (
            Row("res2", "Res2", recipe="table6/res2", top1=0.612),
            Row("res3", "Res3", recipe="table6/res3", top1=0.618),
            Row("res2_res3", "Res2 and Res3", recipe="table6/res2_res3", top1=0.623),
            Row("res4", "Res4", recipe="table6/res4", note="the text: 0.005 to 0.007 below Res2 or Res3"),
            Row("res5", "Res5", recipe="table6/res5", note="the text: 0.005 to 0.007 below Res2 or Res3"),
        ),
    ),
    Table(
        "choices",
        "What the paper leaves open: SSA with one choice changed at a time",
        "sthv2",
        (
            Row("ssa", "SSA as we build it", recipe="table2/ssa"),
            _ssa_changed("unscaled", "similarities unscaled", similarity_scale="none"),
            _ssa_changed("start", "the other start of the last BatchNorm", identity_start="other", note=STARTS),
            _ssa_changed("half_width", "half the width, e = c / 2", embedding="half"),
            _ssa_changed("every_second", "in every second block", places={"every": 2}),
            _ssa_changed("after_block", "after the blocks", places={"slot": "after_block"}),
            _ssa_changed("pooled", "keys pooled 2x2", pool_keys=True),
            _ssa_changed("tied", "theta_T and phi_T tied", temporal_embedding="tied"),
            _ssa_changed("position", "attention over time at each position", temporal_scope="position"),
            _ssa_changed("plain", "output plain, without residual", output="plain"),
            _ssa_changed("no_space", "no spatial attention, A = g", position_branch=False, channel_branch=False),
            _ssa_changed("no_channels", "no channel branch", channel_branch=False),
        ),
    ),
)  # fmt: skip
TABLES: dict[str, Table[Row]] = {table.name: table for table in _TABLES}
"""The tables by name. ``choices`` is not the paper's; its rows have no figure to compare with."""
