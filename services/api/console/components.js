// Parts that several pages share. Texts of actions and errors appear in one status region,
// which screen readers announce.

import { access } from "./api.js";
import { store, useStore } from "./store.js";
import { html, useEffect, useRef, useState } from "./vendor/htm-preact.js";

/** The result of the last action: `{ text, failed }`, or null. */
const message = store(null);

export const report = (text) => message.set({ text, failed: false });
export const reportFailure = (problem) => {
  const id = problem.requestId ? ` (request ${problem.requestId})` : "";
  message.set({ text: `${problem.message}${id}`, failed: true });
};
export const clearMessage = () => message.set(null);

/** The region of results. It is always present, so that screen readers announce changes. */
export function Messages() {
  const shown = useStore(message);
  return html`<div class="messages" role="status">
    ${shown &&
    html`<p class=${shown.failed ? "message failed" : "message"}>
      <span>${shown.failed ? "Failed: " : ""}${shown.text}</span>
      <button type="button" class="quiet" onClick=${clearMessage}>Dismiss</button>
    </p>`}
  </div>`;
}

/** Whether the token allows actions. */
export const useMayAct = () => useStore(access)?.may_act === true;

export const READ_ONLY_NOTE = "read-only-note";

/**
 * A button for an action. Without the right to act it stays focusable, so that the keyboard
 * and screen readers reach its explanation.
 */
export function ActionButton({ label, about, danger, onAct, disabled }) {
  const mayAct = useMayAct();
  const [busy, setBusy] = useState(false);
  const off = !mayAct || busy || disabled;
  const act = async () => {
    if (off) return;
    setBusy(true);
    try {
      await onAct();
    } catch (problem) {
      reportFailure(problem);
    } finally {
      setBusy(false);
    }
  };
  return html`<button
    type="button"
    class=${danger ? "danger" : ""}
    aria-disabled=${off ? "true" : null}
    aria-describedby=${mayAct ? null : READ_ONLY_NOTE}
    aria-label=${about ? `${label} ${about}` : null}
    onClick=${act}
  >
    ${label}
  </button>`;
}

/** A modal question. `onConfirm` runs the action; Escape and Cancel close the dialog. */
export function Confirm({ title, children, confirm, danger, disabled, onConfirm, onClose }) {
  const dialog = useRef(null);
  useEffect(() => {
    dialog.current.showModal();
  }, []);
  const act = async () => {
    if (disabled) return;
    dialog.current.close();
    try {
      await onConfirm();
    } catch (problem) {
      reportFailure(problem);
    }
  };
  return html`<dialog ref=${dialog} aria-labelledby="confirm-title" onClose=${onClose}>
    <h2 id="confirm-title">${title}</h2>
    ${children}
    <div class="buttons">
      <button
        type="button"
        class=${danger ? "danger" : ""}
        aria-disabled=${disabled ? "true" : null}
        onClick=${act}
      >
        ${confirm}
      </button>
      <button type="button" class="quiet" onClick=${() => dialog.current.close()}>Cancel</button>
    </div>
  </dialog>`;
}

/** A table with a caption. `columns` are `{ name, number }`; `rows` are arrays of cells. */
export function Table({ caption, columns, rows, empty }) {
  if (rows.length === 0) return html`<p class="empty">${empty}</p>`;
  return html`<div class="table" role="region" aria-label=${caption} tabindex="0">
    <table>
      <caption>${caption}</caption>
      <thead>
        <tr>
          ${columns.map(
            ({ name, number }) => html`<th scope="col" class=${number ? "number" : ""}>${name}</th>`,
          )}
        </tr>
      </thead>
      <tbody>
        ${rows.map(
          ({ key, cells }) => html`<tr key=${key}>
            ${cells.map((cell, index) => {
              const kind = columns[index].number ? "number" : "";
              return index === 0
                ? html`<th scope="row" class=${kind}>${cell}</th>`
                : html`<td class=${kind}>${cell}</td>`;
            })}
          </tr>`,
        )}
      </tbody>
    </table>
  </div>`;
}

const TONES = {
  running: "good",
  succeeded: "good",
  connected: "good",
  parked: "bad",
  failing: "bad",
  failed: "bad",
  stopped: "bad",
  interrupted: "bad",
  paused: "warn",
  waiting: "warn",
  started: "warn",
  requested: "warn",
  standby: "warn",
};

/** A state. Its text carries the meaning; the colour repeats it. */
export const Badge = ({ state, tone }) =>
  html`<span class=${`badge ${tone ?? TONES[state] ?? ""}`}>${state}</span>`;

/** Loads a value when the page opens, and again with `reload`. */
export function useLoaded(load, dependencies) {
  const [state, setState] = useState({ value: null, problem: null });
  const [version, setVersion] = useState(0);
  useEffect(() => {
    let current = true;
    load().then(
      (value) => current && setState({ value, problem: null }),
      (problem) => current && setState({ value: null, problem }),
    );
    return () => {
      current = false;
    };
  }, [...dependencies, version]);
  return { ...state, reload: () => setVersion((n) => n + 1) };
}

/** A problem of a page that has nothing else to show. */
export const Failure = ({ problem }) => html`<p class="message failed" role="alert">${problem.message}</p>`;

export const Loading = () => html`<p class="empty">Loading…</p>`;

/** A JSON value in full. */
export const Json = ({ label, text }) =>
  html`<pre role="region" aria-label=${label} tabindex="0">${text}</pre>`;
