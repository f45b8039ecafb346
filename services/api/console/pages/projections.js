// Projections: their state, pause, resume, replay with progress, and verification.

import { part, post } from "../api.js";
import { ActionButton, Badge, Confirm, Loading, Table, report } from "../components.js";
import { count, decimal, text, time } from "../format.js";
import { snapshot } from "../live.js";
import { useStore } from "../store.js";
import { html, useState } from "../vendor/htm-preact.js";

const COLUMNS = [
  { name: "Projection" },
  { name: "State" },
  { name: "Global position", number: true },
  { name: "Behind", number: true },
  { name: "Dead letters", number: true },
  { name: "Worker" },
  { name: "Actions" },
];

export function Projections() {
  const now = useStore(snapshot);
  const [replaying, setReplaying] = useState(null);
  if (now === null) return html`<${Loading} />`;
  if (now.log === null) return html`<p class="message failed" role="alert">${now.error}.</p>`;
  const { projections, actions } = now.log;
  const rows = projections.map((projection) => ({
    key: projection.name,
    cells: cells(projection, setReplaying),
  }));
  return html`
    <${Table} caption="Projections" columns=${COLUMNS} rows=${rows} empty="There are no projections." />
    <h2>Replays</h2>
    <${Replays} projections=${projections} />
    <h2>Errors of workers</h2>
    <${Errors} projections=${projections} />
    <h2>Verifications</h2>
    <p class="help">
      A verification compares a projection with the log while clients continue. The command${" "}
      <code>reading-sessions verify</code> prints the rows that differ.
    </p>
    <${Verifications} actions=${actions} />
    ${replaying && html`<${ReplayDialog} projection=${replaying} onClose=${() => setReplaying(null)} />`}
  `;
}

function cells(projection, setReplaying) {
  const { name, state, position, lag_events, lag_seconds, dead_letters, worker } = projection;
  const path = `/projections/${part(name)}`;
  const pause = async () => {
    await post(`${path}/pause`);
    report(`${name} is paused. Queries read data that becomes outdated.`);
  };
  const resume = async () => {
    await post(`${path}/resume`);
    report(`${name} is resumed. A worker takes it over within a second.`);
  };
  const verify = async () => {
    await post(`${path}/verify`);
    report(`The verification of ${name} has started. Its result appears below.`);
  };
  return [
    name,
    html`<${Badge} state=${state} />`,
    count(position),
    `${count(lag_events)} (${decimal(lag_seconds)} s)`,
    count(dead_letters),
    text(worker),
    html`<div class="buttons">
      ${state === "paused"
        ? html`<${ActionButton} label="Resume" about=${name} onAct=${resume} />`
        : html`<${ActionButton} label="Pause" about=${name} onAct=${pause} />`}
      <${ActionButton} label="Replay…" about=${name} onAct=${() => setReplaying(projection)} />
      <${ActionButton} label="Verify" about=${name} onAct=${verify} />
    </div>`,
  ];
}

function ReplayDialog({ projection, onClose }) {
  const { name, replay } = projection;
  const [restart, setRestart] = useState(false);
  const canResume = replay !== null && !replay.running;
  const start = async () => {
    await post(`/projections/${part(name)}/replay`, restart ? { restart: "true" } : {});
    report(`The replay of ${name} has started. Queries read the previous data until it completes.`);
  };
  return html`<${Confirm} title=${`Replay ${name}?`} confirm="Start the replay" onConfirm=${start} onClose=${onClose}>
    <p>The service rebuilds ${name} from the log in the background, and swaps the data at the end.</p>
    ${canResume &&
    html`<p>
      <label>
        <input type="checkbox" checked=${restart} onChange=${(event) => setRestart(event.target.checked)} />
        Discard the progress of the interrupted replay (${replay.percent} %)
      </label>
    </p>`}
  <//>`;
}

function Replays({ projections }) {
  const replays = projections.filter(({ replay }) => replay !== null);
  if (replays.length === 0) return html`<p class="empty">No replay runs or waits to be resumed.</p>`;
  return html`<ul class="plain">
    ${replays.map(
      ({ name, replay }) => html`<li key=${name}>
        <label for=${`replay-${name}`}>
          ${name}: ${replay.percent} %, ${replay.running ? "running" : "interrupted"}
        </label>
        <progress id=${`replay-${name}`} max="100" value=${replay.percent}></progress>
      </li>`,
    )}
  </ul>`;
}

function Errors({ projections }) {
  const failed = projections.filter(({ last_error }) => last_error !== null);
  if (failed.length === 0) return html`<p class="empty">No worker has failed.</p>`;
  return html`<ul class="plain">
    ${failed.map(
      ({ name, state, last_error }) => html`<li key=${name}>
        <strong>${name}</strong> ${state === "failing" ? "fails since" : "failed at"}${" "}
        ${time(last_error.at)}: ${last_error.message}
      </li>`,
    )}
  </ul>`;
}

function Verifications({ actions }) {
  if (actions === null) {
    return html`<p class="empty">
      This process may not read the audit, which contains the results. Use a process with the role jobs.
    </p>`;
  }
  const verifications = actions.filter(({ action }) => action === "verify");
  if (verifications.length === 0) {
    return html`<p class="empty">None of the latest actions is a verification. Older ones are in the audit.</p>`;
  }
  return html`<ul class="plain" aria-live="polite">
    ${verifications.map(
      (entry) => html`<li key=${entry.id}>
        <strong>${text(entry.target)}</strong> ${time(entry.at)} <${Badge} state=${entry.outcome} /> ${result(entry)}
      </li>`,
    )}
  </ul>`;
}

function result({ outcome, details, error }) {
  if (outcome === "failed") return error;
  if (details.equal === undefined) return "";
  const compared = details.compared.map(
    ({ name, rows, differing }) => `${name}: ${count(differing)} of ${count(rows)} differ`,
  );
  return `${details.equal ? "equal" : "different"} (${compared.join("; ")})`;
}
