// What each table shows of its rows.

import { ofExpiry, ofFile, ofLimit, shown } from "./health.js";
import { bytes, clock, count, cut, day, duration, seconds, speed, visible } from "./text.js";

/** How many characters of one field a filter looks at. */
const SEARCHED = 4096;

/** A column of numbers, sorted by `value`; without one it shows a dash and sorts last. */
function number(title, value, show) {
  return {
    title,
    number: true,
    value: (row) => value(row) ?? -1,
    show: (row) => (value(row) === null || value(row) === undefined ? "–" : show(value(row))),
  };
}

function text(title, get, more = {}) {
  return { title, show: (row) => get(row) || "–", ...more };
}

/** A column of judgements, which sorts the worst first. */
function condition(title, judge) {
  return {
    title,
    first: -1,
    value: (row) => [judge(row).level, judge(row).words],
    show: (row) => shown(judge(row)),
    most: 56,
  };
}

function identifiers(peer) {
  return Object.entries(peer.identifiers ?? {})
    .flatMap(([kind, values]) => values.map((value) => `${kind}=${value}`))
    .join(", ");
}

function tunnelsOf({ tunnels }) {
  const others = [
    ["dialing", tunnels.dialing],
    ["closing", tunnels.closing],
  ];
  const more = others.filter(([, each]) => each).map(([state, each]) => `${count(each)} ${state}`);
  return [count(tunnels.open), ...more].join(", ");
}

/** Of agents or servers. Rows of those that are gone have only an id, an address and a judgement. */
export function peers(noun, now) {
  const title = noun[0].toUpperCase() + noun.slice(1);
  return [
    text(title, (row) => row.id, { heads: true, most: 32 }),
    condition("Condition", (row) => row.judgement),
    {
      title: "Tunnels",
      number: true,
      value: (row) => row.tunnels?.open ?? -1,
      show: (row) => (row.tunnels ? tunnelsOf(row) : "–"),
    },
    number("Down", (row) => row.rate?.down, speed),
    number("Up", (row) => row.rate?.up, speed),
    number("Round trip", (row) => row.roundTrip, duration),
    {
      title: "Failed dials",
      number: true,
      value: (row) => row.dialsFailed ?? -1,
      show: (row) =>
        row.dials === undefined ? "–" : `${count(row.dialsFailed)} of ${count(row.dials)}`,
    },
    {
      title: "Certificate until",
      value: (row) => row.certificate?.notAfter ?? "~",
      show: (row) => (row.certificate ? day(row.certificate.notAfter) : "–"),
    },
    number(
      "Connected",
      (row) => row.connectedSince && seconds(row.connectedSince, now()),
      duration,
    ),
    text("Version", (row) => row.version || row.software, { most: 16 }),
    text("Address", (row) => row.address),
    text("Identifiers", identifiers, { most: 36 }),
  ];
}

export function searchPeer(row) {
  return [row.id, row.address, row.version, row.software, row.judgement.words, identifiers(row)]
    .map((each) => visible((each ?? "").slice(0, SEARCHED)))
    .join("\n");
}

/** Of tunnels through agents or servers. */
export function tunnels(noun, now) {
  const title = noun[0].toUpperCase() + noun.slice(1);
  return [
    text("Destination", (row) => row.destination, { heads: true, most: 56 }),
    text(title, (row) => row.peer, { most: 32 }),
    text("State", (row) => row.state),
    number(
      "Since",
      (row) => seconds(row.since, now()),
      (value) => duration(Math.max(0, value)),
    ),
    number("Down", (row) => row.rate.down, speed),
    number("Up", (row) => row.rate.up, speed),
    number("Bytes down", (row) => row.traffic.down, bytes),
    number("Bytes up", (row) => row.traffic.up, bytes),
    text("Mode", (row) => row.mode),
    text("From", (row) => row.frontend),
  ];
}

export function searchTunnel(row) {
  return [row.destination, row.peer, row.state, row.mode, row.frontend]
    .map((each) => visible(each.slice(0, SEARCHED)))
    .join("\n");
}

/** Of dials that failed. */
export function failures(noun, now) {
  return [
    { title: "Time", value: (row) => row.time, show: (row) => clock(row.time, now()) },
    text("Destination", (row) => row.destination, { heads: true, most: 56 }),
    text(noun[0].toUpperCase() + noun.slice(1), (row) => row.peer, { most: 32 }),
    text("Reason", (row) => row.result.replaceAll("_", " ")),
    number("Took", (row) => row.seconds, duration),
    text("Error", (row) => row.error, { most: 120 }),
  ];
}

export function searchFailure(row) {
  return [row.destination, row.peer, row.result.replaceAll("_", " "), row.error]
    .map(visible)
    .join("\n");
}

const LIMITS = {
  tunnels: "Tunnels",
  pendingDials: "Dials under way",
  descriptors: "File descriptors",
  eventReaders: "Readers of events",
  heldForFrontends: "Held for slow frontends",
  heldForEndpoints: "Held for slow endpoints",
};

export const limits = [
  text("Limit", (row) => LIMITS[row.name] ?? row.name, { heads: true }),
  condition("Condition", ofLimit),
  {
    title: "Used",
    number: true,
    value: (row) => row.used,
    show: (row) => amount(row.used, row.unit),
  },
  {
    title: "Of",
    number: true,
    value: (row) => row.limit ?? Infinity,
    show: (row) => amount(row.limit, row.unit),
  },
];

function amount(value, unit) {
  if (value === null) return "–";
  return unit === "bytes" ? bytes(value) : count(value);
}

export const listeners = [
  text("Listener", (row) => row.name, { heads: true }),
  text("Address", (row) => row.address, { most: 64 }),
  text("TLS", (row) => (row.tls ? "yes" : "no")),
];

function fingerprint(value) {
  return value ? `${value.slice(0, 16)}…` : "–";
}

/** Of certificate files, in use and on the disk. */
export function certificates(now) {
  return [
    text("Flag", (row) => `--${row.name}`, { heads: true }),
    condition("Condition", (row) => ofFile(row, now())),
    {
      title: "In use until",
      value: (row) => row.notAfter,
      show: (row) => until(row.notAfter, now()),
    },
    {
      title: "On disk until",
      value: (row) => row.diskNotAfter ?? "",
      show: (row) => until(row.diskNotAfter, now()),
    },
    text("In use", (row) => fingerprint(row.fingerprintSha256)),
    text("On disk", (row) => fingerprint(row.diskFingerprintSha256)),
    { title: "Loaded", value: (row) => row.loadedAt, show: (row) => clock(row.loadedAt, now()) },
    text("File", (row) => row.path, { most: 64 }),
  ];
}

function until(moment, now) {
  if (!moment) return "–";
  const left = seconds(now, moment);
  return left > 0
    ? `${day(moment)}, ${duration(left)} left`
    : `${day(moment)}, ${ofExpiry(moment, now).words}`;
}

/** An event in words: `facts` that say something, the longest cut. */
export function factsOf({ facts }) {
  return Object.entries(facts)
    .filter(([, value]) => value !== null && value !== "" && value !== 0)
    .map(([name, value]) => `${visible(name)} ${fact(name, value)}`)
    .join(" · ");
}

function fact(name, value) {
  if (name === "seconds") return duration(value);
  if (name.startsWith("bytes")) return bytes(value);
  return typeof value === "number" ? count(value) : cut(String(value), 160).shown;
}

/** A title for what there are many of. */
export function titleOf(noun) {
  return `${noun[0].toUpperCase()}${noun.slice(1)}s`;
}
