// Lines over the last five minutes, in SVG. Each has a dash of its own, and its value in words.

import { element } from "./table.js";
import { clock } from "./text.js";

const SPAN = 300;
const HEIGHT = 132;
const LEFT = 64;
const BOTTOM = 20;
const TOP = 8;
const STEPS = [1, 2, 5, 10];

function svg(name, attributes, text = "") {
  const made = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.textContent = text;
  return made;
}

export class Plot {
  /**
   * `lines` are `[name of the sample's field, title]`, `least` is the least value at the top,
   * `show` writes a value.
   */
  constructor(figure, { title, lines, least, show }) {
    Object.assign(this, { title, lines, least, show });
    this.samples = [];
    this.at = null;
    this.legend = element("figcaption");
    this.picture = svg("svg", { role: "img", height: HEIGHT });
    figure.replaceChildren(this.legend, this.picture);
    new ResizeObserver(() => this.draw()).observe(figure);
    this.picture.addEventListener("pointermove", (event) => this.point(event));
    this.picture.addEventListener("pointerleave", () => this.point(null));
  }

  update(samples, now) {
    this.samples = samples;
    this.now = now;
    this.draw();
  }

  /** Show the values under the pointer instead of the newest. */
  point(event) {
    this.at = event && event.offsetX;
    this.draw();
  }

  draw() {
    const width = Math.max(160, this.picture.clientWidth || 600);
    this.x = (time) => width - 6 - ((this.now - time) / SPAN) * (width - 6 - LEFT);
    const values = this.samples.flatMap((sample) => this.lines.map(([name]) => sample[name]));
    const top = ceiling(Math.max(this.least, ...values));
    this.y = (value) => HEIGHT - BOTTOM - (value / top) * (HEIGHT - BOTTOM - TOP);
    const parts = [...this.grid(width, top)];
    const pieces = this.pieces();
    this.lines.forEach(([name], at) => {
      if (at === 0) parts.push(svg("path", { d: this.area(pieces, name), class: "area" }));
      parts.push(svg("path", { d: this.path(pieces, name), class: `line line-${at}` }));
    });
    const sample = this.pointed();
    if (sample && this.at !== null) {
      const x = this.x(sample.time);
      parts.push(svg("line", { x1: x, x2: x, y1: TOP, y2: HEIGHT - BOTTOM, class: "cross" }));
    }
    this.picture.replaceChildren(...parts);
    this.describe(sample);
  }

  /** The sample that is looked at: under the pointer, or the newest. */
  pointed() {
    if (this.at === null) return this.samples.at(-1);
    const distance = (sample) => Math.abs(this.x(sample.time) - this.at);
    return this.samples.reduce(
      (one, other) => (one && distance(one) <= distance(other) ? one : other),
      null,
    );
  }

  *grid(width, top) {
    for (const value of [0, top / 2, top]) {
      const y = this.y(value);
      yield svg("line", { x1: LEFT, x2: width - 6, y1: y, y2: y, class: value ? "grid" : "axis" });
      yield svg("text", { x: LEFT - 8, y: y + 4, "text-anchor": "end" }, this.show(value));
    }
    for (const [ago, text, anchor] of [
      [SPAN, "5 min ago", "start"],
      [0, "now", "end"],
    ]) {
      const x = width - 6 - (ago / SPAN) * (width - 6 - LEFT);
      yield svg("text", { x, y: HEIGHT - 4, "text-anchor": anchor }, text);
    }
  }

  /** The samples, apart where some are missing. */
  pieces() {
    const found = [];
    for (const sample of this.samples) {
      if (!found.length || sample.broken) found.push([]);
      found.at(-1).push(sample);
    }
    return found;
  }

  path(pieces, name) {
    const point = (sample) =>
      `${this.x(sample.time).toFixed(1)} ${this.y(sample[name]).toFixed(1)}`;
    return pieces
      .map((piece) => `M${piece.map(point).join("L")}${piece.length > 1 ? "" : "h1"}`)
      .join("");
  }

  area(pieces, name) {
    const ground = `V${this.y(0)}`;
    return pieces
      .map((piece) => {
        const start = `H${this.x(piece[0].time).toFixed(1)}Z`;
        return `${this.path([piece], name)}${ground}${start}`;
      })
      .join("");
  }

  describe(sample) {
    const title = element("strong", this.title);
    const keys = this.lines.map(([name, text], at) => {
      const key = element("span", "", { class: `key key-${at}` });
      key.append(`${text} `, element("b", sample ? this.show(sample[name]) : "–"));
      return key;
    });
    const time = this.at !== null && sample ? clock(sample.time * 1000) : "";
    this.legend.replaceChildren(title, ...keys, element("span", time, { class: "soft" }));
    const words = this.lines.map(([name, text]) => {
      const most = Math.max(0, ...this.samples.map((each) => each[name]));
      return `${text} ${this.show(sample?.[name] ?? 0)}, at most ${this.show(most)}`;
    });
    this.picture.setAttribute(
      "aria-label",
      `${this.title} in the last five minutes: ${words.join("; ")}`,
    );
  }
}

/** A round number that is no less. */
function ceiling(value) {
  const power = 10 ** Math.floor(Math.log10(value));
  return power * STEPS.find((step) => step * power >= value);
}
