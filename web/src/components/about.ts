/** What tells a run from its neighbours: a few of its settings. */

import { speech } from "../lib/i18n.svelte";
import { plain, words as spaced, type Job } from "../lib/jobs";
import { studio } from "../lib/studio.svelte";
import { called } from "./words";

/** Settings that speak for themselves, and come first. */
const SPEAKS = new Set("recipe preset target targets data source content styles image net layers pictures".split(" "));

const short = (text: string): string => {
  const last = text.split(/[\\/]/).pop() ?? text;
  return last.length > 42 ? `${last.slice(0, 40)}…` : last;
};

export function about(job: Pick<Job, "command" | "options">, most = 4): string {
  const parts: string[] = [];
  const speaking = ([name]: [string, unknown]) => Number(SPEAKS.has(plain(name)));
  for (const [name, each] of Object.entries(job.options).sort((a, b) => speaking(b) - speaking(a))) {
    if (each === null || each === "" || each === "auto" || each === false || (Array.isArray(each) && !each.length)) continue;
    const many = (Array.isArray(each) ? each : [each]).map((one) => studio.find(String(one))?.name ?? String(one));
    const text = short(many.join(", "));
    parts.push(SPEAKS.has(plain(name)) ? text : `${called(name, speech.language === "zh", spaced, job.command)} ${text}`);
    if (parts.length === most) break;
  }
  return parts.join(" · ");
}
