// The stream of live snapshots (`GET live`), and the series that charts show.
//
// EventSource cannot send the token in a header, so this reads the response of a fetch. A
// stream ends after a minute, and the next one begins a second later. Hidden tabs follow
// nothing: browsers open at most six connections to a host, and each stream takes one.

import { Problem, access, send } from "./api.js";
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

/** Follows the stream until the operator signs out. */
export async function follow() {
  let retry = MIN_RETRY_MS;
  snapshot.set(null);
  points.set([]);
  while (access.get() !== null) {
    await visible();
    try {
      await readStream(() => {
        retry = MIN_RETRY_MS;
        connection.set("connected");
      });
    } catch (error) {
      if (error instanceof Problem && error.status === 401) return;
      if (!document.hidden) connection.set("interrupted");
    }
    await new Promise((resolve) => setTimeout(resolve, retry));
    retry = connection.get() === "connected" ? MIN_RETRY_MS : Math.min(2 * retry, MAX_RETRY_MS);
  }
}

/** Waits until the tab is visible. */
async function visible() {
  while (document.hidden) {
    await new Promise((resolve) => {
      document.addEventListener("visibilitychange", resolve, { once: true });
    });
  }
}

async function readStream(onSnapshot) {
  const stop = new AbortController();
  const unsubscribe = access.subscribe((value) => value === null && stop.abort());
  const onVisibility = () => document.hidden && stop.abort();
  document.addEventListener("visibilitychange", onVisibility);
  try {
    const response = await send("GET", "/live", { signal: stop.signal });
    const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
    let text = "";
    for (;;) {
      const { done, value } = await reader.read();
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
    unsubscribe();
    document.removeEventListener("visibilitychange", onVisibility);
    stop.abort();
  }
}

function add(next) {
  const previous = snapshot.get();
  snapshot.set(next);
  if (previous !== null) {
    points.set([...points.get(), point(previous, next)].slice(-MAX_POINTS));
  }
}

/** The rates between two snapshots, and the values of the second one. */
function point(previous, next) {
  const seconds = Math.max((Date.parse(next.at) - Date.parse(previous.at)) / 1000, 0.001);
  // The stream may come from another process than before: counts then begin again.
  const rate = (read) => {
    const [before, after] = [read(previous), read(next)];
    if (before === undefined || after === undefined || after < before) return null;
    return (after - before) / seconds;
  };
  const lag = Object.fromEntries(
    (next.log?.projections ?? []).map(({ name, lag_seconds }) => [name, lag_seconds]),
  );
  const buckets = bucketsBetween(previous.process.durations, next.process.durations);
  return {
    time: Date.parse(next.at) / 1000,
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
