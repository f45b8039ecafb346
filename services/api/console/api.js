// Calls of the admin API. No other module sends requests, except live.js.

import { store } from "./store.js";
import { token } from "./token.js";

const API = "/api/v1/admin";

/** What the token allows (`GET access`); null before the sign-in. */
export const access = store(null);

/** Why the operator was signed out; null if there is no reason to show. */
export const signedOutBecause = store(null);

/** An error response, or a request without a response. */
export class Problem extends Error {
  constructor({ status, code, detail, request_id }) {
    super(detail);
    this.status = status;
    this.code = code;
    this.requestId = request_id;
  }
}

export function signOut(reason) {
  token.clear();
  access.set(null);
  signedOutBecause.set(reason ?? null);
}

/** Signs in with a pasted token. Fails with a Problem if it does not allow the console. */
export async function signIn(pasted) {
  token.set(pasted);
  try {
    await restore();
  } catch (problem) {
    token.clear();
    throw problem;
  }
}

/** Signs in with the token of the tab. An outage does not remove the token. */
export async function restore() {
  access.set(await get("/access"));
  signedOutBecause.set(null);
}

/** Sends a request with the token. Returns the response if its status is a success. */
export async function send(method, path, { query = {}, signal } = {}) {
  const given = Object.entries(query).filter(([, value]) => value !== undefined && value !== "");
  const search = given.length > 0 ? `?${new URLSearchParams(given)}` : "";
  let response;
  try {
    response = await fetch(`${API}${path}${search}`, {
      method,
      signal,
      headers: { authorization: `Bearer ${token.get()}` },
      cache: "no-store",
      credentials: "omit",
      redirect: "error",
    });
  } catch (error) {
    if (signal?.aborted) throw error;
    throw new Problem({ status: 0, code: "unreachable", detail: "The service cannot be reached." });
  }
  if (response.ok) return response;
  const problem = new Problem(await problemOf(response));
  if (problem.status === 401 && access.get() !== null) signOut(problem.message);
  throw problem;
}

async function problemOf(response) {
  const { status } = response;
  try {
    return { ...(await response.json()), status };
  } catch {
    return { status, code: "unknown", detail: `The service responded with status ${status}.` };
  }
}

export const get = async (path, query) => (await send("GET", path, { query })).json();
export const post = async (path, query) => (await send("POST", path, { query })).json();
export const remove = async (path, query) => (await send("DELETE", path, { query })).json();

/** An id or a name as a part of a path. */
export const part = encodeURIComponent;
