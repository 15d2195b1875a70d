"""What the server answers, as OpenAPI describes it."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, Field


class PictureAnswer(BaseModel):
    """A picture; its size is that of the upright whole."""

    id: str
    name: str
    width: int
    height: int


class NetworkBrief(BaseModel):
    """A network in the list; what is not known before it is opened is 0 or null."""

    id: str
    name: str
    ready: bool = Field(description="whether it is open")
    classes: int
    input_size: int | None
    source: str = Field(description="innervision, guest, folder, or the run that trained it")


class State(BaseModel):
    """What there is."""

    version: str
    networks: list[NetworkBrief]
    pictures: list[PictureAnswer]
    samples: list[PictureAnswer]
    device: str
    threads: int


class Window(BaseModel):
    """Unit (y, x) sees `size` pixels down and across, from start + stride · (y, x) on."""

    size: tuple[int, int]
    stride: tuple[int, int]
    start: tuple[int, int]


class LayerAnswer(BaseModel):
    """A layer of the graph."""

    name: str
    kind: str = Field(description="of module: Conv2d, ReLU, …")
    shape: list[int] = Field(description="channels, height, width at the network's input size")
    parameters: int
    field: int | None = Field(description="pixels that a unit sees, the longer side; null: no fixed window")
    stride: int | None
    window: Window | None
    through: str = Field(description="the step that has no fixed window, where there is one")
    inputs: list[str] = Field(description="the layers whose answers it is given; none: the picture")
    maps: bool = Field(description="whether it can be shown")


class NetworkAnswer(BaseModel):
    """A network that is open."""

    id: str
    name: str
    input_size: int | None
    side: int = Field(description="of the picture for which shapes are stated")
    fits: str = Field(description="pictures it takes: any, square ones (square), squares of `side` (fixed)")
    least: int = Field(description="pixels a side that a picture must have for it; smaller ones are enlarged")
    largest: int = Field(description="pixels a side at which it can be looked through at most")
    parameters: int
    output: str | None = Field(description="the layer whose answer is the network's own")
    classes: list[str]
    layers: list[LayerAnswer]


class LookRequest(BaseModel):
    """What to look at, through what."""

    net: str = Field(max_length=200)
    picture: str = Field(max_length=200)
    size: int | None = Field(
        None, ge=8, le=1024, description="longest side in pixels; null: the network's own"
    )
    sprites: list[Annotated[str, Field(max_length=200)]] | None = Field(
        None,
        max_length=4096,
        description="layers whose sprites come along as far as they are small: the answer is bytes then",
    )
    cell: int = Field(64, ge=1, le=512, description="the longest side of a map in those sprites")


class Prediction(BaseModel):
    """A class, and how likely it is to the network."""

    model_config = {"populate_by_name": True}
    label: str
    p: float
    number: int = Field(alias="class")


class ViewAnswer(BaseModel):
    """The picture as the network is given it, and the part of the whole that this is."""

    width: int
    height: int
    box: tuple[int, int, int, int] = Field(description="left, top, right, bottom in the picture's own pixels")


class SeenAnswer(BaseModel):
    """What a layer answers: a number a channel in each list."""

    name: str
    kind: str
    channels: int
    h: int
    w: int
    lo: list[float]
    hi: list[float]
    mean: list[float]
    dead: int = Field(description="channels that are 0 at every place")
    faulty: int = Field(description="channels with values that are no numbers, shown as 0")
    etag: str


class LookAnswer(BaseModel):
    """What a network answers to a picture; the key names it from now on."""

    key: str
    size: int
    seconds: float
    view: ViewAnswer
    predictions: list[Prediction]
    layers: list[SeenAnswer]


class Activation(BaseModel):
    """What a unit answers to the picture."""

    max: float
    mean: float
    at: tuple[int, int] = Field(description="row and column of the greatest value in the layer's map")
    box: tuple[int, int, int, int] = Field(description="what it sees there: left, top, right, bottom")


class Neighbour(BaseModel):
    """A unit of the same layer, and how alike it answers: -1 to 1."""

    channel: int
    similarity: float


class UnitAnswer(BaseModel):
    """What is known of a unit; activation is null without a key."""

    net: str
    layer: str
    channel: int
    channels: int
    kind: str
    label: str | None = Field(description="the class it stands for, in the network's last layer")
    activation: Activation | None
    field: int | None
    window: Window | None
    neighbours: list[Neighbour]
    index: bool = Field(description="whether there is an index of the pictures that excite it most")
    history: list[str] = Field(description="the checkpoints at which it can be looked at")
