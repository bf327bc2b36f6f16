// A table of rows that change: sorted, filtered and in pages, so that thousands do no harm.
//
// A row is an element as long as its key is there. While one of them has the focus, none of them
// moves.

import { count, cut, many } from "./text.js";

const PAGE = 20;
const LONGEST = 48;

/** An element with a text, and attributes. */
export function element(name, text = "", attributes = {}) {
  const made = document.createElement(name);
  if (text) made.textContent = text;
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  return made;
}

export class Table {
  /**
   * `columns` have a `title`, `show(row)`, which gives a text or `{text, level, sign}`, and if they
   * sort by something else `value(row)`; `first` is the direction of the first click. `number`
   * aligns, `heads` marks the column that names its row, `most` is how many characters it shows.
   * `key(row)` tells rows apart, `search(row)` is what the filter looks at. `order` is `[column,
   * direction]`. `tell` announces, `open` shows a whole text, `empty` is said of no rows.
   */
  constructor(section, { title, caption, noun, columns, key, search, order, tell, open, empty }) {
    Object.assign(this, { noun, columns, key, search, tell, open, empty });
    [this.column, this.direction] = order ?? [null, 1];
    this.rows = [];
    this.page = 0;
    this.size = PAGE;
    this.shown = new Map();
    this.kept = [];
    this.build(section, title, caption);
  }

  build(section, title, caption) {
    const id = `${section.id}-title`;
    section.setAttribute("aria-labelledby", id);
    this.title = element("h2", title, { id });
    this.count = element("p", "", { class: "soft count" });
    const tools = element("div", "", { class: "tools" });
    tools.append(this.title, this.count);
    if (this.search) tools.append(this.filtering(title), this.paging(title));
    const region = { class: "scroll", role: "region", tabindex: "0", "aria-labelledby": id };
    const scroll = element("div", "", region);
    const table = element("table");
    this.body = element("tbody");
    table.append(element("caption", caption, { class: "unseen" }), this.head(), this.body);
    scroll.append(table);
    section.replaceChildren(tools, scroll);
  }

  filtering(title) {
    const label = element("label", "", { class: "filter" });
    this.filter = element("input", "", {
      type: "search",
      placeholder: "Filter",
      "aria-label": `Filter ${title.toLowerCase()}`,
      spellcheck: "false",
      autocomplete: "off",
    });
    this.filter.addEventListener("input", () => {
      this.page = 0;
      this.draw(true);
      this.tell(`${many(this.found.length, this.noun)} found`);
    });
    label.append(this.filter);
    return label;
  }

  paging(title) {
    const pages = element("nav", "", {
      class: "pages",
      "aria-label": `Pages of ${title.toLowerCase()}`,
    });
    const turn = (text, label, step) => {
      const button = element("button", text, { type: "button", "aria-label": label });
      button.addEventListener("click", () => {
        this.page += step;
        this.draw(true);
        this.tell(this.where);
      });
      return button;
    };
    this.back = turn("‹", "Previous page", -1);
    this.on = turn("›", "Next page", 1);
    this.pages = pages;
    pages.append(this.back, this.on);
    return pages;
  }

  head() {
    const head = element("thead");
    const row = element("tr");
    this.heads = this.columns.map((column, at) => {
      const cell = element("th", "", { scope: "col", class: column.number ? "number" : "" });
      const button = element("button", column.title, { type: "button" });
      button.addEventListener("click", () => this.sort(at));
      cell.append(button);
      row.append(cell);
      return cell;
    });
    head.append(row);
    return head;
  }

  /** Sort by a column; a second time the other way round. */
  sort(at) {
    const first = this.columns[at].first ?? (this.columns[at].number ? -1 : 1);
    this.direction = this.column === at ? -this.direction : first;
    this.column = at;
    this.draw(true);
    this.tell(`sorted by ${this.columns[at].title}, ${this.direction > 0 ? "up" : "down"}`);
  }

  /** Show other rows. `total`: how many there are, if these are not all; `remark` on them. */
  update(rows, { total = rows.length, remark = "" } = {}) {
    this.rows = rows;
    this.total = total;
    this.remark = remark;
    this.draw(false);
  }

  /** Show all rows, or pages of them. */
  whole(all) {
    this.size = all ? Infinity : PAGE;
    this.draw(true);
  }

