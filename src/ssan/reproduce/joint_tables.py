"""Tables 7 and 8 of the SSAN paper (section 4.4): what they report, and which recipe is which row.

Recalls are shares, as everywhere; the paper prints percent.
"""

from dataclasses import dataclass

from ssan.reproduce.tables import NOT_OURS, Table, TableRow


@dataclass(frozen=True)
class JointRow(TableRow):
    """A row of a table of retrieval.

    :param name: the word for it on the command line.
    :param recipe: the shipped recipe that trains it; None for what is not ours.
    :param pretraining: the shipped recipe of the pre-training on narrated videos that it starts from.
    :param r1: and ``r5``, the paper's figures, from text to video.
    :param small: the recipe of the small classifier whose features stand for the row's in the small version.
    :param note: what has to be known to compare.
    """

    name: str
    title: str
    recipe: str | None = None
    pretraining: str | None = None
    r1: float | None = None
    r5: float | None = None
    small: str | None = None
    note: str = ""


REFERENCE_22 = "the paper's figure is reference 22's, of its own network: words through a layer, their maximum"
STAY = "the paper does not say whether the 2-D features stay"
OWN_TOWER = "the text tower of reference 22's own code"
SMALL = "not in the paper; what SSA is compared with in the small version"


_TABLES = (
    Table(
        "table7", "MSR-VTT 1k-A, without pre-training: finding videos by text", "msrvtt",
        (
            JointRow("random", "Random", r1=0.001, r5=0.005),
            JointRow("c_lstm_sa", "C+LSTM+SA", r1=0.042, r5=0.129, note=NOT_OURS),
            JointRow("vse_lstm", "VSE-LSTM", r1=0.038, r5=0.127, note=NOT_OURS),
            JointRow("kaufman", "Kaufman et al.", r1=0.047, r5=0.166, note=NOT_OURS),
            JointRow("ct_san", "CT-SAN", r1=0.044, r5=0.166, note=NOT_OURS),
            JointRow("jsfusion", "JSFusion", r1=0.102, r5=0.312, note=NOT_OURS),
            JointRow("resnext", "GRU+ResNeXt-101", "table7/gru_resnext", r1=0.121, r5=0.350, note=REFERENCE_22),
            JointRow("ssa", "GRU+SSA", "table7/gru_ssa", r1=0.244, r5=0.493, small="ssan_tiny"),
            JointRow("ssa_2d", "GRU+SSA, 2-D features joined", "table7/gru_2d_ssa", note=STAY),
            JointRow("resnext_maxpool", "maximum of words+ResNeXt-101", "table7/maxpool_resnext", note=OWN_TOWER),
            JointRow("ssa_maxpool", "maximum of words+SSA", "table7/maxpool_ssa", note=OWN_TOWER),
            JointRow("tsn", "GRU+TSN", small="tsn_tiny", note=SMALL),
        ),
        split="test", options=("protocol=1k-A-9k",),
    ),
    Table(
        "table8", "YouCook2, given boundaries: finding clips by text", "youcook2",
        (
            JointRow("random", "Random", r1=0.0003, r5=0.0015),
            JointRow("hglmm", "HGLMM FV CCA", r1=0.046, r5=0.143, note=NOT_OURS),
            JointRow("resnext", "GRU+ResNeXt-101", "table8/gru_resnext", r1=0.042, r5=0.137, note=REFERENCE_22),
            JointRow(
                "resnext_pretrained", "GRU+ResNeXt-101, pre-trained", "table8/gru_resnext",
                "table8/howto100m_gru_resnext", r1=0.082, r5=0.245, note=REFERENCE_22,
            ),
            JointRow("ssa", "GRU+SSA", "table8/gru_ssa", r1=0.055, r5=0.159, small="ssan_tiny"),
            JointRow(
                "ssa_pretrained", "GRU+SSA, pre-trained", "table8/gru_ssa", "table8/howto100m_gru_ssa",
                r1=0.109, r5=0.284,
            ),
            JointRow("resnext_maxpool", "maximum of words+ResNeXt-101", "table8/maxpool_resnext", note=OWN_TOWER),
            JointRow("ssa_maxpool", "maximum of words+SSA", "table8/maxpool_ssa", note=OWN_TOWER),
            JointRow("tsn", "GRU+TSN", small="tsn_tiny", note=SMALL),
        ),
    ),
)  # fmt: skip
JOINT_TABLES: dict[str, Table[JointRow]] = {table.name: table for table in _TABLES}
"""The tables by name."""
