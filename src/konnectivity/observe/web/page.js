// The page: what the feed brings, shown. Text from elsewhere becomes text, never markup.

import * as columns from "./columns.js";
import { Feed } from "./feed.js";
import { heading, tiles } from "./glance.js";
import { failuresByPeer, ofLost, ofPeer } from "./health.js";
import { Plot } from "./plot.js";
import { connection, Rates } from "./rates.js";
import { element, Table } from "./table.js";
import { bytes, clock, count, cut, frequency, many, seconds, visible } from "./text.js";

const MOST_EVENTS = 200;
const MOST_LOST = 200;
/** Seconds for which a peer that is gone is still listed. */
const LOST_FOR = 900;
const SPEAK_EVERY = 5000;

const at = (id) => document.getElementById(id);
const rates = new Rates();
const lost = new Map();
let tables = null;
let noun = "agent";
let status = null;
/** Of when the data is that are on the page; null before there are any. */
let known = null;
let held = [];

// Saying things

let spoken = 0;
let unspoken = 0;

/** Tell those who listen instead of looking. */
function announce(text) {
  at("announcer").textContent = text;
}

/** The same for what comes by itself: the newest of some seconds, and how many there were. */
function report(text) {
  unspoken += 1;
  if (performance.now() - spoken < SPEAK_EVERY) return;
  spoken = performance.now();
  announce(unspoken > 1 ? `${text}; ${count(unspoken - 1)} more events` : text);
  unspoken = 0;
}

function open(title, text) {
  const dialog = at("whole");
  dialog.querySelector("h2").textContent = title;
  dialog.querySelector("pre").textContent = visible(text);
  dialog.showModal();
}

// The tables, made when it is known whose page this is

function build() {
  const now = () => status.generatedAt;
  const make = (id, more) => new Table(at(id), { tell: announce, open, ...more });
  const title = columns.titleOf(noun);
  tables = {
    peers: make("peers", {
      title,
      noun,
      caption: `${title} that are connected or were lately`,
      columns: columns.peers(noun, now),
      order: [1, -1],
      search: columns.searchPeer,
      key: (row) => (row.lost ? `gone ${row.id}` : connection(row)),
      empty: `no ${noun} is connected`,
    }),
    tunnels: make("tunnels", {
      title: "Tunnels",
      noun: "tunnel",
      caption: "Tunnels that are being dialled, open or closing",
      columns: columns.tunnels(noun, now),
      search: columns.searchTunnel,
      key: (row) => row.id,
      empty: "no tunnel is open",
    }),
    failures: make("failures", {
      title: "Failed dials",
      noun: "dial",
      caption: "The last dials that failed, newest first",
      columns: columns.failures(noun, now),
      search: columns.searchFailure,
      key: (row) => JSON.stringify([row.time, row.destination, row.peer, row.place]),
      empty: "none has failed",
    }),
    limits: make("limits", {
      title: "Limits",
      noun: "limit",
      caption: "Limits, and how much of them is used",
      columns: columns.limits,
      key: (row) => row.name,
      empty: "none",
    }),
    listeners: make("listeners", {
      title: "Listeners",
      noun: "listener",
      caption: "Addresses that are listened on",
      columns: columns.listeners,
      key: (row) => row.name,
      empty: "none",
    }),
    certificates: make("certificates", {
      title: "Certificates",
      noun: "file",
      caption: "Certificate files: what is in use, and what is on the disk",
      columns: columns.certificates(now),
      key: (row) => row.name,
      empty: "none",
    }),
  };
}

const plots = {
  traffic: new Plot(at("traffic"), {
    title: "Traffic",
    least: 1000,
    lines: [
      ["down", "down"],
      ["up", "up"],
    ],
    show: (value) => `${bytes(value)}/s`,
  }),
  dialling: new Plot(at("dialling"), {
    title: "Dials",
    least: 1,
    lines: [
      ["dials", "succeeded"],
      ["failed", "failed"],
    ],
    show: frequency,
  }),
};

// The status

function show(document_) {
  if (document_.apiVersion !== "v1") throw new TypeError("another version of the API");
  status = document_;
  const program = status.server ?? status.agent;
  const connected = status.agents ?? status.servers;
  if (!tables) {
    noun = status.agents ? "agent" : "server";
    build();
  }
  document.body.dataset.known = "";
  rates.add(status, connected);
  heading(status, program);
  tiles(status, connected, noun, rates.newest);
  plots.traffic.update(rates.samples, Date.parse(status.generatedAt) / 1000);
  plots.dialling.update(rates.samples, Date.parse(status.generatedAt) / 1000);
  const rows = rowsOf(connected);
  const gone = rows.length - connected.length;
  tables.peers.update(rows, { remark: gone ? `, ${count(gone)} of them gone` : "" });
  const { dialing, open: opened, closing } = status.tunnelCounts;
  const all = dialing + opened + closing;
  tables.tunnels.update(status.tunnels, { total: Math.max(all, status.tunnels.length) });
  tables.failures.update(numbered(status.dials.recentFailures));
  tables.limits.update(program.limits);
  tables.listeners.update(program.listeners);
  tables.certificates.update(program.certificates);
}

