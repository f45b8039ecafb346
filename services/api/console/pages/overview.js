// Overview: the newest figures, five minutes of charts, and the latest actions.

import { Chart } from "../chart.js";
import { Badge, Loading } from "../components.js";
import { count, decimal, text, time } from "../format.js";
import { points, snapshot } from "../live.js";
import { useStore } from "../store.js";
import { html, useRef, useState } from "../vendor/htm-preact.js";

const milliseconds = (value) => (value === null ? "–" : `${decimal(value)} ms`);
const perSecond = (value) => (value === null ? "–" : `${decimal(value)}/s`);
const seconds = (value) => (value === null ? "–" : `${decimal(value)} s`);

export function Overview() {
  const live = { now: useStore(snapshot), series: useStore(points) };
  const [isPaused, setPaused] = useState(false);
  // Values that change all the time can be stopped for reading.
  const shown = useRef(live);
  if (!isPaused) shown.current = live;
  const { now, series } = shown.current;
  if (now === null) return html`<${Loading} />`;
  return html`
    <p class="buttons">
      <button type="button" aria-pressed=${isPaused ? "true" : "false"} onClick=${() => setPaused(!isPaused)}>
        ${isPaused ? "Resume updates" : "Pause updates"}
      </button>
      <span class="help">Last update ${time(now.at)}</span>
    </p>
    ${now.error !== null && html`<p class="message failed" role="alert">${now.error}.</p>`}
    <${Figures} now=${now} newest=${series.at(-1)} />
    <${Charts} now=${now} series=${series} />
    <${Actions} actions=${now.log?.actions ?? null} />
  `;
}

function Figures({ now, newest }) {
  const { log, process } = now;
  const letters = log?.projections.reduce((sum, { dead_letters }) => sum + dead_letters, 0);
  const lag = log && Math.max(...log.projections.map(({ lag_seconds }) => lag_seconds));
  const figures = [
    ["Global position", count(log?.head)],
    ["Events appended", perSecond(newest?.events ?? null)],
    ["Largest projection lag", seconds(lag ?? null)],
    ["Dead letters", html`<a href="#/dead-letters">${count(letters)}</a>`],
    ["Relay", html`<${Relay} relay=${process.relay} head=${log?.head} />`],
    ...process.pools
      .filter(({ name }) => name === "api" || name === "jobs")
      .map(({ name, in_use, max }) => [`Pool ${name}`, `${count(in_use)} of ${count(max)} in use`]),
  ];
  return html`<section aria-label="Figures">
    <h2>Now</h2>
    <p class="help">Relay and pools: process <code>${process.name}</code>. The other figures: the whole service.</p>
    <dl class="figures">
      ${figures.map(([name, value]) => html`<div><dt>${name}</dt><dd>${value}</dd></div>`)}
    </dl>
  </section>`;
}

/** The relay of the process that sends the stream. Others are on the page of processes. */
function Relay({ relay, head }) {
  if (relay === null) return html`<a href="#/processes">in another process</a>`;
  if (!relay.leads || relay.position === null) return html`<${Badge} state="standby" />`;
  const behind = Math.max((head ?? relay.position) - relay.position, 0);
  return behind === 0 ? "has published everything" : `${count(behind)} positions behind`;
}

function Charts({ now, series }) {
  const times = series.map(({ time }) => time);
  const { name: process } = now.process;
  const values = (read) => series.map(read);
  // A line must not continue with the values of another process.
  const ownValues = (read) => series.map((point) => (point.process === process ? read(point) : null));
  const names = (now.log?.projections ?? []).map(({ name }) => name);
  const hasRequests = now.process.durations.length > 0;
  return html`<section aria-label="Charts">
    <h2>Last five minutes</h2>
    <div class="charts">
      <${Chart}
        title="Events appended to the log"
        times=${times}
        format=${perSecond}
        series=${[{ label: "events", values: values(({ events }) => events) }]}
      />
      <${Chart}
        title="Lag of the projections"
        times=${times}
        format=${seconds}
        series=${names.map((name) => ({ label: name, values: values(({ lag }) => lag[name] ?? null) }))}
      />
      ${hasRequests &&
      html`<${Chart}
          title=${`Requests of client apps, process ${process}`}
          times=${times}
          format=${perSecond}
          series=${[
            { label: "all", values: ownValues(({ requests }) => requests) },
            { label: "with 5xx", values: ownValues(({ errors }) => errors) },
          ]}
        />
        <${Chart}
          title=${`Duration of requests, process ${process}`}
          times=${times}
          format=${milliseconds}
          series=${[
            { label: "p50", values: ownValues(({ p50 }) => p50) },
            { label: "p99", values: ownValues(({ p99 }) => p99) },
          ]}
        />`}
    </div>
  </section>`;
}

function Actions({ actions }) {
  if (actions === null) return null;
  return html`<section aria-label="Latest actions">
    <h2>Latest actions</h2>
    ${actions.length === 0
      ? html`<p class="empty">No actions yet.</p>`
      : html`<ol class="actions">
          ${actions.map(
            ({ id, at, actor, action, target, outcome }) => html`<li key=${id}>
              <span>${time(at)}</span> <strong>${action}</strong> ${text(target)}
              <${Badge} state=${outcome} /> <span class="help">by ${actor}</span>
            </li>`,
          )}
        </ol>`}
  </section>`;
}
