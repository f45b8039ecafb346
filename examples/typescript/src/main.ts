// A reader's evening. Prints what it does, and fails when an answer is not as
// the API promises.

import assert from "node:assert/strict";
import { client, good, type Session } from "./client.js";

const { BASE_URL, TOKEN } = process.env;
assert(BASE_URL && TOKEN, "set BASE_URL, for example http://127.0.0.1:8080, and TOKEN");
const { api, fresh } = client(BASE_URL, TOKEN);

const BOOK = crypto.randomUUID();

async function start(at: number): Promise<Session> {
  return good(
    await api.POST("/api/v1/reading-sessions/start", {
      body: {
        book_id: BOOK,
        start_position: at,
        device_type: "tablet",
        time_zone: "Europe/Berlin",
        book: { title: "Middlemarch", author: "George Eliot", total_pages: 800 },
      },
    }),
  );
}

const session = await start(10);
console.log(`Started ${session.book?.title} at ${session.start_position} %`);
assert(session.is_active);
const path = { id: session.id };

const updated = good(
  await api.PUT("/api/v1/reading-sessions/{id}/update", {
    params: { path },
    body: { current_position: 12.5, locator: "epubcfi(/6/14!/4/2/8:0)" },
  }),
);
console.log(`Read on to ${updated.end_position} %, that is ${updated.pages_read} pages`);
assert.equal(updated.applied, true);
assert.equal(updated.pages_read, 20);

const batch = good(
  await api.POST("/api/v1/reading-sessions/batch-update", {
    body: {
      updates: [
        { session_id: session.id, current_position: 15 },
        { session_id: session.id, current_position: 200 },
        { session_id: session.id, current_position: 20 },
      ],
    },
  }),
);
console.log(`Sent three positions at once; ${batch.success_count} were taken. ${batch.errors[0]}`);
assert.deepEqual([batch.success_count, batch.failed_count], [2, 1]);

const active = good(
  await api.GET("/api/v1/reading-sessions/active", { params: { query: fresh() } }),
);
console.log(`The active session is at ${active?.end_position} %`);
assert.equal(active?.id, session.id);
assert.equal(active.end_position, 20);

// What a client does when the answer to its command got lost.
const end = () =>
  api.PUT("/api/v1/reading-sessions/{id}/end", {
    params: { path, header: { "Idempotency-Key": `end-${session.id}` } },
    body: { end_position: 25 },
  });
const first = await end();
const second = await end();
console.log(`Ended at ${good(first).end_position} %, twice with one key: the same answer`);
assert.equal(first.response.headers.get("Idempotent-Replayed"), null);
assert.equal(second.response.headers.get("Idempotent-Replayed"), "true");
assert.deepEqual(good(second), good(first));

const late = await api.PUT("/api/v1/reading-sessions/{id}/update", {
  params: { path },
  body: { current_position: 30 },
});
console.log(`Updated it once more, and was refused: ${late.error?.detail}`);
assert.equal(late.response.status, 400);
assert.equal(late.error?.detail, "Cannot update inactive session");

for (const at of [25, 30, 35, 40]) {
  await start(at);
}
const sessions: Session[] = [];
let cursor: string | null = null;
do {
  const page: { sessions: Session[]; next_cursor: string | null; total: number } = good(
    await api.GET("/api/v1/reading-sessions/history", {
      params: { query: { ...fresh(), book_id: BOOK, page_size: 2, ...(cursor && { cursor }) } },
    }),
  );
  console.log(`A page of the history: ${page.sessions.length} of ${page.total} sessions`);
  sessions.push(...page.sessions);
  cursor = page.next_cursor;
} while (cursor !== null);
assert.deepEqual(
  sessions.map((listed) => [listed.start_position, listed.end_reason]),
  [[40, null], [35, "superseded"], [30, "superseded"], [25, "superseded"], [10, "finished"]],
);

const week = good(
  await api.GET("/api/v1/reading-sessions/stats/weekly", { params: { query: fresh() } }),
);
const today = week.days[0];
console.log(`Today, ${today?.day}: ${today?.sessions} sessions, ${today?.progress} % further`);
assert.equal(week.days.length, 7);
assert(today && today.sessions >= 5 && today.progress >= 15);

console.log("All as promised.");
