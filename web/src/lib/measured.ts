/** What was measured of a trained network (evaluation.json), and of its training (events.jsonl). */

import type { Point } from "./plot";

export interface Evaluation {
  n: number;
  accuracy: number;
  top5: number | null;
  loss: number;
  ece: number;
  ece_calibrated: number;
  temperature: number;
  classes: string[];
  per_class: (number | null)[];
  confusion: number[][];
  network?: string;
  data?: string;
}

export interface Confused {
  truth: string;
  taken: string;
  count: number;
  share: number;
}

/** The pairs of classes most often confused. */
export function confused(found: Pick<Evaluation, "classes" | "confusion">, most = 8): Confused[] {
  const pairs: Confused[] = [];
  found.confusion.forEach((row, truth) => {
    const total = sum(row);
    row.forEach((count, taken) => {
      if (truth !== taken && count > 0) {
        pairs.push({ truth: name(found, truth), taken: name(found, taken), count, share: count / total });
      }
    });
  });
  return pairs.sort((a, b) => b.count - a.count || b.share - a.share).slice(0, most);
}

const name = (found: Pick<Evaluation, "classes">, n: number): string => found.classes[n] ?? String(n);
export const sum = (values: readonly number[]): number => values.reduce((a, b) => a + b, 0);

/** Each mistake's share of its row, 0..1 of the greatest: what its colour shows. */
export function mistakes(confusion: readonly (readonly number[])[]): number[][] {
  const shares = confusion.map((row, truth) => {
    const total = sum(row) || 1;
    return row.map((count, taken) => (truth === taken ? 0 : count / total));
  });
  const most = Math.max(...shares.flat(), 0) || 1;
  return shares.map((row) => row.map((share) => share / most));
}

export interface Course {
  /** Batch by batch. */
  loss: Point[];
  /** At each epoch's end. */
  epochs: Record<"loss" | "accuracy" | "validation_loss" | "validation_accuracy", Point[]>;
}

/** A training's curves from its events; a last line that a crash has cut is passed over. */
export function course(lines: string): Course {
  const found: Course = { loss: [], epochs: { loss: [], accuracy: [], validation_loss: [], validation_accuracy: [] } };
  for (const line of lines.split("\n")) {
    if (!line.startsWith("{")) continue;
    let event: Record<string, unknown>;
    try {
      event = JSON.parse(line);
    } catch {
      continue;
    }
    const at = event.count;
    if (typeof at !== "number") continue;
    if (event.event === "step" && typeof event.loss === "number") found.loss.push([at, event.loss]);
    if (event.event === "epoch") {
      for (const key of Object.keys(found.epochs) as (keyof Course["epochs"])[]) {
        const value = event[key];
        if (typeof value === "number") found.epochs[key].push([at, value]);
      }
    }
  }
  return found;
}

/** Two lists of points as one, in order; of two at one place the later list's. */
export function merged(a: readonly Point[], b: readonly Point[]): Point[] {
  const all = new Map<number, Point>();
  for (const point of [...a, ...b]) all.set(point[0], point);
  return [...all.values()].sort((p, q) => p[0] - q[0]);
}

/** A share as a person reads it: 99.43 %. */
export const percent = (share: number, digits = 2): string => `${(100 * share).toFixed(digits)} %`;
