// Pictures: a camera with corridors, the view from above, curves over time, a scatter. Pure functions of what they are given.

export const TITLES = {
  camera_front_wide_120fov: "Front",
  camera_cross_left_120fov: "Left",
  camera_cross_right_120fov: "Right",
  camera_front_tele_30fov: "Front, far",
  camera_rear_left_70fov: "Rear left",
  camera_rear_tele_30fov: "Rear",
  camera_rear_right_70fov: "Rear right",
};

const BLUE = "#2b8cff";
const ORANGE = "#ff9a3d";
const PALE = { free: "#b9d9ff", other: "#ffd9b3" };

export const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();

/** The canvas at its size on the screen, in dots, with its context scaled to CSS pixels. */
export function sheet(canvas) {
  const { width, height } = canvas.getBoundingClientRect();
  const dots = Math.min(window.devicePixelRatio || 1, 2);
  if (canvas.width !== Math.round(width * dots) || canvas.height !== Math.round(height * dots)) {
    canvas.width = Math.round(width * dots);
    canvas.height = Math.round(height * dots);
  }
  const pen = canvas.getContext("2d");
  pen.setTransform(dots, 0, 0, dots, 0, 0);
  pen.clearRect(0, 0, width, height);
  return { pen, width, height };
}

/** A camera's picture with each path's corridor. paths: [{border, kind, lit}], drawn in order; truth: a border or null. */
export function camera(canvas, picture, paths, truth) {
  const { pen, width, height } = sheet(canvas);
  if (picture) pen.drawImage(picture, 0, 0, width, height);
  for (const { border, kind, lit } of paths) {
    const shade = kind === "other" ? ORANGE : BLUE;
    if (lit) {
      corridor(pen, border, width, height, shade);
    } else {
      centre(pen, border, width, height, PALE[kind], 1.5, kind === "other" ? [6, 4] : []);
    }
  }
  if (truth) {
    centre(pen, truth, width, height, "#000", 3.4, []);
    centre(pen, truth, width, height, "#fff", 1.8, [3, 4]);
  }
}

function corridor(pen, { left, right }, width, height, shade) {
  pen.fillStyle = shade;
  const at = ([x, y]) => [x * width, y * height];
  for (let i = left.length - 2; i >= 0; i--) {
    const corners = [left[i], left[i + 1], right[i + 1], right[i]];
    if (corners.some((one) => !one)) continue;
    pen.globalAlpha = 0.5 - (0.2 * i) / left.length;
    pen.beginPath();
    corners.map(at).forEach(([x, y], k) => (k ? pen.lineTo(x, y) : pen.moveTo(x, y)));
    pen.fill();
  }
  pen.globalAlpha = 1;
  for (const side of [left, right]) line(pen, side, at, shade, 2, []);
}

function centre(pen, { left, right }, width, height, shade, thick, dash) {
  const middle = left.map((one, i) => (one && right[i] ? [(one[0] + right[i][0]) / 2, (one[1] + right[i][1]) / 2] : null));
  line(pen, middle, ([x, y]) => [x * width, y * height], shade, thick, dash);
}

function line(pen, points, at, shade, thick, dash) {
  pen.strokeStyle = shade;
  pen.lineWidth = thick;
  pen.lineJoin = "round";
  pen.setLineDash(dash);
  pen.beginPath();
  let down = false;
  for (const point of points) {
    if (!point) {
      down = false;
      continue;
    }
    const [x, y] = at(point);
    if (down) pen.lineTo(x, y);
    else pen.moveTo(x, y);
    down = true;
  }
  pen.stroke();
  pen.setLineDash([]);
}

