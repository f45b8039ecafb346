// Background jobs: schedule, state and last run; run one now.

import { part, post } from "../api.js";
import { ActionButton, Badge, Loading, Table, report } from "../components.js";
import { count, span, text, time } from "../format.js";
import { snapshot } from "../live.js";
import { useStore } from "../store.js";
import { html } from "../vendor/htm-preact.js";

const COLUMNS = [
  { name: "Job" },
  { name: "Schedule" },
  { name: "State" },
  { name: "Due" },
  { name: "Last run" },
  { name: "Took", number: true },
  { name: "Result" },
  { name: "Actions" },
];

export function Jobs() {
  const now = useStore(snapshot);
  if (now === null) return html`<${Loading} />`;
  if (now.log === null) return html`<p class="message failed" role="alert">${now.error}.</p>`;
  const rows = now.log.jobs.map((job) => ({ key: job.name, cells: cells(job, Date.parse(now.at)) }));
  return html`
    <p class="help">A run that is requested starts within two seconds in a process with the role jobs.</p>
    <${Table} caption="Background jobs" columns=${COLUMNS} rows=${rows} empty="There are no jobs." />
  `;
}

function cells(job, now) {
  const { name, schedule, state, due_at, done, last, worker } = job;
  const run = async () => {
    await post(`/jobs/${part(name)}/run`);
    report(`A run of ${name} is requested.`);
  };
  const left = due_at === null ? 0 : Date.parse(due_at) - now;
  const shown = { running: ["running", "good"], asked: ["requested", "warn"], waiting: ["idle", ""] }[state];
  return [
    name,
    schedule,
    html`<${Badge} state=${shown[0]} tone=${shown[1]} />${
      state === "running" ? ` ${count(done)} done, ${text(worker)}` : ""
    }`,
    left > 0 ? `in ${span(left)}` : "now",
    last === null ? "never" : time(last.ended_at),
    last === null ? "–" : `${count(last.took_ms)} ms`,
    last === null ? "–" : html`${last.failed ? html`<${Badge} state="failed" /> ` : ""}${last.result}`,
    html`<${ActionButton} label="Run now" about=${name} onAct=${run} />`,
  ];
}
