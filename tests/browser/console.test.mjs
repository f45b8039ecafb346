// The console in Chromium: every page in both colour schemes, the keyboard, a token that
// may only look, and every kind of action. The tests share a service and run in order.

import assert from "node:assert/strict";
import { mkdirSync, readFileSync } from "node:fs";
import { after, before, test } from "node:test";
import { ADMIN_URL, checkAccessibility, launch, open, signIn, until, visit } from "./browser.mjs";
import { appendUnreadable, liveSnapshot, readerWithSession, withTableInUse } from "./service.mjs";

const { ADMIN_TOKEN, VIEWER_TOKEN, SCREENSHOTS } = process.env;

const PAGES = [
  "Overview",
  "Projections",
  "Dead letters",
  "Jobs",
  "Session timeline",
  "Readers",
  "Processes and leases",
  "Audit",
];

let browser;
let ids;

before(async () => {
  browser = await launch();
  ids = await readerWithSession();
  ids.other = await readerWithSession();
  ids.letter = `history.${await appendUnreadable(ids.session)}`;
});

after(() => browser.close());

/** A test in a tab of its own, signed in with a token. */
function inConsole(name, work, { token = ADMIN_TOKEN, scheme } = {}) {
  test(name, async () => {
    const tab = await open(browser, { scheme });
    await signIn(tab.page, token);
    await work(tab.page, tab);
    await tab.close();
  });
}

async function screenshot(page, name) {
  if (!SCREENSHOTS) return;
  mkdirSync(SCREENSHOTS, { recursive: true });
  await page.screenshot({ path: `${SCREENSHOTS}/${name}.png` });
}

const status = (page) => page.locator(".messages");
const row = (page, name) => page.getByRole("row").filter({ has: page.getByRole("rowheader", { name, exact: true }) });

async function openDetails(page) {
  await page.goto(`${ADMIN_URL}/#/sessions/${ids.session}`);
  await page.locator("summary").first().click();
  await page.getByRole("region", { name: "Session after event 1" }).waitFor();
}

for (const scheme of ["light", "dark"]) {
  test(`sign-in and all pages have no findings of axe-core, ${scheme}`, async () => {
    const tab = await open(browser, { scheme });
    const { page } = tab;
    await page.goto(`${ADMIN_URL}/`);
    await page.getByLabel("Token of an operator").waitFor();
    await checkAccessibility(page, `sign-in, ${scheme}`);
    await signIn(page, ADMIN_TOKEN);
    await page.locator(".uplot canvas").first().waitFor();
    for (const name of PAGES) {
      await visit(page, name);
      await page.getByText("Loading…").waitFor({ state: "detached" });
      await checkAccessibility(page, `${name}, ${scheme}`);
    }
    await openDetails(page);
    await checkAccessibility(page, `timeline, ${scheme}`);
    if (scheme === "light") await screenshot(page, "timeline");
    await page.goto(`${ADMIN_URL}/#/readers/${ids.reader}`);
    await page.getByRole("heading", { name: "Stored data" }).waitFor();
    await page.getByRole("button", { name: "Erase…" }).click();
    await page.getByRole("dialog").waitFor();
    await checkAccessibility(page, `dialog, ${scheme}`);
    await page.goto(`${ADMIN_URL}/#/dead-letters/${ids.letter}`);
    await page.getByRole("heading", { name: ids.letter }).waitFor();
    await checkAccessibility(page, `dead letter, ${scheme}`);
    await tab.close();
  });
}

