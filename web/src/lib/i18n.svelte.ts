/**
 * The interface's words in English and Chinese.
 *
 * Each page keeps a table of its own beside it and speaks through it:
 *
 *     const t = speak({ en: { title: "Look", seen: (n: number) => `${n} layers` }, zh: { … } });
 *     t.title, t.seen(3)   // follow the language wherever they stand in a template
 *
 * The Chinese table must have every key of the English one, of the same kind: the compiler says so.
 */

export type Language = "en" | "zh";
type Phrase = string | ((...args: any[]) => string);
type Table = Record<string, Phrase>;
type Same<T extends Table> = { [K in keyof T]: T[K] extends string ? string : T[K] };

const KEPT = "innervision.language";

function first(): Language {
  const kept = recall(KEPT);
  if (kept === "en" || kept === "zh") return kept;
  return navigator.language?.toLowerCase().startsWith("zh") ? "zh" : "en";
}

/** localStorage, or nothing where the browser forbids it. */
export function recall(name: string): string | null {
  try {
    return localStorage.getItem(name);
  } catch {
    return null;
  }
}

export function keep(name: string, value: string): void {
  try {
    localStorage.setItem(name, value);
  } catch {
    // private windows: the choice holds until the page is closed
  }
}

class Speech {
  language = $state<Language>(first());

  use(language: Language): void {
    this.language = language;
    keep(KEPT, language);
  }
}

export const speech = new Speech();

export function speak<T extends Table>(tables: { en: T; zh: Same<T> }): T {
  return new Proxy(tables.en, {
    get: (_, name) => (tables[speech.language] as T)[name as keyof T],
  });
}

/** The language of a sentence that may be the server's, which speaks English: for who reads the page aloud. */
export const tongue = (text: string): Language | undefined =>
  speech.language === "zh" && !/[\u4e00-\u9fff]/.test(text) ? "en" : undefined;

/** 1234567 -> 1,234,567 as the language writes it. */
export function count(n: number): string {
  return n.toLocaleString(speech.language === "zh" ? "zh-CN" : "en-GB");
}

/** A measured value, short: 0.0031, 12.4, 4,382, 1.2e+6. */
export function short(value: number): string {
  if (!Number.isFinite(value)) return "–";
  if (value === 0) return "0";
  const size = Math.abs(value);
  if (size >= 1e6 || size < 1e-3) return value.toExponential(1);
  if (size >= 1000) return count(Math.round(value));
  return value.toPrecision(3);
}
