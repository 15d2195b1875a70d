"""The one idea: an image is a parameter, and descending an objective in feature space paints it."""

from innervision.core.canvas import Canvas, Detail, Pixels
from innervision.core.descend import Adam, Frame, Lbfgs, Stage, descend
from innervision.core.edits import blur, clamp, decay
from innervision.core.measures import energy, excite, gamut, gram, match, smooth
from innervision.core.objective import Objective, Term
from innervision.core.views import View, roll, scale, still

__all__ = [
    "Adam",
    "Canvas",
    "Detail",
    "Frame",
    "Lbfgs",
    "Objective",
    "Pixels",
    "Stage",
    "Term",
    "View",
    "blur",
    "clamp",
    "decay",
    "descend",
    "energy",
    "excite",
    "gamut",
    "gram",
    "match",
    "roll",
    "scale",
    "smooth",
    "still",
]