test("the keyboard reaches the content, and focus follows the navigation", async () => {
  const tab = await open(browser);
  const { page } = tab;
  await page.goto(`${ADMIN_URL}/`);
  await page.getByLabel("Token of an operator").waitFor();
  // The field has the focus already.
  await page.keyboard.insertText(ADMIN_TOKEN);
  await page.keyboard.press("Enter");
  await page.getByRole("heading", { level: 1, name: "Overview" }).waitFor();
  await page.keyboard.press("Tab");
  assert.equal(await page.evaluate(() => document.activeElement.textContent), "Skip to the content");
  await page.keyboard.press("Enter");
  assert.equal(await page.evaluate(() => document.activeElement.tagName), "H1");
  await page.getByRole("link", { name: "Projections", exact: true }).focus();
  await page.keyboard.press("Enter");
  await page.getByRole("heading", { level: 1, name: "Projections" }).waitFor();
  assert.equal(await page.evaluate(() => document.activeElement.textContent), "Projections");
  assert.match(await page.title(), /^Projections/);
  // A dialog takes the focus, and Escape gives it back.
  const replay = page.getByRole("button", { name: "Replay… history" });
  await replay.focus();
  await page.keyboard.press("Enter");
  await page.getByRole("dialog").waitFor();
  assert.ok(await page.evaluate(() => document.querySelector("dialog").contains(document.activeElement)));
  await page.keyboard.press("Escape");
  await page.getByRole("dialog").waitFor({ state: "detached" });
  assert.equal(await page.evaluate(() => document.activeElement.getAttribute("aria-label")), "Replay… history");
  await tab.close();
});

test("a refused token is explained and not kept", async () => {
  const tab = await open(browser);
  const { page } = tab;
  tab.expect(401);
  tab.expect(403);
  await page.goto(`${ADMIN_URL}/`);
  for (const [token, reason] of [
    ["nonsense", "Could not validate credentials"],
    [process.env.TOKEN, "requires a token with the scope"],
  ]) {
    await page.getByLabel("Token of an operator").fill(token);
    await page.getByRole("button", { name: "Sign in" }).click();
    await page.getByRole("alert").filter({ hasText: reason }).waitFor();
    assert.equal(await page.evaluate(() => sessionStorage.length), 0);
  }
  // A token that the service no longer accepts signs the operator out.
  await signIn(page, ADMIN_TOKEN);
  await page.evaluate(() => sessionStorage.setItem("reading-sessions-token", "expired"));
  await page.getByRole("link", { name: "Audit", exact: true }).click();
  await page.getByText("You are signed out").waitFor();
  assert.equal(await page.evaluate(() => sessionStorage.length), 0);
  await tab.close();
});

inConsole(
  "a token that may look sees everything and can do nothing",
  async (page) => {
    await page.getByText("Your token may look only").waitFor();
    for (const name of PAGES) await visit(page, name);
    await visit(page, "Projections");
    const pause = page.getByRole("button", { name: "Pause history" });
    await pause.waitFor();
    assert.equal(await pause.getAttribute("aria-disabled"), "true");
    const note = await pause.getAttribute("aria-describedby");
    assert.match(await page.locator(`#${note}`).textContent(), /reading:admin/);
    await pause.click({ force: true });
    await row(page, "history").getByText("running").waitFor();
    await checkAccessibility(page, "read-only");
  },
  { token: VIEWER_TOKEN },
);

inConsole("a reload keeps the token, and signing out removes it", async (page) => {
  await page.reload();
  await page.getByRole("heading", { level: 1, name: "Overview" }).waitFor();
  assert.ok(!(await page.content()).includes(ADMIN_TOKEN));
  await page.getByRole("button", { name: "Sign out" }).click();
  await page.getByLabel("Token of an operator").waitFor();
  await page.reload();
  await page.getByLabel("Token of an operator").waitFor();
});

inConsole("signing out ends the live updates, also before an immediate sign-in", async (page) => {
  const streams = new Set();
  let most = 0;
  page.on("request", (request) => {
    if (request.url().endsWith("/admin/live")) streams.add(request);
    most = Math.max(most, streams.size);
  });
  for (const end of ["requestfinished", "requestfailed"]) page.on(end, (request) => streams.delete(request));
  await page.reload();
  const updated = page.getByText("Last update");
  await updated.waitFor();
  await page.getByRole("button", { name: "Sign out" }).click();
  await until("the stream ends", () => streams.size === 0);
  await page.getByLabel("Token of an operator").fill(ADMIN_TOKEN);
  await page.getByRole("button", { name: "Sign in" }).click();
  const seen = new Set();
  await until("four updates", async () => seen.add(await updated.textContent()).size >= 4);
  assert.equal(most, 1);
});

