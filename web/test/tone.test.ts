// @vitest-environment node
import { describe, expect, it } from "vitest";

import { paint, shader, valueOf, type Tone } from "../src/lib/tone";

const grey = (more: Partial<Tone> = {}): Tone => ({ scale: "channel", colour: "grey", boost: 1, gamma: 1, ...more });
const red = (colour: number) => colour & 255;
const ranges = { lo: [0, -4, 2], hi: [1, 4, 2] };

describe("shader", () => {
  it("spreads each channel over the whole ramp", () => {
    const f = shader(ranges, grey());
    expect([red(f(0)(0)), red(f(0)(1))]).toEqual([8, 250]);
    expect(red(f(1)(-4))).toBe(8);
    expect(red(f(1)(0))).toBeCloseTo((8 + 250) / 2, -0.5);
  });
  it("leaves a constant channel dark", () => {
    expect(red(shader(ranges, grey())(2)(2))).toBe(8);
  });
  it("gives equal values equal colours in the shared scale", () => {
    const f = shader(ranges, grey({ scale: "shared" }));
    expect(f(0)(1)).toBe(f(1)(1));
    expect(red(f(1)(4))).toBe(250);
  });
  it("is darkest at zero, cool below and warm above, about zero", () => {
    const f = shader(ranges, grey({ scale: "centred" }))(1);
    const [r, , b] = [0, 8, 16].map((shift) => (f(-3) >>> shift) & 255) as [number, number, number];
    expect(b).toBeGreaterThan(r);
    expect(red(f(3))).toBeGreaterThan((f(3) >>> 16) & 255);
    expect(red(f(0))).toBeLessThan(16);
  });
  it("boosts and bends", () => {
    const at = (tone: Tone) => red(shader(ranges, tone)(0)(0.25));
    expect(at(grey({ boost: 2 }))).toBeGreaterThan(at(grey()));
    expect(at(grey({ gamma: 0.5 }))).toBeGreaterThan(at(grey()));
    expect(at(grey({ boost: 4 }))).toBe(250);
  });
});

describe("paint", () => {
  it("puts every map where it belongs, as the shader says, value by value", () => {
    const sprite = { channels: 3, h: 2, w: 3, data: Uint8Array.from({ length: 18 }, (_, i) => (i * 37) % 256) };
    for (const scale of ["channel", "shared", "centred"] as const) {
      const tone = grey({ scale });
      const out = new Uint32Array(2 * 3 * 2 * 2);
      paint(out, 2, sprite, ranges, tone, [2, 0, 1]);
      [2, 0, 1].forEach((channel, i) => {
        for (let y = 0; y < 2; y++) {
          for (let x = 0; x < 3; x++) {
            const value = valueOf(ranges, channel, sprite.data[channel * 6 + y * 3 + x]!);
            const to = (Math.floor(i / 2) * 2 + y) * 6 + (i % 2) * 3 + x;
            expect(out[to]).toBe(shader(ranges, tone)(channel)(value));
          }
        }
      });
    }
  });
});
