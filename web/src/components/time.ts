/** When something was, as a person says it. */

import { speech } from "../lib/i18n.svelte";

const UNITS: readonly [Intl.RelativeTimeFormatUnit, number][] = [
  ["day", 86_400_000],
  ["hour", 3_600_000],
  ["minute", 60_000],
];

/** "3 minutes ago"; beyond a week the date. */
export function ago(moment: number, now = Date.now()): string {
  if (!moment) return "";
  const language = speech.language === "zh" ? "zh-CN" : "en-GB";
  const since = now - moment;
  if (since > 7 * 86_400_000) return new Date(moment).toLocaleDateString(language, { dateStyle: "medium" });
  const words = new Intl.RelativeTimeFormat(language, { numeric: "auto" });
  for (const [unit, ms] of UNITS) if (since >= ms) return words.format(-Math.floor(since / ms), unit);
  return words.format(0, "minute").replace(/^this minute$/, "just now");
}

/** The moment in full. */
export const moment = (at: number): string =>
  at ? new Date(at).toLocaleString(speech.language === "zh" ? "zh-CN" : "en-GB", { dateStyle: "medium", timeStyle: "short" }) : "";
