// The service's own description of itself, from /openapi.json, without asking anybody else.

const make = (tag, text, ...children) => {
  const found = document.createElement(tag);
  if (text) found.textContent = text;
  found.append(...children);
  return found;
};

const described = await (await fetch("/openapi.json")).json();
const named = (schema) => (schema?.$ref ? described.components.schemas[schema.$ref.split("/").at(-1)] : schema) ?? {};
const typed = (schema) => {
  const found = named(schema);
  const types = found.anyOf ? found.anyOf.map((one) => typed(one)).join(" or ") : [found.type].flat().join(" or ");
  return found.title && found.type === "object" ? found.title : types;
};

function fields(schema, depth = 0) {
  const found = named(schema);
  const rows = Object.entries(found.properties ?? {}).flatMap(([name, one]) => {
    const inner = named(one.items?.$ref ? one.items : one);
    const about = [one.description ?? inner.description, "default" in one ? `Default: ${JSON.stringify(one.default)}.` : ""].filter(Boolean).join(" ");
    const row = make("tr", "", make("td", "", make("code", `${" · ".repeat(depth)}${name}`)), make("td", typed(one)), make("td", about));
    return [row, ...(depth < 2 && inner.properties ? fields(inner, depth + 1) : [])];
  });
  return rows;
}

const table = (title, rows) => (rows.length ? [make("h3", title), make("table", "", make("tbody", "", ...rows))] : []);

document.getElementById("about").textContent = described.info.description;
for (const [path, verbs] of Object.entries(described.paths)) {
  for (const [verb, one] of Object.entries(verbs)) {
    const given = (one.parameters ?? []).map((p) =>
      make("tr", "", make("td", "", make("code", p.name)), make("td", typed(p.schema)), make("td", p.description ?? p.schema.description ?? "")),
    );
    const bodies = Object.entries(one.requestBody?.content ?? {}).flatMap(([kind, { schema }]) =>
      schema.properties ? table(`Body, ${kind}`, fields(schema)) : [make("h3", `Body, ${kind}`), make("p", schema.description)],
    );
    const answer = one.responses["200"]?.content?.["application/json"]?.schema;
    document.getElementById("paths").append(
      make("h2", `${verb.toUpperCase()} ${path}`), make("p", one.description ?? ""), ...table("Parameters", given), ...bodies, ...table("Answer", fields(answer)),
    );
  }
}
document.documentElement.dataset.ready = "yes";