inConsole("charts never draw the values of two processes in one line", async (page) => {
  const snapshot = await liveSnapshot();
  const began = Date.parse(snapshot.at);
  const events = ["first/1/aaaa", "first/1/aaaa", "second/1/bbbb", "second/1/bbbb"].map((name, index) => {
    const at = new Date(began + 1000 * index).toISOString();
    const figures = { ...snapshot.process, name, requests: 100 * index };
    return `event: snapshot\ndata: ${JSON.stringify({ ...snapshot, at, process: figures })}\n\n`;
  });
  let isServed = false;
  await page.route("**/admin/live", async (route) => {
    // The stream after this one never begins.
    if (isServed) return;
    isServed = true;
    await route.fulfill({ contentType: "text/event-stream", body: events.join("") });
  });
  await page.reload();
  await page.getByRole("heading", { name: "Requests of client apps, process second/1/bbbb" }).waitFor();
  const points = await page.evaluate(async () => {
    const live = document.querySelector("script[type=module]").src.replace("main.js", "live.js");
    return (await import(live)).points.get();
  });
  assert.deepEqual(
    points.map(({ process, requests }) => [process, requests]),
    [["first/1/aaaa", 100], ["second/1/bbbb", null], ["second/1/bbbb", 100]],
  );
});

inConsole("the overview shows live figures, and can be paused", async (page) => {
  const position = page.locator(".figures div").filter({ hasText: "Global position" }).locator("dd");
  const before = await until("a position", async () => Number((await position.textContent()).replaceAll(",", "")));
  await readerWithSession();
  await until("the position grows", async () => Number((await position.textContent()).replaceAll(",", "")) > before);
  assert.equal(await page.locator(".uplot canvas").count(), 4);
  await page.getByText("connected", { exact: true }).waitFor();
  const updated = page.getByText("Last update");
  await page.getByRole("button", { name: "Pause updates" }).click();
  const paused = await updated.textContent();
  const resume = page.getByRole("button", { name: "Resume updates" });
  await readerWithSession();
  assert.equal(await updated.textContent(), paused);
  await resume.click();
  await until("the updates continue", async () => (await updated.textContent()) !== paused);
});

inConsole("a projection is paused, resumed and verified", async (page) => {
  await visit(page, "Projections");
  await page.getByRole("button", { name: "Pause daily_stats" }).click();
  await status(page).getByText("daily_stats is paused").waitFor();
  await row(page, "daily_stats").getByText("paused").waitFor();
  await page.getByRole("button", { name: "Resume daily_stats" }).click();
  await row(page, "daily_stats").getByText("running").waitFor();
  await page.getByRole("button", { name: "Verify active_sessions" }).click();
  await page.getByRole("listitem").filter({ hasText: "active_sessions" }).getByText("succeeded").waitFor();
});

inConsole("a replay shows its progress until it completes", async (page) => {
  await visit(page, "Projections");
  await withTableInUse(async () => {
    await page.getByRole("button", { name: "Replay… history" }).click();
    await page.getByRole("button", { name: "Start the replay" }).click();
    await status(page).getByText("The replay of history has started").waitFor();
    await page.getByRole("progressbar", { name: /^history: \d+ %, running/ }).waitFor();
    await checkAccessibility(page, "replay");
    await screenshot(page, "projections");
  });
  await page.getByText("No replay runs").waitFor();
});

inConsole("a job runs on request", async (page) => {
  await visit(page, "Jobs");
  await row(page, "partitions").waitFor();
  const last = async () => row(page, "partitions").locator("td").nth(3).textContent();
  const before = await last();
  await page.getByRole("button", { name: "Run now partitions" }).click();
  await status(page).getByText("A run of partitions is requested").waitFor();
  await until("the run has ended", async () => (await last()) !== before);
});

inConsole("a session shows its state after each event", async (page) => {
  await visit(page, "Session timeline");
  await page.getByLabel("Id of the session").fill(ids.other.session);
  await page.keyboard.press("Enter");
  await page.getByText("active, at 30 %").waitFor();
  const events = page.locator(".timeline li");
  assert.equal(await events.count(), 4);
  await events.nth(1).locator("summary").click();
  const state = JSON.parse(await page.getByRole("region", { name: "Session after event 2" }).textContent());
  assert.equal(state.end_position, 10);
  await page.getByRole("link", { name: ids.other.reader }).click();
  await page.getByRole("heading", { level: 1, name: "Readers" }).waitFor();
});

