/**
 * The Chinese of what the server says in English: commands, their options and their presets.
 *
 * Each stands beside the English that it was made of. Where the server says another sentence by now, or one that is
 * not here, its English is shown: what is told is never out of date. A test of the server's forms finds what is missing.
 */

import table from "../locales/zh.json";
import { speech } from "./i18n.svelte";
import { plain, type Command, type Option, type Preset } from "./jobs";
import { words } from "./words";

type Pairs = Record<string, string[]>; // by name: the English, the Chinese
interface Told {
  title?: string; // of a command without a page of its own
  text: string[];
  names?: Record<string, string>;
  options: Pairs;
}
interface Table {
  names: Record<string, string>;
  choices: Record<string, Record<string, string>>; // by option: what its values mean
  options: Pairs;
  presets: Pairs;
  commands: Record<string, Told>;
}

const ZH = table as Table;
const zh = (): boolean => speech.language === "zh";

function spoken(english: string, ...pairs: (string[] | undefined)[]): string {
  if (!zh()) return english;
  return pairs.find((pair) => pair?.[0] === english)?.[1] ?? english;
}

/** An option's help without the default that ends it: a form shows that in the field. */
export const told = (option: Pick<Option, "help">): string => (option.help ?? "").replace(/\s*\[default: [^\]]*\]\s*$/, "");

/** What a command's option means. */
export function explained(command: string, option: Option): string {
  const name = plain(option.name);
  return spoken(told(option), ZH.commands[command]?.options[name], ZH.options[name]);
}

/** A value that can be chosen, as it is shown: in Chinese with what it means before it. */
export function chosen(option: Option, value: string): string {
  const meaning = zh() ? ZH.choices[plain(option.name)]?.[value] : undefined;
  return meaning ? `${meaning} ${value}` : value;
}

/** What a command does, in a sentence. */
export const described = (command: Command): string => spoken(command.text, ZH.commands[command.name]?.text);

/** What a preset or a recipe is. */
export const characterised = (preset: Preset): string => spoken(preset.text, ZH.presets[preset.name]);

/** How far a job is, as commands say it. */
const STEPS: readonly [RegExp, string][] = [
  [/^epoch (\d+)$/, "第 $1 轮"],
  [/^epoch (\d+)\/(\d+)$/, "第 $1 / $2 轮"],
  [/^epoch (\d+)\/(\d+), loss (\S+)$/, "第 $1 / $2 轮，损失 $3"],
  [/^octave (\d+), (\d+) [x×] (\d+) px$/, "第 $1 个尺寸，$2 × $3 像素"],
  [/^(\S+), step (\d+) of (\d+)$/, "$1，第 $2 / $3 步"],
  [/^measuring$/, "正在测量"],
  [/^stopping$/, "正在停止"],
  [/^(\d+) × (\d+) px$/, "$1 × $2 像素"],
];

/** A step's words: a file by its name alone, and in Chinese what is known. */
export function stepped(text: string): string {
  if (/^(\/|[A-Z]:\\)/.test(text)) return text.split(/[\\/]/).pop() ?? text; // a file: its folder is the server's business
  if (!zh()) return text;
  const [known, said] = STEPS.find(([pattern]) => pattern.test(text)) ?? [];
  return known && said ? text.replace(known, said) : text;
}

/** An option's name in Chinese, if it has one. */
export const chinese = (name: string, command = ""): string | undefined =>
  ZH.commands[command]?.names?.[name] ?? ZH.names[name];

/** Commands that have a page of their own, and which. */
export const PAGE = { stylize: "paint", dream: "dream", invert: "keeps", train: "learn" } as const;
export const paged = (command: string): command is keyof typeof PAGE => command in PAGE;

/** A command's name as a title: its page's, or in Chinese its own. */
export function titled(command: string): string {
  if (paged(command)) return words[PAGE[command]];
  return zh() ? (ZH.commands[command]?.title ?? command) : command;
}
