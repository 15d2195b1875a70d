/** A layer's maps as the server sends them: uint8, (channels, h, w) row by row, each scaled lo..hi. */

import { ApiError, address, layered, request, type Look, type Prediction, type SeenLayer } from "./api";

export interface Sprite {
  channels: number;
  h: number;
  w: number;
  data: Uint8Array;
}

/** What the drawing needs of a layer besides its sprite: each channel's own range. */
export interface Ranges {
  lo: ArrayLike<number>;
  hi: ArrayLike<number>;
}

function shapeOf(response: Response): [number, number, number] {
  const [c, h, w] = (response.headers.get("X-Shape") ?? "").split(",").map(Number);
  if (!c || !h || !w) throw new ApiError(response.status, `the server tells no shape of ${response.url}`);
  return [c, h, w];
}

/** Fetch a layer's sprite: the one request that a layer costs. */
export async function sprite(key: string, layer: string, cell: number, signal?: AbortSignal): Promise<Sprite> {
  const response = await request(`${address("look", key, layered(layer))}?cell=${cell}`, { signal });
  const [channels, h, w] = shapeOf(response);
  const data = new Uint8Array(await response.arrayBuffer());
  if (data.length !== channels * h * w) {
    throw new ApiError(response.status, `${layer}: ${data.length} bytes came, not ${channels * h * w}`);
  }
  return { channels, h, w, data };
}

/** What a picture is looked at with: a network, a size, and the layers whose sprites are wanted at once. */
export interface Asked {
  net: string;
  picture: string;
  size: number;
  sprites: string[]; // the one that matters most first
  cell: number;
}

export interface Looked {
  look: Look;
  sprites: Map<string, Sprite>; // of the layers asked for, as far as the server found room
}

/** Look at a picture. The small sprites of the layers in sight come in the same answer. */
export async function looked(asked: Asked, signal?: AbortSignal): Promise<Looked> {
  const response = await request(address("look"), {
    method: "POST",
    body: JSON.stringify(asked),
    headers: { "Content-Type": "application/json" },
    signal,
  });
  return unpacked(await response.arrayBuffer());
}

/** Read a look's answer: a length, a JSON header of that length, each layer's numbers, then the sprites. */
export function unpacked(buffer: ArrayBuffer): Looked {
  const { header, end } = headed(buffer);
  let at = end;
  // copies: a layer that is kept must not keep all that came with it
  const take = (bytes: number) => buffer.slice(at, (at += bytes));
  const layers: SeenLayer[] = header.layers.map((layer: SeenLayer) => {
    const c = layer.channels;
    const numbers = new Float32Array(take(3 * 4 * c));
    const [lo, hi, mean] = [numbers.subarray(0, c), numbers.subarray(c, 2 * c), numbers.subarray(2 * c)];
    return { ...layer, lo, hi, mean };
  });
  const sprites = new Map<string, Sprite>();
  for (const { name, channels, sprite } of header.layers) {
    if (!sprite) continue;
    const [h, w] = sprite;
    sprites.set(name, { channels, h, w, data: new Uint8Array(take(channels * h * w)) });
  }
  return { look: { ...header, layers }, sprites };
}

/** The JSON at an answer's beginning, and where it ends. */
function headed(buffer: ArrayBuffer): { header: any; end: number } {
  const length = new DataView(buffer).getUint32(0, true);
  return { header: JSON.parse(new TextDecoder().decode(new Uint8Array(buffer, 4, length))), end: 4 + length };
}

export interface PlainMap {
  h: number;
  w: number;
  data: Float32Array;
}

/** Fetch one channel's values as they are. */
export async function plainMap(key: string, layer: string, channel: number, signal?: AbortSignal): Promise<PlainMap> {
  const response = await request(address("look", key, layered(layer), channel), { signal });
  const [, h, w] = shapeOf(response);
  const bytes = new DataView(await response.arrayBuffer());
  const data = new Float32Array(h * w);
  for (let i = 0; i < data.length; i++) data[i] = bytes.getFloat32(4 * i, true);
  return { h, w, data };
}

export interface LiveFrame extends Ranges {
  layer: string;
  sprite: Sprite;
  predictions: Prediction[];
}

/** Read /api/live's answer: a length, a JSON header of that length, then the maps. */
export function liveFrame(buffer: ArrayBuffer): LiveFrame {
  const { header, end } = headed(buffer);
  const { channels, h, w } = header;
  const data = new Uint8Array(buffer, end, channels * h * w);
  return { ...header, predictions: header.predictions ?? [], sprite: { channels, h, w, data } };
}

/** A canvas's RGBA as the RGB that /api/live takes. */
export function rgb(pixels: Uint8ClampedArray): Uint8Array<ArrayBuffer> {
  const out = new Uint8Array((pixels.length / 4) * 3);
  for (let from = 0, to = 0; from < pixels.length; from += 4) {
    out[to++] = pixels[from]!;
    out[to++] = pixels[from + 1]!;
    out[to++] = pixels[from + 2]!;
  }
  return out;
}
