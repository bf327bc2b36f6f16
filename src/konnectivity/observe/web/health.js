// What is to be said of a peer or a certificate, worst first.

import { clock, cut, duration, many, seconds } from "./text.js";

const LEVELS = ["ok", "note", "warn", "bad"];
const SIGNS = { ok: "●", note: "◇", warn: "▲", bad: "✕" };
const DAYS_OF_WARNING = 14;
const SLOW = 1;
const LATELY = 300;

/** A level as a number, and words that need no colour. */
function judgement(level, words) {
  return { level: LEVELS.indexOf(level), words };
}

/** What a judgement looks like: a sign, and its words. */
export function shown({ level, words }) {
  return { text: words, level: LEVELS[level], sign: SIGNS[LEVELS[level]] };
}

/** Of a connected peer; `failures` of its dials were lately. */
export function ofPeer(peer, failures, now) {
  const found = [judgement("ok", "ok")];
  if (peer.draining) found.push(judgement("note", "draining"));
  if (failures) found.push(judgement("warn", `${many(failures, "dial")} failed lately`));
  if (peer.roundTrip > SLOW)
    found.push(judgement("warn", `round trip ${duration(peer.roundTrip)}`));
  if (peer.certificate) found.push(ofExpiry(peer.certificate.notAfter, now, "certificate "));
  return worst(found);
}

/** Of one that is gone. */
export function ofLost(lost, now) {
  const cause = lost.cause ? `: ${cut(lost.cause, 80).shown}` : "";
  return judgement("bad", `gone since ${clock(lost.time, now)}${cause}`);
}

/** Of the end of a certificate. */
export function ofExpiry(notAfter, now, what = "") {
  const left = seconds(now, notAfter);
  if (left <= 0) return judgement("bad", `${what}expired ${duration(-left)} ago`);
  const level = left < DAYS_OF_WARNING * 86400 ? "warn" : "ok";
  return judgement(level, level === "ok" ? "ok" : `${what}expires in ${duration(left)}`);
}

/** Of a certificate file: what is in use, and what lies on the disk. */
export function ofFile(file, now) {
  const found = [ofExpiry(file.notAfter, now)];
  if (file.error) found.push(judgement("bad", `on disk: ${cut(file.error, 160).shown}`));
  else if (file.diskFingerprintSha256 === null) found.push(judgement("warn", "on disk: none"));
  else if (file.diskFingerprintSha256 !== file.fingerprintSha256) {
    found.push(judgement("warn", "on disk: another one"));
  }
  return worst(found);
}

/** Of a limit, by how much of it is used. */
export function ofLimit({ used, limit }) {
  if (limit === null) return judgement("ok", "no limit");
  const share = limit ? used / limit : 1;
  const words = `${Math.floor(share * 100)} % used`;
  return judgement(share >= 0.95 ? "bad" : share >= 0.8 ? "warn" : "ok", words);
}

/** How many of the dials that failed lately each peer has. */
export function failuresByPeer(status) {
  const found = new Map();
  for (const { time, peer } of status.dials.recentFailures) {
    if (seconds(time, status.generatedAt) < LATELY) found.set(peer, (found.get(peer) ?? 0) + 1);
  }
  return found;
}

function worst(found) {
  return found.reduce((one, other) => (other.level > one.level ? other : one));
}
