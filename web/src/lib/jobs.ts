/** Jobs and the forms that start them: the shapes that the server sends, and what is made of them here. */

export type Kind = "int" | "float" | "bool" | "choice" | "text" | "picture" | "pictures";
export type Value = string | number | boolean | string[] | null;
export type Values = Record<string, Value>;

export interface Option {
  name: string;
  kind: Kind;
  default?: Value;
  choices?: string[] | null;
  help?: string;
  multiple?: boolean;
  group?: string | null;
  required?: boolean;
}

export interface Command {
  name: string;
  text: string;
  options: Option[];
}

export type State = "queued" | "running" | "done" | "failed" | "stopped" | "interrupted";

export interface JobFile {
  name: string;
  kind?: string;
  url: string;
}

export interface Job {
  id: string;
  command: string;
  options: Record<string, unknown>;
  state: State;
  created?: string | number;
  step?: number | null;
  of?: number | null;
  text?: string | null;
  error?: string | null;
  card?: Record<string, any> | null;
  files?: JobFile[];
  resumable?: boolean;
}

/** What a `step` event holds: how far the work is, and any number of terms. */
export interface Step {
  step: number;
  of?: number;
  text?: string;
  [term: string]: unknown;
}

/** Options that are the server's business, whichever command has them. */
const SERVERS = new Set([
  "output", "folder", "run", "no_run", "no-run", "resume", "dry_run", "dry-run", "quiet", "json", "as_json",
  "help", "version", "checkpoints", "cadence", "checkpoint-every", "max_pixels", "max-pixels", "tensorboard",
]);

/** A name as the page writes it: `style_layer_weights` and `style-layer-weights` are one. */
export const plain = (name: string): string => name.replace(/^--/, "").replaceAll("-", "_");

export const underway = (job: Pick<Job, "state">): boolean => job.state === "queued" || job.state === "running";

export interface Arranged {
  /** Shown at once, in the order asked for. */
  first: Option[];
  /** Folded away, by group. */
  groups: { name: string; options: Option[] }[];
}

/** Set a command's options out: those named first, the rest under their groups, the server's own left out. */
export function arrange(command: Command, first: readonly string[], elsewhere: readonly string[] = []): Arranged {
  const known = new Map(command.options.map((option) => [plain(option.name), option]));
  const away = new Set(elsewhere.map(plain));
  const chosen = first.map(plain).filter((name) => known.has(name) && !away.has(name));
  const groups = new Map<string, Option[]>();
  for (const [name, option] of known) {
    if (chosen.includes(name) || away.has(name) || SERVERS.has(name)) continue;
    const group = option.group || "";
    groups.set(group, [...(groups.get(group) ?? []), option]);
  }
  return {
    first: chosen.map((name) => known.get(name)!),
    groups: [...groups].map(([name, options]) => ({ name, options })),
  };
}

/** Find an option by its name, however it is written. */
export const find = (command: Command | undefined, name: string): Option | undefined =>
  command?.options.find((option) => plain(option.name) === plain(name));

/** What a form begins with. */
export function defaults(command: Command): Values {
  return Object.fromEntries(command.options.map((option) => [option.name, usual(option)]));
}

export function usual(option: Option): Value {
  if (option.default !== undefined && option.default !== null) return option.default;
  if (option.kind === "pictures" || option.multiple) return [];
  if (option.kind === "bool") return false;
  return null;
}

const same = (a: Value, b: Value): boolean => JSON.stringify(a ?? null) === JSON.stringify(b ?? null);
const empty = (value: Value | undefined): boolean =>
  value === undefined || value === null || value === "" || (Array.isArray(value) && value.length === 0);

/** What of a form is sent: only what differs from its default, so that a preset's own choices hold. */
export function changed(command: Command, values: Values): Values {
  const sent: Values = {};
  for (const option of command.options) {
    const value = values[option.name];
    if (empty(value) && option.kind !== "bool") continue;
    if (!option.required && same(value!, usual(option))) continue;
    sent[option.name] = read(option, value!);
  }
  return sent;
}

/** A field's text as the value it stands for. */
export function read(option: Option, value: Value): Value {
  if (typeof value !== "string") return value;
  if (option.kind === "int" || option.kind === "float") return Number(value);
  if (option.multiple) return value.split("\n").map((line) => line.trim()).filter(Boolean);
  return value.trim();
}