/** From above: x forward is up, y left is left. paths: [{xyz, kind, lit}]. */
export function above(canvas, scene, paths) {
  const { pen, width, height } = sheet(canvas);
  if (!scene) return;
  const future = known(scene.future?.xyz);
  const points = [...scene.history.xyz, ...future, ...paths.flatMap(({ xyz }) => xyz)];
  const low = Math.min(-8, ...points.map((p) => p[0])) - 3;
  const high = Math.max(24, ...points.map((p) => p[0])) + 5;
  const aside = Math.max(10, 1.15 * Math.max(...points.map((p) => Math.abs(p[1]))));
  const scale = Math.min(height / (high - low), width / (2 * aside));
  const base = height / 2 + (scale * (high + low)) / 2;
  const at = ([x, y]) => [width / 2 - y * scale, base - x * scale];
  grid(pen, width, height, scale, base);
  for (const { kind, xy } of scene.markings) {
    const shade = { centre: colour("middle"), stop: colour("bad") }[kind] ?? colour("paint");
    line(pen, xy, at, shade, kind === "stop" ? 3 : 1.5, kind === "lane" ? [8, 8] : []);
  }
  for (const one of scene.obstacles) box(pen, at, one.x, one.y, one.yaw, one.length, one.width, colour("object"));
  line(pen, scene.history.xyz, at, colour("past"), 3, []);
  const ordered = [...paths.filter((p) => !p.lit), ...paths.filter((p) => p.lit)];
  for (const { xyz, kind, lit } of ordered) {
    pen.globalAlpha = lit ? 1 : 0.55;
    line(pen, [[0, 0], ...xyz], at, colour(kind), lit ? 4 : 1.6, kind === "other" ? [9, 5] : []);
    pen.globalAlpha = 1;
    if (lit) dots(pen, xyz, at, colour(kind));
  }
  line(pen, future.length ? [[0, 0], ...future] : [], at, colour("truth"), 2, [2, 5]);
  box(pen, at, scene.car.rear_axle_to_bbox_center, 0, 0, scene.car.length, scene.car.width, colour("ink"));
}

const known = (xyz) => (xyz ?? []).filter((p) => p[0] !== null);

function dots(pen, xyz, at, shade) {
  pen.fillStyle = shade;
  for (let i = 9; i < xyz.length; i += 10) {
    const [x, y] = at(xyz[i]);
    pen.beginPath();
    pen.arc(x, y, 4.5, 0, 7);
    pen.fill();
  }
}

function grid(pen, width, height, scale, base) {
  const metres = [5, 10, 20, 50, 100].find((m) => m * scale >= 56) ?? 200;
  pen.strokeStyle = colour("rule");
  pen.fillStyle = colour("soft");
  pen.lineWidth = 1;
  pen.font = "12px system-ui, sans-serif";
  pen.textBaseline = "bottom";
  for (let x = Math.ceil((base - height) / scale / metres) * metres; x <= base / scale; x += metres) {
    const y = Math.round(base - x * scale) + 0.5;
    pen.beginPath();
    pen.moveTo(0, y);
    pen.lineTo(width, y);
    pen.stroke();
    pen.fillText(`${x} m`, 6, y - 1);
  }
}

function box(pen, at, x, y, yaw, length, width, shade) {
  const c = Math.cos(yaw);
  const s = Math.sin(yaw);
  const corners = [[-0.5, -0.5], [0.4, -0.5], [0.5, -0.3], [0.5, 0.3], [0.4, 0.5], [-0.5, 0.5]];
  pen.fillStyle = shade;
  pen.beginPath();
  corners.forEach(([a, b], i) => {
    const [u, v] = at([x + c * a * length - s * b * width, y + s * a * length + c * b * width]);
    if (i) pen.lineTo(u, v);
    else pen.moveTo(u, v);
  });
  pen.fill();
}

export function speed(xyz, dt) {
  return xyz.slice(1).map((p, i) => (p[0] === null || xyz[i][0] === null ? null : Math.hypot(p[0] - xyz[i][0], p[1] - xyz[i][1]) / dt));
}

export function curvature(xyz, dt) {
  const steps = xyz.slice(1).map((p, i) => (p[0] === null || xyz[i][0] === null ? null : [p[0] - xyz[i][0], p[1] - xyz[i][1]]));
  const found = steps.slice(1).map((b, i) => {
    const a = steps[i];
    if (!a || !b) return null;
    const [la, lb] = [Math.hypot(...a), Math.hypot(...b)];
    if (Math.min(la, lb) < dt) return null;
    let turn = Math.atan2(b[1], b[0]) - Math.atan2(a[1], a[0]);
    turn = turn - 2 * Math.PI * Math.round(turn / (2 * Math.PI));
    return (2 * turn) / (la + lb);
  });
  return [found[0] ?? null, ...found];
}

