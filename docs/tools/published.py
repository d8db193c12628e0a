"""The papers' figures for each variant, as printed, with notes on contradictions."""

from typing import NamedTuple


class Row(NamedTuple):
  """A published result on ImageNet-1K: parameters in millions and multiply-accumulates in billions, as printed."""

  name: str
  image_size: int
  parameters: str
  macs: str
  top1: str
  source: str
  note: str = ""


_MIXER = "arXiv 2105.01601, Tables 1, 3"
_S2 = "arXiv 2106.07477, Tables 2, 3"
_S2V2 = "arXiv 2108.01072, Table 2"
_CYCLE = "arXiv 2107.10224, and its repository"
_VIP = "arXiv 2106.12368, and the logs of houqb/VisionPermutator"
_AS = "arXiv 2107.08391, Table 1"
_FF = "arXiv 2105.02723, Table 1, and its repository"
_RES = "arXiv 2105.03404"
_GMLP = "arXiv 2105.08050, Tables 1, 2"
_SWIN = "microsoft/Swin-Transformer, README"
_NO_HEAD = "The paper counts parameters without the head."
_IN21K = "Pre-trained on ImageNet-21K."
_JFT = "Pre-trained on JFT-300M."
_POOL = "arXiv 2111.11418, and sail-sg/poolformer, README"
_GMLP_NOTE = "Counts here are those of timm's code; the paper's are up to 0.5 % higher for the parameters."

ROWS = (
  Row("mixer_s32", 224, "19", "", "68.70", _MIXER, f"{_NO_HEAD} {_JFT}"),
  Row("mixer_s16", 224, "18", "", "73.83", _MIXER, f"{_NO_HEAD} {_JFT}"),
  Row("mixer_b32", 224, "60", "", "75.53", _MIXER, f"{_NO_HEAD} {_JFT}"),
  Row("mixer_b16", 224, "59", "", "76.44", _MIXER, f"{_NO_HEAD} Other papers print 11.6 or 11.7 G: binary units."),
  Row("mixer_l32", 224, "206", "", "80.67", _MIXER, f"{_NO_HEAD} {_JFT}"),
  Row("mixer_l16", 224, "207", "", "71.76", _MIXER, f"{_NO_HEAD} From scratch; 82.89 from ImageNet-21K."),
  Row("mixer_h14", 224, "431", "", "86.32", _MIXER, f"{_NO_HEAD} {_JFT}"),
  Row("s2mlp_wide", 224, "71", "14.0", "80.0", _S2, "The paper counts without head and norms: 71,433,984."),
  Row(
    "s2mlp_deep",
    224,
    "51",
    "10.5",
    "80.7",
    _S2,
    "A known error: the paper's own formula gives 53,476,224 without head and norms, which is 51 in units of 2^20.",
  ),
  Row("s2mlpv2_small7", 224, "25", "6.9", "82.0", _S2V2),
  Row("s2mlpv2_medium7", 224, "55", "16.3", "83.6", _S2V2),
  Row("asmlp_mobile", 224, "9.6", "", "76.05", "arXiv 2107.08391, Table 2"),
  Row("asmlp_tiny", 224, "28", "4.4", "81.34", _AS),
  Row("asmlp_small", 224, "50", "8.5", "83.1", _AS),
  Row("asmlp_base", 224, "88", "15.2", "83.3", _AS, "The released code counts 15.14 G."),
  Row("asmlp_base", 384, "88", "44.6", "84.3", "arXiv 2107.08391 v2", "The released code counts 44.50 G."),
  Row("cyclemlp_b1", 224, "15.2", "2.1", "78.9", _CYCLE),
  Row("cyclemlp_b2", 224, "26.8", "3.9", "81.6", _CYCLE),
  Row("cyclemlp_b3", 224, "38.4", "6.9", "82.4", _CYCLE),
  Row("cyclemlp_b4", 224, "51.8", "10.1", "83.0", _CYCLE),
  Row("cyclemlp_b5", 224, "75.7", "12.3", "83.2", _CYCLE),
  Row("vip_s14", 224, "", "", "80.5", "arXiv 2106.12368, Table 2", "80.6 in Tables 4, 6 and 7."),
  Row("vip_s7", 224, "", "", "81.52", _VIP),
  Row("vip_m7", 224, "", "", "82.75", _VIP),
  Row("vip_l7", 224, "88", "", "83.20", _VIP, "Table 1 has 9 and 27 blocks, which are 85.6 M; the code has 8 and 28."),
  Row("ff_tiny", 224, "7.7", "", "61.4", _FF),
  Row("ff_base", 224, "62", "", "74.9", _FF, "Other papers print 59 M and 11.4 or 11.6 G, from Mixer's row."),
  Row("ff_large", 224, "206", "", "71.4", _FF),
  Row("resmlp_s12", 224, "", "", "76.6", _RES),
  Row("resmlp_s24", 224, "", "", "79.4", _RES),
  Row("resmlp_s36", 224, "45", "8.9", "79.7", _RES, "400 epochs; 79.3 after 300."),
  Row("resmlp_b24_16", 224, "116", "23", "81.0", _RES),
  Row("resmlp_b24_8", 224, "", "", "81.0", _RES),
  Row("gmlp_ti16", 224, "5.9", "1.4", "72.3", _GMLP, _GMLP_NOTE),
  Row("gmlp_s16", 224, "19.5", "4.5", "79.6", _GMLP, _GMLP_NOTE),
  Row("gmlp_b16", 224, "73.4", "15.8", "81.6", _GMLP, _GMLP_NOTE),
  Row("vit_s16", 224, "", "", "", ""),
  Row("vit_b16", 224, "86", "", "79.67", "arXiv 2105.01601, Table 3", "From scratch, trained by Mixer's authors."),
  Row("vit_b16", 384, "86", "55.5", "77.9", "arXiv 2106.07477, Table 3", "From scratch."),
  Row("vit_l16", 224, "", "", "76.11", "arXiv 2105.01601, Table 3", "From scratch, trained by Mixer's authors."),
  Row(
    "swin_mobile",
    224,
    "11.2",
    "",
    "75.11",
    "arXiv 2107.08391, Table 2",
    "A known discrepancy: the sizes it names have 9.6 M parameters.",
  ),
  Row("swin_tiny", 224, "28", "4.5", "81.2", _SWIN),
  Row("swin_small", 224, "50", "8.7", "83.2", _SWIN),
  Row("swin_base", 224, "88", "15.4", "83.5", _SWIN, "AS-MLP's and S2-MLP's papers print 83.3."),
  Row("swin_tiny_384", 384, "", "", "", ""),
  Row("swin_small_384", 384, "", "", "", ""),
  Row("swin_base_384", 384, "88", "47.1", "84.5", _SWIN),
  Row("poolformer_s12", 224, "12", "", "77.2", _POOL),
  Row("poolformer_s24", 224, "21", "", "80.3", _POOL),
  Row("poolformer_s36", 224, "31", "", "81.4", _POOL),
  Row("poolformer_m36", 224, "56", "", "82.1", _POOL),
  Row("poolformer_m48", 224, "73", "", "82.5", _POOL),
)
