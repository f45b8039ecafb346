// Readers: how much is stored, export, and erasure with a typed confirmation.

import { get, part, remove, send } from "../api.js";
import { ActionButton, Confirm, Failure, Loading, report, useLoaded } from "../components.js";
import { count, counted, time } from "../format.js";
import { html, useState } from "../vendor/htm-preact.js";
import { IdForm } from "./id-form.js";

export function Readers({ id }) {
  return html`
    <${IdForm} page="readers" label="Id of the reader" id=${id} />
    ${id !== null && html`<${Reader} id=${id} />`}
  `;
}

function Reader({ id }) {
  const { value, problem, reload } = useLoaded(() => get(`/readers/${part(id)}`), [id]);
  const [isErasing, setErasing] = useState(false);
  if (problem) return html`<${Failure} problem=${problem} />`;
  if (value === null) return html`<${Loading} />`;
  const { sessions, events, erasure } = value;
  const isEmpty = sessions === 0;
  const erase = async () => {
    const erased = await remove(`/readers/${part(id)}`, { confirm: id });
    report(`Erased ${counted(erased.sessions, "session", "sessions")}. The job erasures overwrites the events in the log.`);
    reload();
  };
  return html`
    <h2>Stored data</h2>
    <dl class="details">
      <div><dt>Sessions</dt><dd>${count(sessions)}</dd></div>
      <div><dt>Events</dt><dd>${count(events)}</dd></div>
      ${erasure &&
      html`<div>
        <dt>Erasure</dt>
        <dd>
          ${counted(erasure.sessions, "session", "sessions")} at ${time(erasure.erased_at)},${" "}
          ${counted(erasure.overwritten_events, "event", "events")} overwritten, ${erasure.done_at === null ? "not complete yet" : `complete at ${time(erasure.done_at)}`}
        </dd>
      </div>`}
    </dl>
    <div class="buttons">
      <${ActionButton} label="Export as JSON" disabled=${isEmpty} onAct=${() => download(id, "json")} />
      <${ActionButton} label="Export as CSV" disabled=${isEmpty} onAct=${() => download(id, "csv")} />
      <${ActionButton} label="Erase…" danger disabled=${isEmpty} onAct=${() => setErasing(true)} />
      <button type="button" class="quiet" onClick=${reload}>Refresh</button>
    </div>
    ${isErasing && html`<${EraseDialog} id=${id} reader=${value} onErase=${erase} onClose=${() => setErasing(false)} />`}
  `;
}

async function download(id, format) {
  const response = await send("POST", `/readers/${part(id)}/export`, { query: { format } });
  const url = URL.createObjectURL(await response.blob());
  const link = document.createElement("a");
  link.href = url;
  link.download = `reader-${id}.${format}`;
  link.click();
  // The browser reads the data after the click.
  setTimeout(() => URL.revokeObjectURL(url), 60_000);
  report(`The export of reader ${id} is downloaded.`);
}

function EraseDialog({ id, reader, onErase, onClose }) {
  const [typed, setTyped] = useState("");
  return html`<${Confirm}
    title="Erase this reader?"
    confirm="Erase permanently"
    danger
    disabled=${typed.trim() !== id}
    onConfirm=${onErase}
    onClose=${onClose}
  >
    <p>
      ${counted(reader.sessions, "session", "sessions")} with ${counted(reader.events, "event", "events")} will be erased. This cannot be undone.
      Copies on NATS, in backups and at consumers are not affected.
    </p>
    <label for="confirm-id">Type the id of the reader to confirm: <code>${id}</code></label>
    <input id="confirm-id" size="40" spellcheck="false" autocomplete="off" value=${typed} onInput=${(event) => setTyped(event.target.value)} />
  <//>`;
}
