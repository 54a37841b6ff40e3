"use strict";
(async () => {
  const charts = JSON.parse(document.getElementById("charts").textContent);
  const [slider, head, token] = ["layer", "head", "token"].map((name) => document.getElementById(name));

  // What the two plots of the sentence show, for whoever does not see them. Of cosines each pair is listed twice.
  const tokens = charts.graph?.params.find((param) => param.name === "tokens").value;
  const label = (k) => (tokens.indexOf(tokens[k]) === tokens.lastIndexOf(tokens[k]) ? tokens[k] : `${k + 1}: ${tokens[k]}`);
  const strongest = (rows, between, wanted) => rows
    .flatMap((row) => row.j.map((j, k) => ({ i: row.i, j, value: row.value[k] })))
    .filter((pair) => (token.value === "0" ? wanted(pair) : pair.i === token.value - 1 && (wanted(pair) || pair.i > pair.j)))
    .sort((a, b) => b.value - a.value).slice(0, 3)
    .map(({ i, j, value }) => `“${label(i)}” ${between} “${label(j)}” (${value.toFixed(2)})`).join(", ");
  const say = () => {
    const layer = Number(slider.value);
    document.getElementById("layer-shown").textContent = layer === 0 ? "0 (embedding output)" : layer;
    const cosines = charts.cosine.data.values.filter((row) => row.layer === layer);
    const edges = charts.graph.layer[0].data.values.filter((row) => row.layer === layer && row.head === Number(head.value));
    document.getElementById("in-words").textContent = [
      ["Most alike", strongest(cosines, "and", (pair) => pair.i < pair.j)],
      ["Strongest attention", strongest(edges, "to", () => true)],
    ].filter(([, found]) => found).map(([what, found]) => `${what}: ${found}.`).join(" ");
  };
  if (slider !== null) {
    slider.addEventListener("input", say);
    [head, token].forEach((list) => list.addEventListener("change", say));
    say();
  }

  const saver = (name, view) => {
    const button = document.createElement("button");
    button.type = "button";
    button.className = "save";
    button.textContent = "Save as SVG";
    button.setAttribute("aria-label", `Save as SVG: ${name}`);
    button.addEventListener("click", async () => {
      const link = document.createElement("a");
      link.href = URL.createObjectURL(new Blob([await view.toSVG()], { type: "image/svg+xml" }));
      link.download = `${name}.svg`;
      link.click();
      setTimeout(() => URL.revokeObjectURL(link.href), 10000);
    });
    return button;
  };
  for (const [name, chart] of Object.entries(charts)) {
    const place = document.getElementById(name);
    // With `ast`, expressions are interpreted: the page's policy lets no text become a program. Vega reads the slider
    // and the lists by itself.
    const said = place.getAttribute("aria-label");
    place.view = (await vegaEmbed(place, chart, { actions: false, ast: true, renderer: "svg" })).view;
    // The plot is one image, described; Vega makes a document of hundreds of parts of it.
    place.setAttribute("role", "img");
    place.setAttribute("aria-label", said);
    place.removeAttribute("aria-roledescription");
    for (const drawn of place.children) drawn.setAttribute("aria-hidden", "true");
    place.after(saver(name, place.view));
  }
  document.documentElement.dataset.ready = "yes";
})();
