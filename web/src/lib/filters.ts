/** The first layer's filters out of a file of weights (safetensors), of which no more is fetched than they take. */

import { request } from "./api";

export interface Filters {
  name: string;
  count: number;
  channels: number; // 1 or 3
  h: number;
  w: number;
  data: Float32Array; // (count, channels, h, w)
}

interface Entry {
  dtype: string;
  shape: number[];
  data_offsets: [number, number];
}

const MOST = 1 << 22; // bytes of a header, or of filters, that are read

async function bytes(url: string, from: number, to: number, signal?: AbortSignal): Promise<ArrayBuffer> {
  const response = await request(url, { headers: { Range: `bytes=${from}-${to - 1}` }, signal });
  const buffer = await response.arrayBuffer();
  return response.status === 206 ? buffer : buffer.slice(from, to); // a server may answer with the whole
}

/** Choose the first weights that a picture goes through: (count, 1 or 3, h, w), earliest in the file's order of names. */
export function first(header: Record<string, Entry>): [string, Entry] | null {
  const found = Object.entries(header).filter(
    ([name, entry]) => name !== "__metadata__" && entry.shape?.length === 4 && [1, 3].includes(entry.shape[1]!) && entry.shape[2]! > 1,
  );
  return found.sort((a, b) => a[1].data_offsets[0] - b[1].data_offsets[0])[0] ?? null;
}

/** Numbers as they lie in the file, as float32. */
export function floats(buffer: ArrayBuffer, dtype: string): Float32Array | null {
  if (dtype === "F32") return new Float32Array(buffer);
  if (dtype === "BF16") {
    const halves = new Uint16Array(buffer);
    const wide = new Uint32Array(halves.length);
    halves.forEach((half, n) => (wide[n] = half << 16));
    return new Float32Array(wide.buffer);
  }
  return null;
}

/** Fetch a network's first filters; null where it begins otherwise. */
export async function filters(url: string, signal?: AbortSignal): Promise<Filters | null> {
  const length = Number(new DataView(await bytes(url, 0, 8, signal)).getBigUint64(0, true));
  if (!(length > 1 && length < MOST)) return null;
  const header = JSON.parse(new TextDecoder().decode(await bytes(url, 8, 8 + length, signal)));
  const found = first(header);
  if (!found) return null;
  const [name, entry] = found;
  const [from, to] = entry.data_offsets;
  if (to - from > MOST) return null;
  const data = floats(await bytes(url, 8 + length + from, 8 + length + to, signal), entry.dtype);
  const [count, channels, h, w] = entry.shape as [number, number, number, number];
  return data && { name, count, channels, h, w, data };
}

/** A filter as RGBA bytes: grey is 0, and its greatest weight either way is black or white. */
export function drawn(found: Filters, n: number): Uint8ClampedArray {
  const { channels, h, w, data } = found;
  const size = h * w;
  const from = n * channels * size;
  let most = 1e-12;
  for (let i = 0; i < channels * size; i++) most = Math.max(most, Math.abs(data[from + i]!));
  const pixels = new Uint8ClampedArray(4 * size);
  for (let i = 0; i < size; i++) {
    for (let c = 0; c < 3; c++) {
      pixels[4 * i + c] = 127.5 + (127.5 * data[from + (channels === 3 ? c : 0) * size + i]!) / most;
    }
    pixels[4 * i + 3] = 255;
  }
  return pixels;
}
