// The console: sign-in, navigation and the page of the current address.

import { access, restore, signIn, signOut, signedOutBecause } from "./api.js";
import { Failure, Loading, Messages, READ_ONLY_NOTE, Badge, clearMessage } from "./components.js";
import { time } from "./format.js";
import { connection, follow } from "./live.js";
import { Audit } from "./pages/audit.js";
import { DeadLetters } from "./pages/dead-letters.js";
import { Jobs } from "./pages/jobs.js";
import { Overview } from "./pages/overview.js";
import { Processes } from "./pages/processes.js";
import { Projections } from "./pages/projections.js";
import { Readers } from "./pages/readers.js";
import { Sessions } from "./pages/sessions.js";
import { useStore } from "./store.js";
import { token } from "./token.js";
import { html, render, useEffect, useRef, useState } from "./vendor/htm-preact.js";

/** The pages by the first part of the address. */
const PAGES = [
  { path: "overview", name: "Overview", page: Overview },
  { path: "projections", name: "Projections", page: Projections },
  { path: "dead-letters", name: "Dead letters", page: DeadLetters },
  { path: "jobs", name: "Jobs", page: Jobs },
  { path: "sessions", name: "Session timeline", page: Sessions },
  { path: "readers", name: "Readers", page: Readers },
  { path: "processes", name: "Processes and leases", page: Processes },
  { path: "audit", name: "Audit", page: Audit },
];

/** The address after `#`: the page, and an id for some pages. */
function useRoute() {
  const parse = () => {
    const [path, id] = location.hash.replace(/^#\/?/, "").split("/");
    const known = PAGES.find((page) => page.path === path) ?? PAGES[0];
    return { ...known, id: id ? decoded(id) : null };
  };
  const [route, setRoute] = useState(parse);
  useEffect(() => {
    const onChange = () => {
      clearMessage();
      setRoute(parse());
    };
    addEventListener("hashchange", onChange);
    return () => removeEventListener("hashchange", onChange);
  }, []);
  return route;
}

function decoded(part) {
  try {
    return decodeURIComponent(part);
  } catch {
    return part;
  }
}

function SignIn() {
  const reason = useStore(signedOutBecause);
  const [problem, setProblem] = useState(null);
  const [busy, setBusy] = useState(false);
  const input = useRef(null);
  useEffect(() => {
    document.title = "Sign in · Reading Sessions console";
    input.current.focus();
  }, []);
  const submit = async (event) => {
    event.preventDefault();
    const pasted = input.current.value.trim();
    if (busy || pasted === "") return;
    setBusy(true);
    setProblem(null);
    try {
      await signIn(pasted);
    } catch (failure) {
      setBusy(false);
      setProblem(failure);
      input.current.value = "";
      input.current.focus();
    }
  };
  return html`<main class="sign-in">
    <h1>Reading Sessions console</h1>
    ${reason && html`<p class="message failed" role="alert">You are signed out: ${reason}</p>`}
    <form onSubmit=${submit}>
      <label for="token">Token of an operator</label>
      <input
        id="token"
        ref=${input}
        type="password"
        autocomplete="off"
        spellcheck="false"
        required
        aria-describedby="token-help"
      />
      <p id="token-help" class="help">
        A token with the scope <code>reading:admin:read</code> may look; one with${" "}
        <code>reading:admin</code> or <code>is_admin</code> may act too. This tab keeps the token until
        it is closed.
      </p>
      ${problem && html`<${Failure} problem=${problem} />`}
      <button type="submit" aria-disabled=${busy ? "true" : null}>Sign in</button>
    </form>
  </main>`;
}

function Console() {
  const { may_act, subject, expires_at } = useStore(access);
  const state = useStore(connection);
  const { page: Page, path, name, id } = useRoute();
  const heading = useRef(null);
  const isFirst = useRef(true);
  useEffect(() => {
    void follow();
  }, []);
  useEffect(() => {
    document.title = `${name} · Reading Sessions console`;
    // A screen reader continues at the new page, not at the link.
    if (!isFirst.current) heading.current.focus();
    isFirst.current = false;
  }, [path, id]);
  return html`
    <a
      class="skip"
      href="#content"
      onClick=${(event) => {
        event.preventDefault();
        heading.current.focus();
      }}
      >Skip to the content</a
    >
    <header>
      <p class="product">Reading Sessions</p>
      <p class="who">
        <span>${subject}, until ${time(expires_at)}</span>
        <span role="status">Live updates <${Badge} state=${state} /></span>
        <button type="button" class="quiet" onClick=${() => signOut()}>Sign out</button>
      </p>
    </header>
    <nav aria-label="Pages">
      <ul>
        ${PAGES.map(
          (page) => html`<li>
            <a href=${`#/${page.path}`} aria-current=${page.path === path ? "page" : null}>${page.name}</a>
          </li>`,
        )}
      </ul>
    </nav>
    <main id="content">
      <h1 tabindex="-1" ref=${heading}>${name}</h1>
      ${!may_act &&
      html`<p id=${READ_ONLY_NOTE} class="note">
        Your token may look only. Actions need the scope <code>reading:admin</code>.
      </p>`}
      <${Messages} />
      <${Page} id=${id} key=${`${path}/${id}`} />
    </main>
  `;
}

/** The pause before another attempt to sign in after a reload. */
const RESTORE_RETRY_MS = 3000;

function App() {
  const [isRestoring, setRestoring] = useState(token.get() !== null);
  const signedIn = useStore(access) !== null;
  useEffect(() => {
    if (!isRestoring) return;
    // The tab has a token from before a reload. An outage must not remove it.
    let timer;
    const attempt = () =>
      restore().then(
        () => setRestoring(false),
        (problem) => {
          if (problem.status === 401 || problem.status === 403) {
            signOut(problem.message);
            setRestoring(false);
          } else {
            timer = setTimeout(attempt, RESTORE_RETRY_MS);
          }
        },
      );
    attempt();
    return () => clearTimeout(timer);
  }, []);
  if (signedIn) return html`<${Console} />`;
  return isRestoring ? html`<${Loading} />` : html`<${SignIn} />`;
}

render(html`<${App} />`, document.getElementById("console"));
