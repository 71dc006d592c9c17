// An evaluation: the errors of its rows as a scatter, and the way from each to its scene.

import * as api from "./api.js";
import * as draw from "./draw.js";

const $ = (id) => document.getElementById(id);
const WORST = 12;
let rows = [];
let places = [];
let jump = () => {};

export async function openEvaluations(names, choose) {
  jump = (row) => {
    $("evaluation").close();
    choose(row.clip_id, row.t0_us);
  };
  $("which").replaceChildren(...names.map((name, i) => new Option(name, i)));
  $("which").onchange = show;
  $("scatter").onmousemove = (event) => redraw(nearest(event));
  $("scatter").onmouseleave = () => redraw(null);
  $("scatter").onclick = (event) => {
    const row = nearest(event);
    if (row) jump(row);
  };
  $("evaluation").showModal();
  await show();
}

async function show() {
  try {
    const found = await api.keep(`evaluation ${$("which").value}`, () => api.get(`/api/evaluations/${$("which").value}`)).promise;
    rows = found.rows;
  } catch (error) {
    rows = [];
    $("evaluation-about").textContent = error.message;
    return;
  }
  redraw(null);
  const worst = rows.filter((row) => row.min_ade !== null).sort((a, b) => b.min_ade - a.min_ade).slice(0, WORST);
  $("worst").replaceChildren(
    ...worst.map((row) => {
      const item = document.createElement("li");
      const button = document.createElement("button");
      button.type = "button";
      button.textContent = line(row);
      button.onclick = () => jump(row);
      button.onmouseenter = button.onfocus = () => redraw(row);
      item.append(button);
      return item;
    }),
  );
}

function redraw(lit) {
  places = draw.scatter($("scatter"), rows, lit);
  const failed = rows.filter((row) => row.error).length;
  $("evaluation-about").textContent = lit ? line(lit) : `${rows.length} rows${failed ? `, ${failed} failed` : ""}; click a point to see its scene.`;
  $("scatter").setAttribute("aria-label", `Errors of ${places.length} rows: constant velocity across, the model up. The largest are listed below.`);
}

function line(row) {
  const said = (row.reasoning?.[row.chosen ?? 0] ?? "").trim() || "(no words)";
  return `${row.min_ade.toFixed(2)} m · ${row.clip_id.slice(0, 8)} at ${(row.t0_us / 1e6).toFixed(1)} s · ${said}`;
}

function nearest(event) {
  const box = $("scatter").getBoundingClientRect();
  const [x, y] = [event.clientX - box.left, event.clientY - box.top];
  const found = places.map((one) => ({ row: one.row, far: Math.hypot(one.x - x, one.y - y) })).sort((a, b) => a.far - b.far)[0];
  return found && found.far < 24 ? found.row : null;
}