/** A quantity over time: history before 0, paths and truth after it. */
export function curve(canvas, scene, paths, quantity, unit, least) {
  const { pen, width, height } = sheet(canvas);
  if (!scene) return;
  const dt = scene.history.dt;
  const past = quantity(scene.history.xyz, dt);
  const lines = paths.map((path) => ({ ...path, values: quantity([[0, 0, 0], ...path.xyz], dt) }));
  const truth = scene.future ? quantity([[0, 0, 0], ...scene.future.xyz], dt) : [];
  const all = [...past, ...truth, ...lines.flatMap((one) => one.values)].filter((v) => v !== null && Number.isFinite(v));
  const low = Math.min(unit === "m/s" ? 0 : -least, ...all);
  const high = Math.max(least, ...all) + (unit === "m/s" ? 0.5 : 0);
  const [left, top, bottom] = [50, 8, height - 22];
  const x = (t) => left + ((t + 1.6) / 8) * (width - left - 8);
  const y = (v) => bottom - ((v - low) / (high - low)) * (bottom - top);
  pen.font = "12px system-ui, sans-serif";
  pen.fillStyle = colour("soft");
  pen.strokeStyle = colour("rule");
  pen.textAlign = "right";
  pen.textBaseline = "middle";
  const step = nice((high - low) / 3);
  for (let v = Math.ceil(low / step) * step; v <= high; v += step) {
    pen.beginPath();
    pen.moveTo(left, y(v));
    pen.lineTo(width - 8, y(v));
    pen.stroke();
    pen.fillText(`${Number(v.toPrecision(3))}`, left - 6, y(v));
  }
  pen.textAlign = "center";
  pen.textBaseline = "alphabetic";
  for (const t of [0, 2, 4, 6]) pen.fillText(`${t} s`, x(t), height - 6);
  pen.textAlign = "left";
  pen.fillText(unit, 2, height - 6);
  line(pen, [[x(0), top], [x(0), bottom]], (p) => p, colour("strong"), 1, [2, 3]);
  const run = (values, first, shade, thick, dash, clear) => {
    pen.globalAlpha = clear;
    const points = values.map((v, i) => (v === null ? null : [x(first + dt * (i + 0.5)), y(v)]));
    line(pen, points, (p) => p, shade, thick, dash);
    pen.globalAlpha = 1;
  };
  run(past, -dt * past.length, colour("past"), 2, [], 1);
  for (const one of [...lines.filter((p) => !p.lit), ...lines.filter((p) => p.lit)]) {
    run(one.values, 0, colour(one.kind), one.lit ? 3 : 1.2, one.kind === "other" ? [7, 4] : [], one.lit ? 1 : 0.55);
  }
  run(truth, 0, colour("truth"), 1.8, [2, 4], 1);
}

function nice(step) {
  const ten = 10 ** Math.floor(Math.log10(step));
  return [1, 2, 5, 10].map((k) => k * ten).find((k) => k >= step);
}

/** Errors of an evaluation, the baseline's across and the model's up, both on a logarithmic scale. Returns each row's place. */
export function scatter(canvas, rows, lit) {
  const { pen, width, height } = sheet(canvas);
  const scored = rows.filter((row) => row.min_ade !== null && row.cv_min_ade !== null);
  if (!scored.length) return [];
  const values = scored.flatMap((row) => [row.min_ade, row.cv_min_ade]).map((v) => Math.log10(Math.max(v, 0.01)));
  const [low, high] = [Math.floor(Math.min(...values)), Math.ceil(Math.max(...values))];
  const [left, bottom] = [56, height - 40];
  const x = (v) => left + ((Math.log10(Math.max(v, 0.01)) - low) / (high - low)) * (width - left - 28);
  const y = (v) => bottom - ((Math.log10(Math.max(v, 0.01)) - low) / (high - low)) * (bottom - 12);
  pen.font = "12px system-ui, sans-serif";
  pen.fillStyle = colour("soft");
  for (let k = low; k <= high; k++) {
    const v = 10 ** k;
    line(pen, [[x(v), 12], [x(v), bottom]], (p) => p, colour("rule"), 1, []);
    line(pen, [[left, y(v)], [width - 28, y(v)]], (p) => p, colour("rule"), 1, []);
    pen.textAlign = "center";
    pen.fillText(`${v} m`, x(v), bottom + 16);
    pen.textAlign = "right";
    pen.fillText(`${v} m`, left - 6, y(v) + 4);
  }
  line(pen, [[x(10 ** low), y(10 ** low)], [x(10 ** high), y(10 ** high)]], (p) => p, colour("strong"), 1, [3, 4]);
  pen.textAlign = "center";
  pen.fillText("constant velocity, minADE", (left + width) / 2, height - 6);
  pen.textAlign = "left";
  pen.fillText("the model, minADE", left + 6, 28);
  const places = scored.map((row) => ({ row, x: x(row.cv_min_ade), y: y(row.min_ade) }));
  for (const one of places) {
    pen.fillStyle = one.row === lit ? colour("other") : colour("free");
    pen.globalAlpha = one.row === lit ? 1 : 0.7;
    pen.beginPath();
    pen.arc(one.x, one.y, one.row === lit ? 8 : 5, 0, 7);
    pen.fill();
  }
  pen.globalAlpha = 1;
  return places;
}
