// The audit: what operators did, newest first.

import { get } from "../api.js";
import { Badge, Failure, Loading, Table, useLoaded } from "../components.js";
import { text, time } from "../format.js";
import { html, useState } from "../vendor/htm-preact.js";

const COLUMNS = [
  { name: "Id", number: true },
  { name: "At" },
  { name: "Actor" },
  { name: "From" },
  { name: "Action" },
  { name: "Target" },
  { name: "Outcome" },
  { name: "Details" },
];

export function Audit() {
  const [cursors, setCursors] = useState([]);
  const cursor = cursors.at(-1);
  const { value, problem, reload } = useLoaded(() => get("/audit", { cursor }), [cursor]);
  if (problem) return html`<${Failure} problem=${problem} />`;
  if (value === null) return html`<${Loading} />`;
  const rows = value.entries.map((entry) => ({
    key: entry.id,
    cells: [
      entry.id,
      time(entry.at),
      entry.actor,
      entry.origin,
      entry.action,
      text(entry.target),
      html`<${Badge} state=${entry.outcome} />`,
      entry.error ?? details(entry.details),
    ],
  }));
  return html`
    <p class="help">
      A <em>started</em> action runs. If it is older than the action can take, its process was killed or could not
      write to Postgres: the action may have taken effect.
    </p>
    <${Table} caption="Actions of operators" columns=${COLUMNS} rows=${rows} empty="No actions yet." />
    <p class="buttons">
      <button type="button" class="quiet" onClick=${reload}>Refresh</button>
      ${cursors.length > 0 &&
      html`<button type="button" class="quiet" onClick=${() => setCursors(cursors.slice(0, -1))}>Newer actions</button>`}
      ${value.next !== null &&
      html`<button type="button" class="quiet" onClick=${() => setCursors([...cursors, value.next])}>Older actions</button>`}
    </p>
  `;
}

const details = (members) => (Object.keys(members).length === 0 ? "" : JSON.stringify(members));