  draw(asked) {
    this.found = this.matching();
    const busy = !asked && this.body.contains(document.activeElement);
    if (busy) this.keep();
    else this.arrange();
    const last = Math.max(0, Math.ceil(this.found.length / this.size) - 1);
    this.page = Math.min(Math.max(this.page, 0), last);
    const start = this.size === Infinity ? 0 : this.page * this.size;
    this.place(this.found.slice(start, start + this.size));
    this.say(start, last);
  }

  matching() {
    const wanted = this.filter?.value.trim().toLowerCase();
    if (!wanted) return [...this.rows];
    return this.rows.filter((row) => this.search(row).toLowerCase().includes(wanted));
  }

  arrange() {
    if (this.column === null) return;
    const { value, show } = this.columns[this.column];
    const get = value ?? show;
    const valued = this.found.map((row) => [get(row), row]);
    valued.sort(([one], [other]) => compare(one, other) * this.direction);
    this.found = valued.map(([, row]) => row);
  }

  /** The order that is on the screen, new rows behind it. */
  keep() {
    const places = new Map(this.kept.map((key, at) => [key, at]));
    const place = (row) => places.get(this.key(row)) ?? Infinity;
    this.found.sort((one, other) => compare(place(one), place(other)));
  }

  place(rows) {
    const old = this.shown;
    this.shown = new Map();
    this.kept = this.found.map(this.key);
    let at = this.body.firstChild;
    for (const row of rows) {
      const key = this.key(row);
      const line = old.get(key) ?? this.line();
      old.delete(key);
      this.fill(line, row);
      this.shown.set(key, line);
      if (line === at) at = at.nextSibling;
      else this.body.insertBefore(line, at);
    }
    for (const line of old.values()) line.remove();
    this.nothing?.remove();
    if (!rows.length) {
      this.nothing ??= element("tr");
      const words = this.rows.length ? "none matches the filter" : this.empty;
      this.nothing.replaceChildren(
        element("td", words, { colspan: this.columns.length, class: "soft" }),
      );
      this.body.append(this.nothing);
    }
  }

  line() {
    const line = element("tr");
    for (const { heads, number } of this.columns) {
      line.append(
        element(heads ? "th" : "td", "", {
          class: number ? "number" : "",
          ...(heads && { scope: "row" }),
        }),
      );
    }
    return line;
  }

  fill(line, row) {
    this.columns.forEach((column, at) => {
      const value = column.show(row);
      const { text, level = "", sign = "" } = typeof value === "object" ? value : { text: value };
      const cell = line.children[at];
      if (cell.content === text && cell.level === level) return;
      Object.assign(cell, { content: text, level });
      const { shown, whole } = cut(text, column.most ?? LONGEST);
      const parts = [element("bdi", shown)];
      if (sign) parts.unshift(element("span", `${sign} `, { "aria-hidden": "true" }));
      if (!whole) parts.push(this.more(column.title, text));
      cell.dataset.level = level;
      cell.replaceChildren(...parts);
    });
  }

  more(title, text) {
    const label = `${title}: show all ${count(text.length)} characters`;
    const button = element("button", "⋯", { type: "button", class: "more", "aria-label": label });
    button.addEventListener("click", () => this.open(title, text));
    return button;
  }

  say(start, last) {
    const found = this.found.length;
    const here = `${count(start + 1)}–${count(Math.min(start + this.size, found))} of `;
    const some = found < this.total ? ` of ${count(this.total)}` : "";
    this.where = `${found > this.size ? here : ""}${many(found, this.noun)}${some}${this.remark}`;
    this.count.textContent = this.where;
    if (this.pages) {
      this.pages.hidden = last === 0 || this.size === Infinity;
      this.back.disabled = this.page === 0;
      this.on.disabled = this.page === last;
    }
    this.heads.forEach((head, at) => {
      if (at !== this.column) head.removeAttribute("aria-sort");
      else head.setAttribute("aria-sort", this.direction > 0 ? "ascending" : "descending");
    });
  }
}

function compare(one, other) {
  if (Array.isArray(one)) {
    const at = one.findIndex((each, place) => each !== other[place]);
    return at < 0 ? 0 : compare(one[at], other[at]);
  }
  if (typeof one === "object" && one !== null) return compare(one.text, other.text);
  if (typeof one === "string" && typeof other === "string") {
    return one.localeCompare(other, "en", { numeric: true });
  }
  return one < other ? -1 : one > other ? 1 : 0;
}
