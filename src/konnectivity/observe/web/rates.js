// From totals to speeds: what changed between one status and the next, and the last five minutes.

import { total } from "./text.js";

const KEPT = 300;
/** Seconds without a status after which a line is broken: nobody knows what was there. */
const GAP = 15;

export class Rates {
  constructor() {
    this.samples = [];
    this.before = null;
  }

  /**
   * Take a status in: gives every peer and tunnel a `rate` of `up` and `down`, and adds a sample
   * `{time, down, up, dials, failed}`, each a second.
   */
  add(status, peers) {
    const now = Date.parse(status.generatedAt) / 1000;
    const failed = total(status.dials.failed);
    const counted = new Map();
    const old = this.before;
    const span = old && now > old.now ? now - old.now : 0;
    const sum = { up: 0, down: 0 };
    for (const each of peers) {
      rate(each, connection(each), old, span, counted);
      sum.up += each.rate.up;
      sum.down += each.rate.down;
    }
    for (const each of status.tunnels) rate(each, `tunnel ${each.id}`, old, span, counted);
    const { succeeded } = status.dials;
    this.before = { now, counted, failed, succeeded };
    if (!span) return;
    this.samples.push({
      time: now,
      broken: span > GAP,
      ...sum,
      dials: grown(succeeded, old.succeeded, span),
      failed: grown(failed, old.failed, span),
    });
    this.samples = this.samples.filter((each) => each.time > now - KEPT);
  }

  /** The newest sample; zeros before there is one. */
  get newest() {
    return this.samples.at(-1) ?? { up: 0, down: 0, dials: 0, failed: 0 };
  }
}

/** What tells one connection from another of the same peer. */
export function connection(peer) {
  return JSON.stringify([peer.id, peer.address, peer.connectedSince]);
}

function rate(each, key, old, span, counted) {
  const before = old?.counted.get(key);
  counted.set(key, each.traffic);
  each.rate =
    before && span
      ? {
          up: grown(each.traffic.up, before.up, span),
          down: grown(each.traffic.down, before.down, span),
        }
      : { up: 0, down: 0 };
}

function grown(now, before, span) {
  return Math.max(0, now - before) / span;
}
