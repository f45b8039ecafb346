// A form for the id of a session or reader. The id becomes part of the address.

import { part } from "../api.js";
import { html, useRef } from "../vendor/htm-preact.js";

const UUID = "[0-9a-fA-F]{8}-([0-9a-fA-F]{4}-){3}[0-9a-fA-F]{12}";

export function IdForm({ page, label, id }) {
  const input = useRef(null);
  const submit = (event) => {
    event.preventDefault();
    location.hash = `#/${page}/${part(input.current.value.trim())}`;
  };
  return html`<form class="filters" role="search" onSubmit=${submit}>
    <div>
      <label for="id">${label}</label>
      <input id="id" ref=${input} defaultValue=${id ?? ""} required pattern=${UUID} size="40" spellcheck="false" autocomplete="off" title="A UUID with hyphens" />
    </div>
    <button type="submit">Show</button>
  </form>`;
}
