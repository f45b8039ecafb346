// Texts of numbers and times.

const whole = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });
const short = new Intl.NumberFormat("en", { maximumFractionDigits: 1 });

const NONE = "–";

export const count = (value) => (value === null || value === undefined ? NONE : whole.format(value));
export const decimal = (value) =>
  value === null || value === undefined ? NONE : short.format(value);

/** A time in UTC, as the command line prints it. */
export function time(value) {
  if (value === null || value === undefined) return NONE;
  return `${new Date(value).toISOString().slice(0, 19).replace("T", " ")}Z`;
}

/** A duration in its two largest units. */
export function span(milliseconds) {
  const seconds = Math.max(Math.round(milliseconds / 1000), 0);
  if (seconds < 60) return `${seconds} s`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min ${seconds % 60} s`;
  if (seconds < 86400) return `${Math.floor(seconds / 3600)} h ${Math.floor(seconds / 60) % 60} min`;
  return `${Math.floor(seconds / 86400)} d ${Math.floor(seconds / 3600) % 24} h`;
}

/** A number and its noun. */
export const counted = (value, singular, plural) => `${count(value)} ${value === 1 ? singular : plural}`;

export const text = (value) => (value === null || value === undefined || value === "" ? NONE : value);

export const json = (value) => JSON.stringify(value, null, 2);
