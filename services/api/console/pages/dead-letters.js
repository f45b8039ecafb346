// Dead letters: list, show, retry and discard.

import { get, part, post } from "../api.js";
import { ActionButton, Badge, Confirm, Failure, Json, Loading, Table, report, useLoaded } from "../components.js";
import { count, json, time } from "../format.js";
import { html, useState } from "../vendor/htm-preact.js";

const STATES = ["parked", "waiting", "discarded"];
const PROJECTIONS = ["history", "daily_stats", "active_sessions"];

const COLUMNS = [
  { name: "Id" },
  { name: "State" },
  { name: "Since" },
  { name: "Tries", number: true },
  { name: "Session" },
  { name: "Error" },
];

export const DeadLetters = ({ id }) => (id === null ? html`<${List} />` : html`<${Details} id=${id} />`);

function List() {
  const [filter, setFilter] = useState({ projection: "", state: "" });
  // The cursors of the pages before this one.
  const [cursors, setCursors] = useState([]);
  const after = cursors.at(-1);
  const { value, problem, reload } = useLoaded(
    () => get("/dead-letters", { ...filter, after }),
    [filter.projection, filter.state, after],
  );
  const change = (name) => (event) => {
    setCursors([]);
    setFilter({ ...filter, [name]: event.target.value });
  };
  const rows = (value?.dead_letters ?? []).map((letter) => ({
    key: letter.id,
    cells: [
      html`<a href=${`#/dead-letters/${part(letter.id)}`}>${letter.id}</a>`,
      html`<${Badge} state=${letter.state} />`,
      time(letter.parked_at),
      count(letter.tries),
      html`<a href=${`#/sessions/${part(letter.session_id)}`}>${letter.session_id}</a>`,
      letter.error,
    ],
  }));
  return html`
    <p class="help">
      An event that a projection cannot apply is parked, and later events of its session wait for it.
    </p>
    <form class="filters" onSubmit=${(event) => event.preventDefault()}>
      <${Select} id="projection" label="Projection" options=${PROJECTIONS} value=${filter.projection} onChange=${change("projection")} />
      <${Select} id="state" label="State" options=${STATES} value=${filter.state} onChange=${change("state")} />
      <button type="button" class="quiet" onClick=${reload}>Refresh</button>
    </form>
    ${problem && html`<${Failure} problem=${problem} />`}
    ${value === null && !problem && html`<${Loading} />`}
    ${value !== null && html`<${Table} caption="Dead letters" columns=${COLUMNS} rows=${rows} empty="No dead letters." />`}
    <p class="buttons">
      ${cursors.length > 0 &&
      html`<button type="button" class="quiet" onClick=${() => setCursors(cursors.slice(0, -1))}>Previous page</button>`}
      ${value?.next &&
      html`<button type="button" class="quiet" onClick=${() => setCursors([...cursors, value.next])}>Next page</button>`}
    </p>
  `;
}

const Select = ({ id, label, options, value, onChange }) => html`<div>
  <label for=${id}>${label}</label>
  <select id=${id} value=${value} onChange=${onChange}>
    <option value="">all</option>
    ${options.map((option) => html`<option value=${option}>${option}</option>`)}
  </select>
</div>`;

function Details({ id }) {
  const { value, problem, reload } = useLoaded(() => get(`/dead-letters/${part(id)}`), [id]);
  const [isDiscarding, setDiscarding] = useState(false);
  if (problem) return html`<${Back} /><${Failure} problem=${problem} />`;
  if (value === null) return html`<${Loading} />`;
  const retry = async () => {
    await post(`/dead-letters/${part(id)}/retry`);
    report(`The retry of ${id} is requested. The worker deletes the dead letter if it can apply the event.`);
  };
  const discard = async () => {
    await post(`/dead-letters/${part(id)}/discard`);
    report(`${id} is discarded. The projection skips its event.`);
    reload();
  };
  const isDiscarded = value.state === "discarded";
  return html`
    <${Back} />
    <h2>${id}</h2>
    <dl class="details">
      <div><dt>State</dt><dd><${Badge} state=${value.state} /></dd></div>
      <div><dt>Error</dt><dd>${value.error}</dd></div>
      <div><dt>Since</dt><dd>${time(value.parked_at)}</dd></div>
      <div><dt>Tries</dt><dd>${count(value.tries)}</dd></div>
      <div>
        <dt>Session</dt>
        <dd><a href=${`#/sessions/${part(value.session_id)}`}>${value.session_id}</a>, event ${count(value.sequence)}</dd>
      </div>
      <div><dt>Event</dt><dd>${value.event.type}, version ${value.event.version}</dd></div>
    </dl>
    <div class="buttons">
      <${ActionButton} label="Retry" about=${id} disabled=${isDiscarded} onAct=${retry} />
      <${ActionButton} label="Discard…" about=${id} danger disabled=${isDiscarded} onAct=${() => setDiscarding(true)} />
      <button type="button" class="quiet" onClick=${reload}>Refresh</button>
    </div>
    <h2>Event as stored</h2>
    <${Json} label="Payload of the event" text=${json(value.event.payload)} />
    ${isDiscarding &&
    html`<${Confirm}
      title=${`Discard ${id}?`}
      confirm="Discard permanently"
      danger
      onConfirm=${discard}
      onClose=${() => setDiscarding(false)}
    >
      <p>The projection skips this event permanently, also in replays. The log keeps the event.</p>
    <//>`}
  `;
}

const Back = () => html`<p><a href="#/dead-letters">All dead letters</a></p>`;
