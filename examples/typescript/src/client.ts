// A client of the Reading Sessions API. The types come from its description;
// here is what they cannot give: the token, keys that make commands safe to
// repeat, and the repeating.

import createClient, { type Middleware } from "openapi-fetch";
import type { components, paths } from "./schema.js";

export type Session = components["schemas"]["Session"];
export type Problem = components["schemas"]["Problem"];

const ATTEMPTS = 5;
const LONGEST_WAIT_MS = 60_000;

/** A client for one reader. */
export function client(baseUrl: string, token: string) {
  const api = createClient<paths>({ baseUrl, fetch: patientFetch });
  let position: number | undefined;
  const middleware: Middleware = {
    onRequest({ request }) {
      request.headers.set("Authorization", `Bearer ${token}`);
      // One key for all attempts: whichever arrives, the command is done once.
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
  /** For queries that must see what the last command did. */
  const fresh = () => (position === undefined ? {} : { min_position: position });
  return { api, fresh };
}

/** An answer that is a problem, thrown by those who do not expect one. */
export class Refused extends Error {
  constructor(readonly problem: Problem) {
    super(`${problem.status} ${problem.title}: ${problem.detail} (request ${problem.request_id})`);
  }
}

/** The data of an answer that should be good. */
export function good<T>(answer: { data?: T; error?: Problem }): T {
  if (answer.error !== undefined) {
    throw new Refused(answer.error);
  }
  return answer.data as T;
}

/**
 * As fetch, and tries again after network errors and whenever the answer says
 * when: all requests here are queries or have a key.
 */
async function patientFetch(request: Request): Promise<Response> {
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
    // Apart from each other, or all who were turned away come back at once.
    wait ??= 100 * 2 ** attempt;
    wait *= 1 + Math.random() / 2;
    await new Promise((resolve) => setTimeout(resolve, Math.min(wait, LONGEST_WAIT_MS)));
  }
}

/** What `Retry-After` asks for, in milliseconds. */
function retryAfter(response: Response): number | undefined {
  const seconds = Number(response.headers.get("Retry-After") ?? NaN);
  return Number.isFinite(seconds) ? seconds * 1_000 : undefined;
}
