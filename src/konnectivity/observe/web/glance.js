// What one sees first: whose page it is, and the largest figures.

import { titleOf } from "./columns.js";
import { element } from "./table.js";
import { count, cut, duration, seconds, speed, total, visible } from "./text.js";

const at = (id) => document.getElementById(id);

/** Whose page this is, and why it is not ready. */
export function heading(status, program) {
  const role = status.server ? "Konnectivity server" : "Konnectivity agent";
  at("role").textContent = role;
  at("id").textContent = cut(program.id, 80).shown;
  document.title = `${cut(program.id, 40).shown} · ${role}`;
  const parts = [
    `version ${visible(program.version)}`,
    program.state,
    `up ${duration(seconds(program.startedAt, status.generatedAt))}`,
  ];
  if (program.modes.length) parts.push(program.modes.join(" and "));
  if (program.strategies.length) parts.push(`strategies ${program.strategies.join(", ")}`);
  at("about").textContent = visible(parts.join(" · "));
  at("unready").hidden = program.ready;
  at("unready").textContent = program.ready
    ? ""
    : `▲ not ready: ${cut(program.unready, 300).shown}`;
}

/** The largest figures; `newest` are the speeds. */
export function tiles(status, connected, noun, newest) {
  const { tunnelCounts, dials, tunnelsEnded } = status;
  const wanted =
    status.serversWanted === undefined ? "" : `of ${count(status.serversWanted)} wanted`;
  const draining = connected.filter((peer) => peer.draining).length;
  const found = [
    [
      titleOf(noun),
      count(connected.length),
      wanted || (draining ? `${count(draining)} draining` : "connected"),
    ],
    [
      "Tunnels",
      count(tunnelCounts.open),
      `${count(tunnelCounts.dialing)} dialing, ${count(tunnelCounts.closing)} closing`,
    ],
    ["Dials", count(dials.succeeded), `${count(dials.pending)} under way`],
    ["Failed dials", count(total(dials.failed)), reasons(dials.failed) || "none since the start"],
    ["Down", speed(newest.down), "from endpoints"],
    ["Up", speed(newest.up), "to endpoints"],
    ["Ended tunnels", count(total(tunnelsEnded)), reasons(tunnelsEnded) || "none since the start"],
  ];
  if (status.connectionFailures && Object.keys(status.connectionFailures).length) {
    const stages = status.connectionFailures;
    found.push(["Failed connections", count(total(stages)), reasons(stages)]);
  }
  at("tiles").replaceChildren(
    ...found.map(([title, value, note]) => {
      const tile = element("div");
      tile.append(
        element("dt", title),
        element("dd", value, { class: "value" }),
        element("dd", note, { class: "soft" }),
      );
      return tile;
    }),
  );
}

/** "refused 3, timeout 1": the three largest. */
function reasons(counted) {
  const found = Object.entries(counted)
    .filter(([, each]) => each)
    .sort(([, one], [, other]) => other - one);
  const some = found
    .slice(0, 3)
    .map(([name, each]) => `${visible(name).replaceAll("_", " ")} ${count(each)}`);
  return some.join(", ") + (found.length > 3 ? ", …" : "");
}