/** Equal dials in the same millisecond are still two. */
function numbered(dials) {
  return dials.map((dial, index) => ({ ...dial, place: dials.length - index }));
}

function rowsOf(connected) {
  const failed = failuresByPeer(status);
  const rows = connected.map((peer) => {
    if (lost.get(peer.id)?.time <= peer.connectedSince) lost.delete(peer.id);
    return { ...peer, judgement: ofPeer(peer, failed.get(peer.id) ?? 0, status.generatedAt) };
  });
  const here = new Set(connected.map((peer) => peer.id));
  for (const [id, facts] of lost) {
    if (seconds(facts.time, status.generatedAt) > LOST_FOR) lost.delete(id);
    else if (!here.has(id))
      rows.push({
        id,
        lost: true,
        address: facts.address,
        judgement: ofLost(facts, status.generatedAt),
      });
  }
  return rows;
}

// Events

function note(event) {
  const { facts, kind } = event;
  const id = facts.agent ?? facts.server;
  if (/^(agent|server)_disconnected$/.test(kind)) {
    lost.delete(id);
    lost.set(id, { time: event.time, ...facts });
    if (lost.size > MOST_LOST) lost.delete(lost.keys().next().value);
  } else if (/^(agent|server)_connected$/.test(kind)) lost.delete(id);
  const line = element("li");
  const time = element("time", clock(event.time), { datetime: event.time });
  line.append(
    time,
    element("b", visible(kind).replaceAll("_", " ")),
    element("bdi", columns.factsOf(event)),
  );
  line.dataset.kind = kind;
  const list = at("events");
  list.prepend(line);
  while (list.children.length > MOST_EVENTS) list.lastChild.remove();
  at("events-count").textContent = `the last ${many(list.children.length, "event")}, newest first`;
  if (Date.now() - Date.parse(event.time) < SPEAK_EVERY) {
    report(`${kind.replaceAll("_", " ")}: ${cut(String(id ?? facts.flag ?? ""), 80).shown}`);
  }
}

// The state of the connection

const LINK = {
  live: ["● live", "ok"],
  paused: ["◇ paused", "note"],
  lost: ["✕ connection lost", "bad"],
};

function link(state, problem) {
  const [words, level] = LINK[state];
  const text = problem ? `${words}: ${cut(problem, 160).shown}` : words;
  if (at("link").textContent !== text) at("link").textContent = text;
  at("link").dataset.level = problem && state === "live" ? "warn" : level;
  document.body.dataset.link = state;
  at("forget").hidden = !feed.token;
  if (state === "live") return;
  at("as-of").textContent = known ? `data as of ${clock(known)}` : "no data yet";
}

function ask(problem) {
  const dialog = at("ask");
  at("ask-problem").textContent = problem;
  at("token").value = "";
  dialog.showModal();
  return new Promise((resolve) => {
    dialog.querySelector("form").onsubmit = (event) => {
      event.preventDefault();
      const token = at("token").value.trim();
      if (!/^[\x21-\x7e]+$/.test(token)) {
        at("ask-problem").textContent = "A token is ASCII, without spaces.";
        return;
      }
      dialog.close();
      resolve(token);
    };
  });
}

const feed = new Feed({
  status: (document_) => {
    show(document_);
    known = status.generatedAt;
    at("as-of").textContent = clock(known);
  },
  event: (event) => {
    if (feed.paused) {
      held = [...held, event].slice(-MOST_EVENTS);
      return;
    }
    note(event);
    feed.soon();
  },
  state: link,
  token: ask,
});

at("pause").addEventListener("click", () => {
  const paused = !feed.paused;
  at("pause").setAttribute("aria-pressed", String(paused));
  at("pause").textContent = paused ? "Go on" : "Pause";
  if (!paused) held.splice(0).forEach(note);
  feed.pause(paused);
});
at("forget").addEventListener("click", () => feed.forget());
at("whole")
  .querySelector("button")
  .addEventListener("click", () => at("whole").close());
// It cannot be escaped from: without a token there is nothing behind it.
at("ask").addEventListener("cancel", (event) => event.preventDefault());
window.addEventListener("beforeprint", () =>
  Object.values(tables ?? {}).forEach((each) => each.whole(true)),
);
window.addEventListener("afterprint", () =>
  Object.values(tables ?? {}).forEach((each) => each.whole(false)),
);
feed.start();
