// A client of the Reading Sessions API. Its types are generated from the OpenAPI
// document. This file adds the token, an idempotency key for every command, and
// retries.

import createClient, { type Middleware } from "openapi-fetch";
import type { components, paths } from "./schema.js";

export type Session = components["schemas"]["Session"];
export type Problem = components["schemas"]["Problem"];

const ATTEMPTS = 5;
const LONGEST_WAIT_MS = 60_000;

/** A client for one reader. */
export function client(baseUrl: string, token: string) {
  const api = createClient<paths>({ baseUrl, fetch: fetchWithRetry });
  let position: number | undefined;
  const middleware: Middleware = {
    onRequest({ request }) {
      request.headers.set("Authorization", `Bearer ${token}`);
      // All attempts use the same key, so the command takes effect only once.
      if (request.method !== "GET" && !request.headers.has("Idempotency-Key")) {
        request.headers.set("Idempotency-Key", crypto.randomUUID());
      }
    },
    onResponse({ response }) {
      const header = response.headers.get("X-Global-Position");
      position = header === null ? position : Number(header);
    },
  };
  api.use(middleware);
  /** Query parameters that make a query include the effect of the last command. */
  const readYourWrites = () => (position === undefined ? {} : { min_position: position });
  return { api, readYourWrites };
}

/** An error response of the API. Match `problem.code`; `problem.detail` is for people. */
export class ProblemError extends Error {
  constructor(readonly problem: Problem) {
    super(`${problem.status} ${problem.title}: ${problem.detail} (request ${problem.request_id})`);
  }
}

/** Returns the data of a successful response; throws `ProblemError` otherwise. */
export function unwrap<T>(response: { data?: T; error?: Problem }): T {
  if (response.error !== undefined) {
    throw new ProblemError(response.error);
  }
  return response.data as T;
}

/**
 * Calls `fetch`, and retries after network errors and after responses with
 * `Retry-After`. Retries are safe: every request is a query or has a key.
 */
async function fetchWithRetry(request: Request): Promise<Response> {
  for (let attempt = 1; ; attempt++) {
    const isLast = attempt === ATTEMPTS;
    let wait: number | undefined;
    try {
      const response = await fetch(request.clone());
      wait = retryAfter(response);
      if (isLast || wait === undefined) {
        return response;
      }
      await response.body?.cancel();
    } catch (error) {
      if (isLast) {
        throw error;
      }
    }
    // Jitter keeps rejected clients from retrying all at once.
    wait ??= 100 * 2 ** attempt;
    wait *= 1 + Math.random() / 2;
    await new Promise((resolve) => setTimeout(resolve, Math.min(wait, LONGEST_WAIT_MS)));
  }
}

/** The value of `Retry-After` in milliseconds. */
function retryAfter(response: Response): number | undefined {
  const seconds = Number(response.headers.get("Retry-After") ?? NaN);
  return Number.isFinite(seconds) ? seconds * 1_000 : undefined;
}
