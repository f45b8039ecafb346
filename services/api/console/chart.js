// Line charts over time with uPlot. The legend below a chart is text with the newest values,
// for screen readers and for prints.

import { html, useEffect, useRef } from "./vendor/htm-preact.js";

const HEIGHT = 180;

/** The shortest time on the horizontal axis, in seconds. */
const MIN_WINDOW = 60;

/** Redraws for operators who prefer reduced motion happen this often. */
const CALM_INTERVAL_MS = 5_000;

const isCalm = matchMedia("(prefers-reduced-motion: reduce)");
const isDark = matchMedia("(prefers-color-scheme: dark)");

/** A colour of the stylesheet. */
const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

/** The time of day in UTC. */
const clock = (seconds) => new Date(1000 * seconds).toISOString().slice(11, 19);

const stroke = (index) => colour(`--series-${index + 1}`);

/** Grid and texts of an axis. */
const axis = () => ({
  stroke: colour("--muted"),
  grid: { stroke: colour("--line"), width: 1 },
  ticks: { stroke: colour("--line"), width: 1 },
});

/**
 * A chart. `series` are `{ label, values }` with a value for each of `times` (Unix seconds),
 * `format` is the text of a value.
 */
export function Chart({ title, times, series, format }) {
  const host = useRef(null);
  const plot = useRef(null);
  const drawnAt = useRef(0);
  const labels = series.map(({ label }) => label).join("|");

  useEffect(() => {
    const draw = () => {
      plot.current?.destroy();
      plot.current = new globalThis.uPlot(
        {
          width: host.current.clientWidth,
          height: HEIGHT,
          legend: { show: false },
          cursor: { show: false },
          scales: {
            x: { range: (_, min, max) => [max - Math.max(max - min, MIN_WINDOW), max] },
            y: { range: (_, min, max) => [Math.min(min ?? 0, 0), Math.max(max ?? 0, 1) * 1.1] },
          },
          axes: [{ ...axis(), space: 80, values: (_, ticks) => ticks.map(clock) }, { ...axis(), size: 56, values: (_, ticks) => ticks.map(format) }],
          series: [
            {},
            ...series.map((_, index) => ({
              stroke: stroke(index),
              width: 2,
              dash: index === 0 ? undefined : [6, 2 + 2 * index],
              points: { show: false },
            })),
          ],
        },
        [times, ...series.map(({ values }) => values)],
        host.current,
      );
    };
    draw();
    const resized = new ResizeObserver(() => {
      plot.current.setSize({ width: host.current.clientWidth, height: HEIGHT });
    });
    resized.observe(host.current);
    isDark.addEventListener("change", draw);
    return () => {
      resized.disconnect();
      isDark.removeEventListener("change", draw);
      plot.current.destroy();
      plot.current = null;
    };
  }, [labels]);

  useEffect(() => {
    const now = Date.now();
    const isBeginning = times.length < 10;
    if (isCalm.matches && !isBeginning && now - drawnAt.current < CALM_INTERVAL_MS) return;
    drawnAt.current = now;
    plot.current?.setData([times, ...series.map(({ values }) => values)]);
  });

  const newest = series.map(({ label, values }) => `${label} ${format(values.at(-1) ?? null)}`);
  return html`<section class="chart" aria-label=${title}>
    <h3>${title}</h3>
    <div ref=${host} role="img" aria-label=${`${title}: ${newest.join(", ")}`}></div>
    <ul class="legend">
      ${series.map(
        ({ label, values }, index) => html`<li>
          <span class=${`key series-${index + 1}`} aria-hidden="true"></span>
          ${label} <strong>${format(values.at(-1) ?? null)}</strong>
        </li>`,
      )}
    </ul>
  </section>`;
}
