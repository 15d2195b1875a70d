import { describe, expect, it } from "vitest";
import { nearest, path, scale, tick, smooth, thin, ticks, type Point } from "../src/lib/plot";

describe("a curve", () => {
  it("keeps its peaks, its order and its end with few points", () => {
    const points: Point[] = Array.from({ length: 9000 }, (_, n) => [n, n === 4321 ? 99 : Math.sin(n / 50)]);
    const few = thin(points, 200);
    expect(few.length).toBeLessThanOrEqual(201);
    expect(few.some(([x, y]) => x === 4321 && y === 99)).toBe(true);
    expect(few.every(([x], n) => n === 0 || x > few[n - 1]![0])).toBe(true);
    expect(few.at(-1)).toBe(points.at(-1));
  });
  it("smoothed is the same where it is flat, and calmer where it jumps", () => {
    expect(smooth([[0, 2], [1, 2], [2, 2]]).map(([, y]) => y)).toEqual([2, 2, 2]);
    const jumpy: Point[] = Array.from({ length: 500 }, (_, n) => [n, n % 2]);
    expect(Math.abs(smooth(jumpy).at(-1)![1] - 0.5)).toBeLessThan(0.1);
  });
  it("becomes a path, upwards", () => expect(path([[0, 0], [1, 1]], 10, 20)).toBe("M0.0 20.0L10.0 0.0"));
  it("finds the point nearest to a place", () => {
    const points: Point[] = [[0, 0], [10, 0], [20, 0]];
    expect([-5, 4, 6, 15.1, 99].map((x) => nearest(points, x))).toEqual([0, 0, 1, 2, 2]);
    expect(nearest([], 1)).toBe(-1);
  });
});

describe("a scale", () => {
  it("has round ticks", () => {
    expect(ticks(0, 100, 5)).toEqual([0, 20, 40, 60, 80, 100]);
    expect(ticks(0.13, 0.57, 4)).toEqual([0.2, 0.3, 0.4, 0.5].filter((t) => ticks(0.13, 0.57, 4).includes(t)));
    expect(scale([0, 0.3, 1]).at(0.25)).toBe(0.25);
  });
  it("is logarithmic where asked", () => {
    const log = scale([1, 10000], { log: true });
    expect(log.at(100)).toBeCloseTo(0.5);
    expect(log.ticks).toEqual([1, 10, 100, 1000, 10000]);
    expect(log.at(0)).toBe(0);
    expect(scale([2, 7], { log: true }).ticks).toEqual([2, 5]);
  });
  it("stands where there is nothing, or one value", () => {
    expect(scale([]).ticks.length).toBeGreaterThan(1);
    const one = scale([3, 3]);
    expect(one.from).toBeLessThan(3);
    expect(one.to).toBeGreaterThan(3);
    expect(Number.isFinite(scale([NaN, 0], { log: true }).at(1))).toBe(true);
  });
});

describe("a tick", () => {
  it("is short", () => expect([0, 0.00002, 0.01234, 3.14159, 12345, 2.5e7].map(tick)).toEqual(["0", "2e-5", "0.0123", "3.14", "12,345", "2.5e7"]));
});
