// Processes and leases: the holder of each lease, and the connections to Postgres.

import { get } from "../api.js";
import { Failure, Loading, Table, useLoaded } from "../components.js";
import { count, decimal, time } from "../format.js";
import { html } from "../vendor/htm-preact.js";

const LEASES = [{ name: "Work" }, { name: "Kind" }, { name: "Holder" }];

const CONNECTIONS = [
  { name: "Address" },
  { name: "Role in Postgres" },
  { name: "Pool" },
  { name: "Connections", number: true },
  { name: "Active", number: true },
  { name: "Longest transaction", number: true },
];

export function Processes() {
  const { value, problem, reload } = useLoaded(() => get("/processes"), []);
  if (problem) return html`<${Failure} problem=${problem} />`;
  if (value === null) return html`<${Loading} />`;
  const leases = value.leases.map(({ kind, name, holder }) => ({
    key: `${kind}/${name}`,
    cells: [name, kind, holder ?? (kind === "job" ? "does not run" : "none")],
  }));
  const connections = value.connections.map((group) => ({
    key: `${group.address}/${group.role}/${group.pool}`,
    cells: [
      group.address,
      group.role,
      group.pool,
      count(group.connections),
      count(group.active),
      `${decimal(group.longest_transaction_seconds)} s`,
    ],
  }));
  const { name, roles, version, started_at } = value.this;
  return html`
    <p class="buttons"><button type="button" class="quiet" onClick=${reload}>Refresh</button></p>
    <h2>This process</h2>
    <dl class="details">
      <div><dt>Name</dt><dd>${name}</dd></div>
      <div><dt>Roles</dt><dd>${roles.join(", ")}</dd></div>
      <div><dt>Version</dt><dd>${version}</dd></div>
      <div><dt>Started</dt><dd>${time(started_at)}</dd></div>
    </dl>
    <h2>Leases</h2>
    <p class="help">Only one process at a time does each of these. Others take over when it stops.</p>
    <${Table} caption="Leases" columns=${LEASES} rows=${leases} empty="There are no leases." />
    <h2>Connections to Postgres</h2>
    <p class="help">Of all processes of the service that this process may see.</p>
    <${Table} caption="Connections to Postgres" columns=${CONNECTIONS} rows=${connections} empty="No connections." />
  `;
}