export type Fault = "number" | "whole" | "needed" | "choice" | null;

/** What is wrong with a field, or null. */
export function fault(option: Option, value: Value | undefined): Fault {
  if (empty(value)) return option.required ? "needed" : null;
  if (option.kind === "int" || option.kind === "float") {
    const number = Number(value);
    if (!Number.isFinite(number)) return "number";
    if (option.kind === "int" && !Number.isInteger(number)) return "whole";
  }
  if (option.kind === "choice" && option.choices && !option.choices.includes(String(value))) return "choice";
  return null;
}

/** A person's words for an option: `style_weight` is "Style weight". */
export function words(name: string): string {
  const spaced = plain(name).replace(/_+$/, "").replaceAll("_", " ");
  return spaced.charAt(0).toUpperCase() + spaced.slice(1);
}

const NOT_TERMS = new Set(["step", "of", "seconds", "stage", "count", "steps", "octave", "epoch", "lr", "size"]);

/** The terms of a step: every number in it that is not its place. */
export function terms(step: Step): Record<string, number> {
  const found: Record<string, number> = {};
  const take = (holder: Record<string, unknown>): void => {
    for (const [name, value] of Object.entries(holder)) {
      if (name === "terms" || name === "values") {
        if (value && typeof value === "object") take(value as Record<string, unknown>);
      } else if (typeof value === "number" && Number.isFinite(value) && !NOT_TERMS.has(name)) {
        found[name] = value;
      }
    }
  };
  take(step);
  return found;
}

/** Terms by their first word: a painting's "style relu1_1", "style relu2_1" … add up to "style". */
export function gathered(found: Record<string, number>): Record<string, number> {
  const sums: Record<string, number> = {};
  for (const [name, value] of Object.entries(found)) {
    const kind = name.split(/[ :]/, 1)[0] ?? name;
    sums[kind] = (sums[kind] ?? 0) + value;
  }
  return sums;
}

const PICTURE = /\.(png|jpe?g|webp|gif)$/i;
/** Figures that are drawn of a run, not its picture. */
const FIGURES = /(^|\/)(sheet|curve|curves|confusion|per_class|reliability|mistakes|filters)\.png$/;
const SNAPSHOT = /(^|\/)(snapshots|frames|preview)\//;

export const pictured = (file: JobFile): boolean => file.kind === "image" || file.kind === "picture" || PICTURE.test(file.name);

/** The picture that a run is for: its output, or else the last it has made. */
export function result(files: readonly JobFile[], output?: string | null): JobFile | undefined {
  const pictures = files.filter((file) => pictured(file) && !FIGURES.test(file.name));
  const name = output?.split(/[\\/]/).pop();
  return (
    pictures.find((file) => name && file.name.split("/").pop() === name && !SNAPSHOT.test(file.name)) ??
    pictures.filter((file) => !SNAPSHOT.test(file.name)).at(-1)
  );
}

/** The snapshots of a run in the order of their numbers. */
export function snapshots(files: readonly JobFile[]): { step: number; file: JobFile }[] {
  return files
    .filter((file) => pictured(file) && SNAPSHOT.test(file.name))
    .map((file) => ({ step: Number(/(\d+)\.\w+$/.exec(file.name)?.[1] ?? 0), file }))
    .sort((a, b) => a.step - b.step);
}

export const named = (files: readonly JobFile[] | undefined, name: string): JobFile | undefined =>
  files?.find((file) => file.name === name || file.name.endsWith(`/${name}`));

/** Seconds as a person reads them. */
export function duration(seconds: number): string {
  if (!Number.isFinite(seconds)) return "";
  if (seconds < 90) return `${Math.max(1, Math.round(seconds))} s`;
  const minutes = Math.round(seconds / 60);
  return minutes < 90 ? `${minutes} min` : `${Math.floor(minutes / 60)} h ${String(minutes % 60).padStart(2, "0")} min`;
}

/** Seconds still to go, by the pace so far; undefined before there is one. */
export function remaining(step: number, of: number, seconds: number, first = 0): number | undefined {
  const done = step - first;
  return done > 0 && of > step ? (seconds / done) * (of - step) : undefined;
}
