/** Jobs and the forms that start them: the shapes that the server sends, and what is made of them here. */

export type Kind = "int" | "float" | "bool" | "choice" | "text" | "picture" | "pictures";
export type Value = string | number | boolean | string[] | null;
export type Values = Record<string, Value>;

export interface Option {
  name: string;
  kind: Kind;
  default?: unknown;
  choices?: string[] | null;
  help?: string;
  multiple?: boolean;
  group?: string | null;
  required?: boolean;
  min?: number | null;
  max?: number | null;
  /** What is named: "network", "data", "layers" …; "picture" where a choice can be a picture too. */
  of?: string;
  /** Of a choice what has to be fetched first, and how many bytes of it. */
  fetched?: Record<string, number>;
}

/** A named set of values, of the option `preset` or `recipe`. */
export interface Preset {
  name: string;
  text: string;
  values: Record<string, unknown>;
}

export interface Command {
  name: string;
  text: string;
  help?: string;
  groups?: string[];
  options: Option[];
  presets?: Preset[];
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
  /** How it can be resumed: on from where it was, or anew. */
  resume?: "on" | "anew" | "";
  /** Whether the studio began it; a run of the command line is not the studio's to delete. */
  own?: boolean;
  /** Jobs before it in the queue. */
  ahead?: number | null;
  ended?: string | null;
  result?: Record<string, any> | null;
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
  "output", "folder", "run", "no_run", "resume", "dry_run", "quiet", "json", "as_json", "help", "version",
  "checkpoints", "cadence", "checkpoint_every", "max_pixels", "tensorboard",
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

const FIRST = "First";

/** Set a command's options out: the first ones, the rest under their groups, those shown elsewhere left out. */
export function arrange(command: Command, elsewhere: readonly string[] = [], first?: readonly string[]): Arranged {
  const away = new Set(elsewhere.map(plain));
  const wanted = first?.map(plain);
  const leading: Option[] = [];
  const groups = new Map<string, Option[]>(["More", ...(command.groups ?? [])].map((name) => [name, []]));
  for (const option of command.options) {
    const name = plain(option.name);
    if (away.has(name) || SERVERS.has(name)) continue;
    if (wanted ? wanted.includes(name) : option.group === FIRST) {
      leading.push(option);
      continue;
    }
    const group = option.group && option.group !== FIRST ? option.group : "More";
    groups.set(group, [...(groups.get(group) ?? []), option]);
  }
  if (wanted) leading.sort((a, b) => wanted.indexOf(plain(a.name)) - wanted.indexOf(plain(b.name)));
  return {
    first: leading,
    groups: [...groups].filter(([, options]) => options.length).map(([name, options]) => ({ name, options })),
  };
}

/** Find an option by its name, however it is written. */
export const find = (command: Command | undefined, name: string): Option | undefined =>
  command?.options.find((option) => plain(option.name) === plain(name));

/** What a form begins with. */
export function defaults(command: Command): Values {
  return Object.fromEntries(command.options.map((option) => [option.name, usual(option)]));
}

/** The same, with a network where the command's own default is not among this studio's. */
export function begun(command: Command): Values {
  const values = defaults(command);
  for (const option of command.options) {
    if (option.of === "network" && values[option.name] === null) values[option.name] = option.choices?.[0] ?? null;
  }
  return values;
}

/** The preset that a form has chosen, or its default. */
export function preset(command: Command, values: Values): Preset | undefined {
  const option = find(command, "preset") ?? find(command, "recipe");
  const name = option && (values[option.name] ?? option.default);
  return command.presets?.find((each) => each.name === name);
}

/** An option's value where none is given: the preset's, or its default. */
export function usual(option: Option, chosen?: Preset): Value {
  const own = chosen?.values[plain(option.name)] ?? option.default;
  if (own !== undefined && own !== null) return own as Value;
  if (option.kind === "pictures" || option.multiple) return [];
  if (option.kind === "bool") return false;
  return null;
}

const same = (a: Value, b: Value): boolean => a === b || JSON.stringify(a ?? null) === JSON.stringify(b ?? null);
const empty = (value: Value | undefined): boolean =>
  value === undefined || value === null || value === "" || (Array.isArray(value) && value.length === 0);

/** Whether a field holds anything but what stands there anyway. */
export function differs(option: Option, value: Value | undefined, chosen?: Preset): boolean {
  if (empty(value)) return false;
  return !same(read(option, value!), usual(option, chosen));
}

/** What of a form is sent: only what differs from what would hold anyway. */
export function changed(command: Command, values: Values): Values {
  const chosen = preset(command, values);
  const sent: Values = {};
  for (const option of command.options) {
    const value = values[option.name];
    if (empty(value)) continue;
    if (differs(option, value, chosen)) sent[option.name] = read(option, value!);
  }
  return sent;
}

/** Choose another preset: what was filled in by hand stays, what was the old preset's gives way. */
export function rechosen(command: Command, values: Values, option: Option, name: Value): Values {
  const before = preset(command, values);
  const next: Values = { ...values, [option.name]: name };
  const after = preset(command, next);
  for (const each of command.options) {
    if (each.name === option.name) continue;
    if (!differs(each, values[each.name], before)) next[each.name] = usual(each, after);
  }
  return next;
}

/** A form with what a run was given, over its preset's choices and the defaults. */
export function filled(command: Command, given: Record<string, unknown>): Values {
  const own: Values = {};
  for (const [name, value] of Object.entries(given)) {
    const option = find(command, name);
    if (option && value !== null) own[option.name] = value as Value;
  }
  const chooser = find(command, "preset") ?? find(command, "recipe");
  const name = chooser && own[chooser.name];
  const usual = begun(command);
  return { ...(chooser && name ? rechosen(command, usual, chooser, name) : usual), ...own };
}

/** A field's text as the value it stands for. */
export function read(option: Option, value: Value): Value {
  if (typeof value !== "string") return value;
  const text = value.trim();
  if (option.kind === "int" || option.kind === "float") {
    return option.choices?.includes(text) || text === "" || Number.isNaN(Number(text)) ? text : Number(text);
  }
  if (option.multiple) return text.split("\n").map((line) => line.trim()).filter(Boolean);
  return text;
}

export type Fault = { kind: "number" | "whole" | "needed" | "choice" } | { kind: "least" | "most"; bound: number } | null;

/** What is wrong with a field, or null. */
export function fault(option: Option, value: Value | undefined): Fault {
  if (empty(value)) return option.required ? { kind: "needed" } : null;
  if (option.kind === "int" || option.kind === "float") {
    const number = read(option, value!);
    if (typeof number === "string" && option.choices?.includes(number)) return null;
    if (typeof number !== "number" || !Number.isFinite(number)) return { kind: "number" };
    if (option.kind === "int" && !Number.isInteger(number)) return { kind: "whole" };
    if (option.min !== null && option.min !== undefined && number < option.min) return { kind: "least", bound: option.min };
    if (option.max !== null && option.max !== undefined && number > option.max) return { kind: "most", bound: option.max };
  }
  const free = option.of === "picture"; // one of the studio's pictures, too
  if (option.kind === "choice" && !free && option.choices?.length && !option.choices.includes(String(value))) {
    return { kind: "choice" };
  }
  return null;
}

/** The first thing wrong with a form. */
export const faults = (command: Command, values: Values): Option[] =>
  command.options.filter((option) => fault(option, values[option.name]));

/** A person's words for an option: `style_weight` is "Style weight". */
export function words(name: string): string {
  const spaced = plain(name).replace(/_+$/, "").replaceAll("_", " ");
  return spaced.charAt(0).toUpperCase() + spaced.slice(1);
}

const NOT_TERMS = new Set("step of seconds stage count steps octave epoch size position".split(" "));

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

export const pictured = (file: JobFile): boolean => PICTURE.test(file.name);
const preview = (file: JobFile): boolean => file.kind === "preview" || /^(snapshots|preview)\//.test(file.name);
export const input = (file: JobFile): boolean => file.kind === "input" || /^inputs\//.test(file.name);

/** The picture that a run is for: its result, or else the last that it has made. */
export function result(files: readonly JobFile[]): JobFile | undefined {
  const pictures = files.filter((file) => pictured(file) && !input(file));
  return (
    pictures.filter((file) => file.kind === "result").at(-1) ??
    pictures.filter((file) => !FIGURES.test(file.name) && !preview(file)).at(-1) ??
    pictures.filter(preview).at(-1)
  );
}

/** The pictures of a film, in their order. */
export const film = (files: readonly JobFile[]): JobFile[] =>
  files.filter((file) => pictured(file) && /^film\//.test(file.name)).sort((a, b) => (a.name < b.name ? -1 : 1));

/** The pictures that a run has read. */
export const inputs = (files: readonly JobFile[]): JobFile[] => files.filter((file) => pictured(file) && input(file));

/** The snapshots of a run in the order of their numbers. */
export function snapshots(files: readonly JobFile[]): { step: number; file: JobFile }[] {
  return files
    .filter((file) => pictured(file) && preview(file))
    .map((file) => ({ step: Number(/(\d+)\.\w+$/.exec(file.name)?.[1] ?? 0), file }))
    .sort((a, b) => a.step - b.step);
}

export const named = (files: readonly JobFile[] | undefined, name: string): JobFile | undefined =>
  files?.find((file) => file.name === name || file.name.endsWith(`/${name}`));

/** A layer's name as a file bears it: what is no letter, digit or one of _.+- is written %2F. */
export const filed = (layer: string): string =>
  layer.replace(/[^\p{L}\p{N}_.+-]/gu, (sign) =>
    Array.from(new TextEncoder().encode(sign), (byte) => `%${byte.toString(16).toUpperCase().padStart(2, "0")}`).join(""),
  );

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
