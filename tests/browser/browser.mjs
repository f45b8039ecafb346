// Chromium with a page of the console. Every console error, violation of the content
// security policy and request to another host fails the test.

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { chromium } from "playwright-core";

const AXE = readFileSync(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");

/** How long a page may take to show what a test waits for. */
const TIMEOUT_MS = 20_000;

export const ADMIN_URL = process.env.ADMIN_URL;

export const launch = () =>
  chromium.launch({
    executablePath: process.env.CHROMIUM,
    args: [
      "--headless",
      "--no-sandbox",
      "--disable-gpu",
      "--disable-quic",
      "--no-first-run",
      "--disable-background-networking",
      "--disable-component-update",
      "--disable-sync",
    ],
  });

/** A new tab in an empty profile. `faults` collects what must not happen. */
export async function open(browser, { scheme = "light" } = {}) {
  const context = await browser.newContext({
    colorScheme: scheme,
    viewport: { width: 1200, height: 800 },
    reducedMotion: "reduce",
    acceptDownloads: true,
  });
  const page = await context.newPage();
  page.setDefaultTimeout(TIMEOUT_MS);
  const faults = [];
  // Error responses of the API that a test expects, by their status.
  const expected = new Set();
  page.on("console", (message) => {
    if (message.type() !== "error" && message.type() !== "warning") return;
    const status = message.text().match(/status of (\d+)/)?.[1];
    if (status !== undefined && expected.has(Number(status))) return;
    faults.push(`${message.type()}: ${message.text()}`);
  });
  page.on("pageerror", (error) => faults.push(`exception: ${error.message}`));
  page.on("request", (request) => {
    const url = request.url();
    const isLocal = url.startsWith(`${ADMIN_URL}/`) || url.startsWith(`blob:${ADMIN_URL}/`) || url === "data:,";
    if (!isLocal) faults.push(`request to another host: ${url}`);
  });
  await page.addInitScript(() => {
    addEventListener("securitypolicyviolation", (event) => {
      console.error(`policy violation: ${event.violatedDirective} ${event.blockedURI}`);
    });
  });
  return {
    page,
    expect: (status) => expected.add(status),
    async close() {
      await context.close();
      assert.deepEqual(faults, []);
    },
  };
}

export async function signIn(page, token) {
  await page.goto(`${ADMIN_URL}/`);
  await page.getByLabel("Token of an operator").fill(token);
  await page.getByRole("button", { name: "Sign in" }).click();
  await page.getByRole("heading", { level: 1, name: "Overview" }).waitFor();
}

/** Opens a page by its link and waits for its heading. */
export async function visit(page, name) {
  await page.getByRole("navigation").getByRole("link", { name, exact: true }).click();
  await page.getByRole("heading", { level: 1, name, exact: true }).waitFor();
}

/** Fails with the findings of axe-core, if there are any. */
export async function checkAccessibility(page, about) {
  await page.evaluate(AXE);
  const { violations } = await page.evaluate(() =>
    globalThis.axe.run(document, {
      runOnly: ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"],
    }),
  );
  const findings = violations.map(({ id, help, nodes }) => `${id}: ${help}: ${nodes.map(({ html, failureSummary }) => `${html} ${failureSummary}`).join(" | ")}`);
  assert.deepEqual(findings, [], about);
}

/** Polls until `check` returns a truthy value. */
export async function until(about, check) {
  const deadline = Date.now() + TIMEOUT_MS;
  for (;;) {
    const value = await check();
    if (value) return value;
    assert.ok(Date.now() < deadline, `timed out: ${about}`);
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
}
