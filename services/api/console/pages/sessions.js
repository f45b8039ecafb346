// The timeline of a session: its events, and its state after each of them.

import { get, part } from "../api.js";
import { Failure, Json, Loading, useLoaded } from "../components.js";
import { IdForm } from "./id-form.js";
import { count, json, time } from "../format.js";
import { html, useState } from "../vendor/htm-preact.js";

export function Sessions({ id }) {
  return html`
    <${IdForm} page="sessions" label="Id of the session" id=${id} />
    ${id !== null && html`<${Timeline} id=${id} />`}
  `;
}

function Timeline({ id }) {
  // The sequences after which the pages before this one began.
  const [afters, setAfters] = useState([]);
  const after = afters.at(-1);
  const { value, problem } = useLoaded(() => get(`/sessions/${part(id)}`, { after }), [id, after]);
  if (problem) return html`<${Failure} problem=${problem} />`;
  if (value === null) return html`<${Loading} />`;
  const reader = value.events.map(({ state }) => state?.user_id).find((found) => found !== undefined);
  return html`
    <h2>Events</h2>
    ${reader && html`<p>Reader <a href=${`#/readers/${part(reader)}`}>${reader}</a></p>`}
    <ol class="timeline" start=${value.events[0]?.sequence ?? 1}>
      ${value.events.map((event) => html`<${TimelineEvent} key=${event.sequence} event=${event} />`)}
    </ol>
    <p class="buttons">
      ${afters.length > 0 &&
      html`<button type="button" class="quiet" onClick=${() => setAfters(afters.slice(0, -1))}>Earlier events</button>`}
      ${value.next !== null &&
      html`<button type="button" class="quiet" onClick=${() => setAfters([...afters, value.next])}>Later events</button>`}
    </p>
  `;
}

function TimelineEvent({ event }) {
  const { sequence, type, version, recorded_at, global_position, payload, state, error } = event;
  return html`<li>
    <details>
      <summary>
        <strong>${type}</strong> <span>recorded ${time(recorded_at)}</span> <span>${summary(state, error)}</span>
      </summary>
      <p class="help">Event ${count(sequence)}, version ${version}, global position ${count(global_position)}</p>
      <div class="columns">
        <section aria-label=${`Event ${sequence}`}>
          <h3>Event</h3>
          <${Json} label=${`Payload of event ${sequence}`} text=${json(payload)} />
        </section>
        <section aria-label=${`State after event ${sequence}`}>
          <h3>State after it</h3>
          ${state === null
            ? html`<p class="empty">${error ?? "The session is erased, or an earlier event cannot be decoded."}</p>`
            : html`<${Json} label=${`Session after event ${sequence}`} text=${json(state)} />`}
        </section>
      </div>
    </details>
  </li>`;
}

function summary(state, error) {
  if (error !== null) return `cannot be decoded: ${error}`;
  if (state === null) return "no state";
  const standing = state.is_active ? "active" : `ended (${state.end_reason})`;
  return `${standing}, at ${state.end_position} %, ${count(state.active_seconds)} s of reading`;
}
