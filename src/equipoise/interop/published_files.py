"""The files that the papers' authors have published, according to their pages.

What a page does not say is None here. Sizes are counted from the published configurations; no
publisher states those of the files, which may hold copies of each weight.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

DRIVE = "https://drive.google.com/file/d/{}/view"
DRIVE_FOLDER = "https://drive.google.com/drive/folders/{}"
BARLOW = "https://dl.fbaipublicfiles.com/barlowtwins/{}.pth"


class PublishedFile(NamedTuple):
    """A published file of weights, for a `family` of `import-weights`.

    parameters: how many the network has. figure: the result that its publisher states.
    configuration: what import-weights needs besides the weights.
    """

    family: str
    name: str
    parameters: int | None
    figure: str | None
    address: str
    configuration: str
    note: str | None = None


def _mdeq(
    name: str, parameters: int | None, figure: str | None, drive: str, yaml: str
) -> PublishedFile:
    configuration = f"experiments/{yaml}.yaml of github.com/locuslab/mdeq"
    return PublishedFile("mdeq", name, parameters, figure, DRIVE.format(drive), configuration)


def _torchdeq(name: str, figure: str) -> PublishedFile:
    address = DRIVE_FOLDER.format("1vv9dkxO-wX4e47u8aQjC62wiYhEKSajA")
    return PublishedFile(
        "mdeq",
        name,
        None,
        figure,
        address,
        "a yaml file of the words of MDEQ's (NUM_CHANNELS, ...)",
    )


def _deq_transformer(code: str, drive: str) -> PublishedFile:
    return PublishedFile(
        "deq_transformer", f"DEQ-Transformer, WikiText-103, code of {code}", 97_700_000,
        "perplexity 23.1 (memory of 300)", DRIVE.format(drive),
        "the arguments of the wt103 script, as yaml",
    )  # fmt: skip


def _barlow(
    name: str, parameters: int | None, figure: str, folder: str, file: str, configuration: str
) -> PublishedFile:
    address = BARLOW.format(f"{folder}/{file}")
    return PublishedFile("barlow", name, parameters, figure, address, configuration, "CC BY-NC 4.0")


def _solo_learn(data: str, figure: str, drive: str) -> PublishedFile:
    return PublishedFile(
        "barlow", f"solo-learn, ResNet-18, {data}", None, figure, DRIVE_FOLDER.format(drive),
        "the arguments of solo-learn, as yaml; {} will do",
    )  # fmt: skip


def _coupling_transformer(
    letter: str, shape: str, score: str, drive: str, config: str = "config"
) -> PublishedFile:
    return PublishedFile(
        "coupling_transformer", f"graph_transformer_{shape}_{letter}.ckpt, CHAMPS", None,
        f"mean ln MAE {score}", DRIVE.format(drive),
        f"models/model_{letter}/{config} of github.com/boschresearch/BCAI_kaggle_CHAMPS",
        "the whole network is pickled: save its state_dict() where it loads",
    )  # fmt: skip


NEWER_BARLOW = "ep1000_bs2048_lrw0.2_lrb0.0048_lambd0.0051"
FIRST_BARLOW = "epochs1000_bs2048_lr0.2_lambd0.0051_proj_8192_8192_8192_scale0.024"
RESNET50 = 23_508_032
WITH_PROJECTOR = RESNET50 + 151_027_712

FILES: Sequence[PublishedFile] = (
    _mdeq("MDEQ-Small, ImageNet", 16_808_936, "above 75 % top-1",
          "12ANsUdJJ3_qb5nfiBVPOoON2GQ2v4W1g", "imagenet/cls_mdeq_SMALL"),
    _mdeq("MDEQ-XL, ImageNet", 90_463_280, None,
          "1MBUFBOAAI8m2eccNbHePrukpOiAzPbji", "imagenet/cls_mdeq_XL"),
    _mdeq("MDEQ-Small, Cityscapes", 8_968_467, "mIoU 76.5 (issue 4 of locuslab/mdeq)",
          "11DZfYhHNK_XC6-Uob1Pp2pStS5EhP5dF", "cityscapes/seg_MDEQ_SMALL"),
    _mdeq("MDEQ-XL, Cityscapes", 79_551_755, None,
          "1Gu7pJLGvXBbU_sPxNfjiaROJwEwak2Z8", "cityscapes/seg_MDEQ_XL"),
    _torchdeq("torchdeq's zoo, MDEQ, CIFAR-10", "95.0 % top-1"),
    _torchdeq("torchdeq's zoo, MDEQ-Small, ImageNet",
              "75.7 % top-1 at 26 or 20 evaluations, 73.6 at 10"),
    _deq_transformer("2021", "1lZx_sHt0-1gJVgXx90LDRizq3k-ZI0SW"),
    _deq_transformer("2020", "1I0q6f8-XFAEDqv-Zwi5Mxc9WtwmJT3sw"),
    PublishedFile(
        "trellisnet", "TrellisNet-LM, Penn Treebank by words", None, None,
        DRIVE.format("1LZugAxuDUoYaybYLxVtSc8JMEOeNTxoL"),
        "the arguments of TrellisNet/word_PTB/word_ptb.py, as yaml",
    ),
    _barlow("Barlow Twins, ResNet-50, ImageNet", RESNET50, "73.5 % top-1 by a linear probe",
            NEWER_BARLOW, "resnet50", "{lambd: 0.0051}"),
    _barlow("Barlow Twins, with projector and optimiser", WITH_PROJECTOR,
            "73.5 % top-1 by a linear probe", NEWER_BARLOW, "checkpoint", "{lambd: 0.0051}"),
    _barlow("Barlow Twins, first release, ResNet-50, ImageNet", RESNET50,
            "73.3 % top-1 by a linear probe", FIRST_BARLOW, "resnet50",
            "{lambd: 0.0051, scale_loss: 0.024}"),
    _barlow("Barlow Twins, first release, with projector and optimiser", WITH_PROJECTOR,
            "73.3 % top-1 by a linear probe", FIRST_BARLOW, "checkpoint",
            "{lambd: 0.0051, scale_loss: 0.024}"),
    _solo_learn("CIFAR-10", "92.10 % top-1 (online probe)", "1L5RAM3lCSViD2zEqLtC-GQKVw6mxtxJ_"),
    _solo_learn("CIFAR-100", "70.90 % top-1 (online probe)", "1hDLSApF3zSMAKco1Ck4DMjyNxhsIR2yq"),
    _solo_learn("ImageNet-100", "79.70 % top-1 (online probe)",
                "1rj8RbER9E71mBlCHIZEIhKPUFn437D5O"),
    _coupling_transformer("A", "650x10_final200", "-3.042", "1eU07wj0avbNO-R2ij9w15zskmJofeXO6"),
    _coupling_transformer("B", "650x10_final200", "-3.025", "1TJfd4k7TzJ8UsnEh8N_5MoxhQ_bck1Fg"),
    _coupling_transformer("C", "650x10_final200", "-3.038", "1JaxLPm4hxVoPws3WqFHPSr0iSIKItW3d",
                          "config_full"),
    _coupling_transformer("D", "800x11_final220", "-3.020", "1B70uVBGDRYxso3q-i-n_SO4Dt0Bc64wB",
                          "config_full"),
    _coupling_transformer("E", "600x10_final280", "-3.001", "1sDjwDcyyTRP5A_V0qFCSigJSvLOIBEwX"),
    _coupling_transformer("F", "800x10_final200", "-2.997", "1I0icRGNTWn3g91XldrmRh6ezh9k1WpnA"),
    _coupling_transformer("G", "600x11_final270", "-2.940", "1ZzAoIkMjZX8rtZSRwEAVzSqNemQp2cty",
                          "config_full"),
    _coupling_transformer("H", "700x15_final280_1res", "-3.069",
                          "1gh1gKFYJSadkHgqC3U2LvwdrRCADAzAw"),
    _coupling_transformer("I", "700x16_final280", "-3.068", "1Piob2pof-DjRe-H4oz29k-tOzI9GxoPE"),
    _coupling_transformer("J", "650x13_final270_1res", "-3.049",
                          "1PEeTBDJVuyiEzxaaSBu7-37afFOj6zCZ"),
    _coupling_transformer("K", "600x14_final250_1res", "-3.074",
                          "1TYoXuyx-ELsB91trPgeoqdMmoZl-jL0r"),
    _coupling_transformer("L", "750x18_final300_quad", "-3.020",
                          "1Cbw7oEETAapl1oqO36Y4p7uwOIGvFQkG"),
    _coupling_transformer("M", "660x11_final220", "-2.823", "1p0GLutPVuWqxsR7i95pzyKOOC4MLYF5K"),
)  # fmt: skip

UNPUBLISHED = {
    "mdeq": "MDEQ-Small (reg.) on ImageNet is announced without a link; phantom_grad has no file",
    "deq_transformer": "DEQ-Transformer (reg.), perplexity 23.8, is announced without a link",
    "deq_trellisnet": "no file is known",
    "mult": "no file is known: the script saves networks that one has trained oneself",
    "barlow": "the HSIC code (2104.13712) has no file",
}
"""For each family, the files that one would seek in vain."""
