"""The one idea: an image is a parameter, and descending an objective in feature space paints it."""

from innervision.core.canvas import Canvas, Detail, Pixels
from innervision.core.descend import Adam, Frame, Lbfgs, Nadam, Sgd, Stage, descend
from innervision.core.edits import Informed, blur, clamp, clip_contribution, clip_norm, decay
from innervision.core.excitement import diversity, excite
from innervision.core.fourier import Fourier, Phases
from innervision.core.measures import energy, gamut, gram, match, smooth
from innervision.core.objective import Objective, Term
from innervision.core.views import View, crops, jitter, pad, roll, rotate, scale, sized, still

__all__ = [
    "Adam",
    "Canvas",
    "Detail",
    "Fourier",
    "Frame",
    "Informed",
    "Lbfgs",
    "Nadam",
    "Objective",
    "Phases",
    "Pixels",
    "Sgd",
    "Stage",
    "Term",
    "View",
    "blur",
    "clamp",
    "clip_contribution",
    "clip_norm",
    "crops",
    "decay",
    "descend",
    "diversity",
    "energy",
    "excite",
    "gamut",
    "gram",
    "jitter",
    "match",
    "pad",
    "roll",
    "rotate",
    "scale",
    "sized",
    "smooth",
    "still",
]
