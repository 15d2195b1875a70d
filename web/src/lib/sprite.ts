/** A layer's maps as the server sends them: uint8, (channels, h, w) row by row, each scaled lo..hi. */

import { ApiError, address, layered, request, type Prediction } from "./api";

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
  const length = new DataView(buffer).getUint32(0, true);
  const header = JSON.parse(new TextDecoder().decode(new Uint8Array(buffer, 4, length)));
  const { channels, h, w } = header;
  const data = new Uint8Array(buffer, 4 + length, channels * h * w);
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
