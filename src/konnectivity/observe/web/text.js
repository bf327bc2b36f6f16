// How values are written. What others have chosen goes through `visible`, and into the page as
// text alone.

/** Control characters, direction marks and the like: seen as they are, they would lie. */
const UNSEEN = /[\p{Cc}\p{Cf}\p{Co}\p{Cs}\p{Zl}\p{Zp}]/gu;

/** `text` with an escape for every character that one cannot see. */
export function visible(text) {
  return text.replace(UNSEEN, (each) => `\\u{${each.codePointAt(0).toString(16)}}`);
}

/** At most `most` characters of a text; `whole` tells whether that is all of it. */
export function cut(text, most) {
  const shown = visible(text.slice(0, most + 1));
  const characters = Array.from(shown);
  const whole = text.length <= most && characters.length <= most;
  return { shown: whole ? shown : `${characters.slice(0, most - 1).join("")}…`, whole };
}

const WHOLE = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });

/** A number in groups of three: 12 345. */
export function count(number) {
  return WHOLE.format(number).replaceAll(",", "\u202f");
}

/** Three digits of a number, as long as it is below a thousand. */
function digits(number) {
  return number >= 100 || Number.isInteger(number)
    ? number.toFixed(0)
    : number.toFixed(number >= 10 ? 1 : 2).replace(/\.?0+$/, "");
}

const SIZES = ["B", "kB", "MB", "GB", "TB", "PB"];

/** Bytes in decimal units, as the rest of the project prints them. */
export function bytes(number) {
  let power = 0;
  while (number >= 999.5 && power < SIZES.length - 1) {
    number /= 1000;
    power += 1;
  }
  return `${power ? digits(number) : Math.round(number)} ${SIZES[power]}`;
}

/** Bytes a second; nothing is a dash, so that what moves is seen. */
export function speed(number) {
  return number ? `${bytes(number)}/s` : "–";
}

/** Events a second. */
export function frequency(number) {
  return `${digits(number)}/s`;
}

const UNITS = [
  ["d", 86400],
  ["h", 3600],
  ["min", 60],
  ["s", 1],
];

/** Seconds as people say them: 350 ms, 12 s, 3 min, 5 h, 12 d. */
export function duration(seconds) {
  if (seconds < 0.9995) return `${digits(seconds * 1000)} ms`;
  const [unit, size] = UNITS.find(([, each]) => seconds >= 2 * each) ?? ["s", 1];
  return `${seconds < 10 ? digits(Math.round(seconds * 10) / 10) : Math.floor(seconds / size)} ${unit}`;
}

const SECONDS = new Intl.DateTimeFormat("en-GB", { timeStyle: "medium" });
const DAY = new Intl.DateTimeFormat("en-GB", { dateStyle: "medium" });

/** A moment on the reader's clock: 12:03:11, with its day unless that is today. */
export function clock(moment, now = new Date()) {
  const time = new Date(moment);
  const today = time.toDateString() === new Date(now).toDateString();
  return today ? SECONDS.format(time) : `${DAY.format(time)} ${SECONDS.format(time)}`;
}

/** The day of a moment: 22 Nov 2026. */
export function day(moment) {
  return DAY.format(new Date(moment));
}

/** Seconds from one moment to another. */
export function seconds(from, to) {
  return (Date.parse(to) - Date.parse(from)) / 1000;
}

/** "1 agent", "2 agents". */
export function many(number, noun) {
  return `${count(number)} ${noun}${number === 1 ? "" : "s"}`;
}

/** The sum of what is counted by name. */
export function total(counted) {
  return Object.values(counted).reduce((sum, each) => sum + each, 0);
}
