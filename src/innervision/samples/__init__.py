"""A few photographs and paintings that come with the package; SOURCES.md says whose and by what right."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

from innervision.errors import unknown

SAMPLES: Mapping[str, str] = MappingProxyType(
    {
        "astronaut": "skimage_astronaut.png",
        "chelsea": "skimage_chelsea.png",
        "coffee": "skimage_coffee.png",
        "rocket": "skimage_rocket.png",
        "cafe-terrace": "van_gogh_cafe_terrace_at_night_1888.jpg",
        "church-at-auvers": "van_gogh_church_at_auvers_1890.jpg",
        "harvest": "van_gogh_harvest_at_la_crau_1888.jpg",
        "langlois-bridge": "van_gogh_langlois_bridge_1888.jpg",
        "pere-tanguy": "van_gogh_pere_tanguy_1887.jpg",
        "tarascon": "van_gogh_painter_on_the_road_to_tarascon_1888.jpg",
    }
)


def path(name: str) -> Path:
    """Return where the sample of this short name lies; `Invalid` with the nearest names if there is none."""
    if name not in SAMPLES:
        raise unknown("sample picture", name, SAMPLES)
    return Path(__file__).parent / SAMPLES[name]
