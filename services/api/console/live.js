// The stream of live snapshots (`GET live`), and the series that charts show.
//
// EventSource cannot send the token in a header, so this reads the response of a fetch. A
// stream ends after a minute, and the next one begins a second later. Hidden tabs follow
// nothing: browsers open at most six connections to a host, and each stream takes one.

import { access, send } from "./api.js";
import { store } from "./store.js";

/** Points of the charts: five minutes. */
const MAX_POINTS = 300;

const MIN_RETRY_MS = 1_000;
const MAX_RETRY_MS = 10_000;

/** The newest snapshot; null before the first one. */
export const snapshot = store(null);

/** The points of the charts, oldest first. */
export const points = store([]);

/** "connecting", "connected" or "interrupted". */
export const connection = store("connecting");

/** Follows the stream until the operator signs out, which ends it at once. */
export async function follow() {
  const signedOut = new AbortController();
  const unsubscribe = access.subscribe((value) => {
    if (value !== null) return;
    unsubscribe();
    signedOut.abort();
    clear();
  });
  const { signal } = signedOut;
  let retry = MIN_RETRY_MS;
  clear();
  while (!signal.aborted) {
    await visible();
    try {
      await readStream(signal, () => {
        retry = MIN_RETRY_MS;
        connection.set("connected");
      });
    } catch {
      if (signal.aborted) return;
      if (!document.hidden) connection.set("interrupted");
    }
    await new Promise((resolve) => setTimeout(resolve, retry));
    retry = connection.get() === "connected" ? MIN_RETRY_MS : Math.min(2 * retry, MAX_RETRY_MS);
  }
}

function clear() {
  snapshot.set(null);
  points.set([]);
  connection.set("connecting");
}

/** Waits until the tab is visible. */
async function visible() {
  while (document.hidden) {
    await new Promise((resolve) => {
      document.addEventListener("visibilitychange", resolve, { once: true });
    });
  }
}

async function readStream(signedOut, onSnapshot) {
  const hidden = new AbortController();
  const signal = AbortSignal.any([signedOut, hidden.signal]);
  const onVisibility = () => document.hidden && hidden.abort();
  document.addEventListener("visibilitychange", onVisibility);
  try {
    const response = await send("GET", "/live", { signal });
    const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
    let text = "";
    for (;;) {
      const { done, value } = await reader.read();
      signal.throwIfAborted();
      if (done) return;
      text += value;
      const events = text.split("\n\n");
      text = events.pop();
      for (const event of events) {
        const data = event.split("\n").filter((line) => line.startsWith("data: "));
        if (data.length === 0) continue;
        add(JSON.parse(data.map((line) => line.slice(6)).join("\n")));
        onSnapshot();
      }
    }
  } finally {
    document.removeEventListener("visibilitychange", onVisibility);
    hidden.abort();
  }
}

function add(next) {
  const previous = snapshot.get();
  snapshot.set(next);
  if (previous === null) return;
  const added = point(previous, next);
  // The clock of another process can be behind, and the axis of a chart only ascends.
  if (added.time <= (points.get().at(-1)?.time ?? 0)) return;
  points.set([...points.get(), added].slice(-MAX_POINTS));
}

/** The rates between two snapshots, and the values of the second one. */
function point(previous, next) {
  // Behind a load balancer the stream may come from another process than before. The counts
  // of two processes have no difference, and their clocks differ.
  const isSameProcess = previous.process.name === next.process.name;
  const seconds = Math.max((Date.parse(next.at) - Date.parse(previous.at)) / 1000, 0.001);
  const rate = (read) => {
    const [before, after] = [read(previous), read(next)];
    if (!isSameProcess || before === undefined || after === undefined || after < before) return null;
    return (after - before) / seconds;
  };
  const lag = Object.fromEntries(
    (next.log?.projections ?? []).map(({ name, lag_seconds }) => [name, lag_seconds]),
  );
  const buckets = isSameProcess ? bucketsBetween(previous.process.durations, next.process.durations) : [];
  return {
    time: Date.parse(next.at) / 1000,
    process: next.process.name,
    events: rate((one) => one.log?.head),
    requests: rate((one) => one.process.requests),
    errors: rate((one) => one.process.server_errors),
    p50: quantile(buckets, 0.5),
    p99: quantile(buckets, 0.99),
    lag,
  };
}

function bucketsBetween(before, after) {
  return after.map(({ seconds, requests }, index) => ({
    seconds,
    requests: Math.max(requests - (before[index]?.requests ?? 0), 0),
  }));
}

/**
 * A quantile of cumulative buckets, in milliseconds. Assumes that durations are spread evenly
 * within a bucket. Null without requests; the largest bound for those above it.
 */
export function quantile(buckets, wanted) {
  const total = buckets.at(-1)?.requests ?? 0;
  if (total === 0) return null;
  const rank = wanted * total;
  let [lower, below] = [0, 0];
  for (const { seconds, requests } of buckets) {
    if (seconds === null) break;
    if (requests >= rank) {
      const part = requests > below ? (rank - below) / (requests - below) : 1;
      return 1000 * (lower + part * (seconds - lower));
    }
    [lower, below] = [seconds, requests];
  }
  return 1000 * lower;
}