inConsole("a dead letter is shown, retried and discarded", async (page) => {
  await visit(page, "Dead letters");
  await page.getByLabel("Projection", { exact: true }).selectOption("history");
  await page.getByRole("link", { name: ids.letter }).waitFor();
  await screenshot(page, "dead-letters");
  await page.getByRole("link", { name: ids.letter }).click();
  await page.getByRole("region", { name: "Payload of the event" }).waitFor();
  const tries = page.locator(".details div").filter({ hasText: "Tries" }).locator("dd");
  const before = Number(await tries.textContent());
  await page.getByRole("button", { name: `Retry ${ids.letter}` }).click();
  await status(page).getByText("is requested").waitFor();
  await until("another try", async () => {
    await page.getByRole("button", { name: "Refresh" }).click();
    return Number(await tries.textContent()) > before;
  });
  await page.getByRole("button", { name: `Discard… ${ids.letter}` }).click();
  await page.getByRole("button", { name: "Cancel" }).click();
  await page.locator(".details").getByText("parked").waitFor();
  await page.getByRole("button", { name: `Discard… ${ids.letter}` }).click();
  await page.getByRole("button", { name: "Discard permanently" }).click();
  await page.locator(".details").getByText("discarded").waitFor();
});

inConsole("a reader is exported, and erased after the id is typed", async (page) => {
  const { reader } = ids.other;
  await visit(page, "Readers");
  await page.getByLabel("Id of the reader").fill(reader);
  await page.keyboard.press("Enter");
  await page.getByRole("heading", { name: "Stored data" }).waitFor();
  const [download] = await Promise.all([
    page.waitForEvent("download"),
    page.getByRole("button", { name: "Export as JSON" }).click(),
  ]);
  const exported = JSON.parse(readFileSync(await download.path(), "utf8"));
  assert.equal(exported.sessions.length, 1);
  await page.getByRole("button", { name: "Erase…" }).click();
  const confirm = page.getByRole("button", { name: "Erase permanently" });
  assert.equal(await confirm.getAttribute("aria-disabled"), "true");
  await confirm.click({ force: true });
  await page.getByLabel("Type the id of the reader").fill(reader);
  await screenshot(page, "erase");
  await confirm.click();
  await status(page).getByText("Erased 1 session.").waitFor();
  await until("the erasure is complete", async () => {
    await page.getByRole("button", { name: "Refresh" }).click();
    return page.getByText("complete at").isVisible();
  });
});

inConsole("a failure is announced with its reason", async (page, tab) => {
  tab.expect(404);
  await page.goto(`${ADMIN_URL}/#/readers/0193e5a0-0000-7000-8000-0000000000ff`);
  await page.getByRole("alert").getByText("no session of reader").waitFor();
});

inConsole("the audit shows the actions of these tests", async (page) => {
  await visit(page, "Audit");
  await page.getByRole("table").waitFor();
  const actions = await page.locator("tbody tr").evaluateAll((rows) => rows.map((row) => row.cells[4].textContent));
  for (const action of [
    "pause",
    "resume",
    "verify",
    "replay",
    "run_job",
    "retry",
    "discard",
    "export_reader",
    "erase_reader",
  ]) {
    assert.ok(actions.includes(action), `${action}: ${actions}`);
  }
  await screenshot(page, "audit");
});

inConsole("processes and leases name this process", async (page) => {
  await visit(page, "Processes and leases");
  const name = await page.locator(".details div").filter({ hasText: "Name" }).locator("dd").textContent();
  await row(page, "history").getByText(name).waitFor();
});

for (const scheme of ["light", "dark"]) {
  inConsole(
    `the overview has charts, ${scheme}`,
    async (page) => {
      await page.locator(".uplot canvas").first().waitFor();
      // Pictures have lines of a minute.
      const readers = SCREENSHOTS ? 150 : 5;
      for (let n = 0; n < readers; n += 1) {
        await readerWithSession();
        if (SCREENSHOTS) await page.waitForTimeout(100 + 100 * (n % 7));
      }
      await until("a rate", async () => !(await page.locator(".legend strong").first().textContent()).startsWith("–"));
      await screenshot(page, `overview-${scheme}`);
    },
    { scheme },
  );
}
