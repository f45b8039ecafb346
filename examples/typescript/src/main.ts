// A reader's evening. Prints each step, and fails if a response differs from the
// documented behaviour.

import assert from "node:assert/strict";
import { client, unwrap, type Session } from "./client.js";

const { BASE_URL, TOKEN } = process.env;
assert(BASE_URL && TOKEN, "set BASE_URL, for example http://127.0.0.1:8080, and TOKEN");
const { api, readYourWrites } = client(BASE_URL, TOKEN);

const BOOK = crypto.randomUUID();

async function start(startPosition: number): Promise<Session> {
  return unwrap(
    await api.POST("/api/v1/reading-sessions/start", {
      body: {
        book_id: BOOK,
        start_position: startPosition,
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

const updated = unwrap(
  await api.PUT("/api/v1/reading-sessions/{id}/update", {
    params: { path },
    body: { current_position: 12.5, locator: "epubcfi(/6/14!/4/2/8:0)" },
  }),
);
console.log(`Updated the position to ${updated.end_position} %: ${updated.pages_read} pages read`);
assert.equal(updated.applied, true);
assert.equal(updated.pages_read, 20);

const batch = unwrap(
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
console.log(`Sent a batch of three positions: ${batch.success_count} applied. ${batch.errors[0]}`);
assert.deepEqual([batch.success_count, batch.failed_count], [2, 1]);

const active = unwrap(
  await api.GET("/api/v1/reading-sessions/active", { params: { query: readYourWrites() } }),
);
console.log(`The active session is at ${active?.end_position} %`);
assert.equal(active?.id, session.id);
assert.equal(active.end_position, 20);

// A client that does not receive a response repeats the command with the same key.
const end = () =>
  api.PUT("/api/v1/reading-sessions/{id}/end", {
    params: { path, header: { "Idempotency-Key": `end-${session.id}` } },
    body: { end_position: 25 },
  });
const first = await end();
const second = await end();
console.log(`Ended at ${unwrap(first).end_position} %; a retry got the same response`);
assert.equal(first.response.headers.get("Idempotent-Replayed"), null);
assert.equal(second.response.headers.get("Idempotent-Replayed"), "true");
assert.deepEqual(unwrap(second), unwrap(first));

const late = await api.PUT("/api/v1/reading-sessions/{id}/update", {
  params: { path },
  body: { current_position: 30 },
});
console.log(`An update after the end was rejected: ${late.error?.detail}`);
assert.equal(late.response.status, 400);
assert.equal(late.error?.code, "session_inactive");

for (const position of [25, 30, 35, 40]) {
  await start(position);
}
const sessions: Session[] = [];
let cursor: string | null = null;
do {
  const page: { sessions: Session[]; next_cursor: string | null; total: number } = unwrap(
    await api.GET("/api/v1/reading-sessions/history", {
      params: {
        query: { ...readYourWrites(), book_id: BOOK, page_size: 2, ...(cursor && { cursor }) },
      },
    }),
  );
  console.log(`History page: ${page.sessions.length} of ${page.total} sessions`);
  sessions.push(...page.sessions);
  cursor = page.next_cursor;
} while (cursor !== null);
assert.deepEqual(
  sessions.map((listed) => [listed.start_position, listed.end_reason]),
  [[40, null], [35, "superseded"], [30, "superseded"], [25, "superseded"], [10, "finished"]],
);

const week = unwrap(
  await api.GET("/api/v1/reading-sessions/stats/weekly", { params: { query: readYourWrites() } }),
);
const today = week.days[0];
console.log(`Today (${today?.day}): ${today?.sessions} sessions, ${today?.progress} % progress`);
assert.equal(week.days.length, 7);
assert(today && today.sessions >= 5 && today.progress >= 15);

console.log("All responses were as documented.");
