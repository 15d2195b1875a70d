/** What of the picture a place of a map sees. */

export interface Box {
  x: number; // all in parts of the picture's side, 0..1
  y: number;
  w: number;
  h: number;
}

/** One axis: where place i of n begins and ends, in input pixels, cut to the input. */
function span(i: number, n: number, size: number, field: number, stride: number): [number, number] {
  // padding lies alike on both sides, so the places' fields lie about the input's middle
  const start = (size - ((n - 1) * stride + field)) / 2 + i * stride;
  const from = Math.min(Math.max(start, 0), size - 1);
  return [from, Math.max(Math.min(start + field, size), from + 1)];
}

/** The receptive field of place (y, x) of an h × w map on an input of these sides; all of it where unknown. */
export function fieldBox(
  at: { y: number; x: number },
  map: { h: number; w: number },
  input: { h: number; w: number },
  field: number | null,
  stride: number | null,
): Box {
  if (!field || map.h * map.w === 1) return { x: 0, y: 0, w: 1, h: 1 };
  const [x0, x1] = span(at.x, map.w, input.w, field, stride || input.w / map.w);
  const [y0, y1] = span(at.y, map.h, input.h, field, stride || input.h / map.h);
  return { x: x0 / input.w, y: y0 / input.h, w: (x1 - x0) / input.w, h: (y1 - y0) / input.h };
}
