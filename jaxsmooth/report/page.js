"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const blocks = data.layers.slice(1);
  const narrow = () => window.innerWidth < 640;
  const touch = window.matchMedia("(pointer: coarse)").matches;
  const config = { responsive: true, displaylogo: false, displayModeBar: false, scrollZoom: false };
  const SVG = "http://www.w3.org/2000/svg";
  const STEPS = 65534;

  // Plotly reads a little HTML in labels; a token is text and must stay so.
  const plain = (text) => text.replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;");
  const short = (text, limit) => {
    const letters = Array.from(text);
    return letters.length > limit ? letters.slice(0, limit - 1).join("") + "…" : text;
  };
  const numbers = (layers) => layers.map((entry) => entry.layer);
  const tint = (colour, alpha) =>
    `rgba(${[1, 3, 5].map((at) => parseInt(colour.slice(at, at + 2), 16)).join(",")},${alpha})`;

  const layout = (more) => ({
    margin: { l: 66, r: 14, t: 10, b: 52 },
    font: { family: "system-ui, sans-serif", size: 13, color: "#1c2330" },
    hovermode: "x unified",
    // A finger that drags across a plot means to scroll the page.
    dragmode: touch ? false : "zoom",
    // Above the plot, Plotly makes room for as many lines as a narrow screen needs.
    legend: { orientation: "h", x: 0, y: 1.02, yanchor: "bottom" },
    paper_bgcolor: "rgba(0,0,0,0)",
    plot_bgcolor: "rgba(0,0,0,0)",
    ...more,
  });
  const layerAxis = (layers, title) => ({
    title: { text: title, standoff: 8 },
    tickmode: layers.length <= 14 ? "linear" : "auto",
    dtick: 1,
    gridcolor: "#eceff3",
    zeroline: false,
    range: [layers[0].layer - 0.3, layers[layers.length - 1].layer + 0.3],
  });
  const valueAxis = (title, more) => ({ title: { text: title }, gridcolor: "#eceff3", zeroline: false, ...more });

  const logAxis = (title, values) => {
    const defined = values.filter((value) => value !== null && value > 0).map(Math.log10);
    const range = defined.length ? [Math.min(...defined) - 0.25, Math.max(...defined) + 0.25] : [-1, 1];
    const leads = range[1] - range[0] > 1.6 ? [1] : [1, 2, 5];
    const skip = Math.max(1, Math.ceil((range[1] - range[0]) / 9));
    const powers = Array.from({ length: Math.ceil(range[1]) - Math.floor(range[0]) + 1 }, (_, at) => Math.floor(range[0]) + at);
    const ticks = powers.filter((power) => power % skip === 0).flatMap((power) => leads.map((lead) => lead * 10 ** power));
    const written = (value) => (value >= 1e7 ? value.toExponential(0) : Number(value.toPrecision(1)).toLocaleString("en", { maximumSignificantDigits: 1 }));
    return valueAxis(title, { type: "log", range, tickvals: ticks, ticktext: ticks.map(written) });
  };

  function area(x, low, high, colour, alpha, group) {
    const edge = { x, mode: "lines", line: { width: 0 }, hoverinfo: "skip", showlegend: false, legendgroup: group };
    return [{ ...edge, y: low }, { ...edge, y: high, fill: "tonexty", fillcolor: tint(colour, alpha) }];
  }
  function line(x, y, colour, name, symbol, width) {
    return {
      x, y, name, legendgroup: name, mode: "lines+markers",
      line: { color: colour, width: width || 2.5 }, marker: { color: colour, size: 8, symbol },
      hovertemplate: "%{y:,.3~r}",
    };
  }
  function band(layers, quantity, name, colour, symbol) {
    const x = numbers(layers);
    const mean = layers.map((entry) => entry[quantity]);
    const spread = layers.map((entry) => entry.spread[quantity]);
    const shifted = (sign) => mean.map((value, at) => (value === null ? null : value + sign * spread[at].std));
    return [
      ...area(x, spread.map((s) => s.min), spread.map((s) => s.max), colour, 0.1, name),
      ...area(x, shifted(-1), shifted(1), colour, 0.2, name),
      line(x, mean, colour, name, symbol),
    ];
  }

  function drawSimilarity() {
    Plotly.newPlot("similarity", [
      ...band(data.layers, "cosine_similarity", "cosine similarity (1 = same)", data.colours.cosine, "circle"),
      ...band(data.layers, "relative_distance", "relative distance (0 = same)", data.colours.distance, "square"),
    ], layout({
      xaxis: layerAxis(data.layers, "layer (0 = embedding output)"),
      yaxis: valueAxis("no unit", { range: [lowest(), 1.05] }),
    }), config);
  }
  function lowest() {
    const values = data.layers.map((entry) => entry.spread.cosine_similarity.min).filter((value) => value !== null);
    return Math.min(-0.05, ...values.map((value) => value - 0.05));
  }

  const inLadder = ["L0", "L1", "L2", "L2b", "L3", "L4", "actual"];
  const positive = (values) => values.map((value) => (value !== null && value > 0 ? value : null));
  function drawLadder() {
    const x = numbers(blocks);
    const symbols = ["x", "triangle-up", "cross", "square", "diamond", "triangle-down", "circle"];
    const all = blocks.flatMap((entry) => inLadder.map((name) => entry.rates[name]));
    const spread = (edge) => positive(blocks.map((entry) => entry.spread.rates.actual[edge]));
    Plotly.newPlot("ladder", [
      ...area(x, spread("min"), spread("max"), "#000000", 0.13, data.labels.actual),
      ...inLadder.map((name, at) => line(x, positive(blocks.map((entry) => entry.rates[name])), data.colours[name],
        data.labels[name], symbols[at], name === "actual" ? 4 : 2)),
    ], layout({
      xaxis: layerAxis(blocks, "layer"),
      yaxis: logAxis("d<sub>M</sub> after / d<sub>M</sub> before", [0.3, 3, ...all]),
      shapes: [
        { type: "rect", xref: "paper", x0: 0, x1: 1, y0: 1e-9, y1: 1, fillcolor: "#DDF1E4", line: { width: 0 }, layer: "below" },
        { type: "line", xref: "paper", x0: 0, x1: 1, y0: 1, y1: 1, line: { color: "#3B7A57", dash: "dash", width: 1.5 } },
      ],
    }), config);
  }

  function drawLogBands(place, title, bands) {
    const edges = bands.flatMap(([quantity]) => blocks.flatMap(({ spread }) => [spread[quantity].min, spread[quantity].max]));
    const traces = bands.flatMap(([quantity, name, symbol]) => band(blocks, quantity, name, data.colours[quantity], symbol));
    Plotly.newPlot(place, traces.map((trace) => ({ ...trace, y: positive(trace.y) })), layout({
      xaxis: layerAxis(blocks, "layer"),
      yaxis: logAxis(title, edges),
    }), config);
  }
  function drawNorms() {
    drawLogBands("threshold", "product of two stds", [
      ["threshold", "threshold (L1)", "triangle-up"],
      ["std_product", "product of the smallest stds", "circle"],
    ]);
    drawLogBands("norms", "std of a token's features", [
      ["std_attn", "attention LayerNorm", "circle"],
      ["std_mlp", "MLP LayerNorm", "square"],
    ]);
  }

  function drawMixing() {
    const z = blocks.map((entry) => entry.heads.mixing_rate);
    const heads = z[0].map((_, at) => at + 1);
    const top = Math.max(2, ...z.flat().filter((value) => value !== null));
    document.getElementById("mixing").style.height = `${Math.max(260, 30 * z.length + 130)}px`;
    Plotly.newPlot("mixing", [{
      type: "heatmap", z, x: heads, y: numbers(blocks), zmin: 0, zmid: 1, zmax: top, xgap: 1, ygap: 1,
      colorscale: [[0, "#542788"], [0.25, "#998ec3"], [0.5, "#f7f7f7"], [0.75, "#f1a340"], [1, "#b35806"]],
      texttemplate: heads.length <= (narrow() ? 12 : 20) ? "%{z:.2f}" : "",
      textfont: { size: narrow() ? 9 : 12 },
      hovertemplate: "layer %{y}, head %{x}<br>√λ = %{z:.3f}<extra></extra>",
      colorbar: { title: { text: "√λ" }, thickness: 12 },
      showscale: !narrow(),
    }], layout({
      hovermode: "closest",
      margin: { l: 48, r: 10, t: 10, b: 44 },
      xaxis: { title: { text: "head" }, dtick: 1, showgrid: false, zeroline: false },
      yaxis: { title: { text: "layer" }, dtick: 1, autorange: "reversed", showgrid: false, zeroline: false },
    }), config);
  }

  function unpack(text, low, high) {
    const bytes = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
    const view = new DataView(bytes.buffer);
    return Array.from({ length: bytes.length / 2 }, (_, at) => {
      const step = view.getUint16(2 * at, true);
      return step > STEPS ? null : low + (step / STEPS) * (high - low);
    });
  }
  const matrix = (values, at, size) =>
    Array.from({ length: size }, (_, row) => values.slice(at + row * size, at + (row + 1) * size));

  function exemplarView(sentence) {
    const { tokens, heads } = sentence;
    const size = tokens.length;
    const cosine = unpack(sentence.cosine, -1, 1);
    const attn = unpack(sentence.attn, 0, 1);
    const head = (layer, chosen) => matrix(attn, ((layer - 1) * heads + chosen) * size * size, size);
    const mean = (layer) => {
      const all = Array.from({ length: heads }, (_, at) => head(layer, at));
      return all[0].map((row, i) => row.map((_, j) => all.reduce((sum, one) => sum + one[i][j], 0) / heads));
    };
    return {
      tokens,
      cosine: (layer) => matrix(cosine, layer * size * size, size),
      attention: (layer, chosen) => (chosen === "mean" ? mean(layer) : head(layer, Number(chosen))),
    };
  }

  function drawCosine(view, layer) {
    const z = view.cosine(layer);
    const places = view.tokens.map((_, at) => at);
    const labels = view.tokens.map((token) => plain(short(token, 12)));
    const box = document.getElementById("cosine");
    const labelled = labels.length <= (narrow() ? 26 : 44);
    box.style.height = `${Math.min(box.clientWidth + 30, 560)}px`;
    const axis = { tickvals: labelled ? places : [], ticktext: labelled ? labels : [], showgrid: false, zeroline: false, automargin: true };
    const low = Math.min(0, ...z.flat().filter((value) => value !== null));
    Plotly.react(box, [{
      type: "heatmap", z, x: places, y: places, zmin: low, zmax: 1, colorscale: "Cividis",
      text: z.map((row, i) => row.map((_, j) => `${labels[i]} and ${labels[j]}`)),
      hovertemplate: "%{text}<br>cosine %{z:.3f}<extra></extra>",
      colorbar: { thickness: 12 }, showscale: !narrow(),
    }], layout({
      hovermode: "closest",
      margin: { l: 10, r: 10, t: 6, b: 10 },
      font: { size: labels.length > 24 ? 10 : 12, family: "system-ui, sans-serif" },
      xaxis: { ...axis, tickangle: -90 },
      yaxis: { ...axis, autorange: "reversed" },
    }), config);
    const pairs = z.flatMap((row, i) => row.filter((value, j) => i !== j && value !== null));
    const average = pairs.reduce((sum, value) => sum + value, 0) / pairs.length;
    document.getElementById("cosine-caption").textContent =
      `${layer === 0 ? "Embedding output" : `After layer ${layer}`}` +
      (pairs.length ? `: mean over distinct tokens ${average.toFixed(3)}. All bright means over-smoothed.` : ".");
  }

  function element(name, attributes, text) {
    const made = document.createElementNS(SVG, name);
    Object.entries(attributes).forEach(([key, value]) => made.setAttribute(key, value));
    if (text !== undefined) made.textContent = text;
    return made;
  }

  function drawGraph(view, layer, chosen) {
    const box = document.getElementById("graph");
    const caption = document.getElementById("graph-caption");
    box.replaceChildren();
    box.dataset.layer = layer;
    box.dataset.head = chosen;
    box.dataset.edges = 0;
    if (layer === 0) {
      caption.textContent = "The embedding output has no attention: choose layer 1 or later.";
      return;
    }
    const weights = view.attention(layer, chosen);
    const size = weights.length;
    // Weaker edges would only blacken the picture; the margin keeps exactly even attention visible after rounding.
    const least = 0.99 / size;
    const svg = graphFrame(size, layer);
    const edges = weights.flatMap((row, i) => row.map((weight, j) => ({ weight, i, j })))
      .filter((edge) => edge.weight >= least)
      .sort((a, b) => a.weight - b.weight);
    const paths = edges.map(({ weight, i, j }) => {
      const path = element("path", {
        d: `M118 ${height(i)} C180 ${height(i)} 200 ${height(j)} 262 ${height(j)}`,
        "stroke-width": (0.5 + 7 * weight).toFixed(2),
        opacity: strength(weight, 0.12),
      });
      path.append(element("title", {}, `${view.tokens[i]} reads ${view.tokens[j]}: ${weight.toFixed(3)}`));
      svg.append(path);
      return path;
    });
    const show = (side, at) => edges.forEach((edge, k) => {
      const chosenEdge = edge[side] === at;
      paths[k].setAttribute("opacity", at === null ? strength(edge.weight, 0.12) : chosenEdge ? strength(edge.weight, 0.35) : 0.03);
    });
    view.tokens.forEach((token, at) => svg.append(label(token, at, "i", show), label(token, at, "j", show)));
    box.append(svg);
    box.dataset.edges = edges.length;
    caption.textContent = `Layer ${layer}, ${chosen === "mean" ? "mean of all heads" : `head ${Number(chosen) + 1}`}:` +
      ` each token on the left reads those on the right; width and darkness show attention. Edges under an even share (1/${size})` +
      " are left out. Point at a token to see its edges alone.";
  }
  const height = (at) => 40 + 22 * at;
  const strength = (weight, lift) => Math.min(1, lift + 1.2 * weight).toFixed(3);

  function graphFrame(size, layer) {
    const svg = element("svg", {
      viewBox: `0 0 380 ${height(size)}`,
      role: "img",
      "aria-label": `Attention graph of the sentence in layer ${layer}: tokens as readers on the left, as read on the right.`,
    });
    svg.append(element("text", { x: 112, y: 14, "text-anchor": "end", class: "column" }, "reads"));
    svg.append(element("text", { x: 268, y: 14, class: "column" }, "is read"));
    return svg;
  }

  function label(token, at, side, show) {
    const group = element("g", { class: "token", tabindex: "0" });
    const place = side === "i" ? { x: 112, "text-anchor": "end" } : { x: 268 };
    group.append(element("text", { ...place, y: height(at) + 4 }, short(token, 14)));
    group.append(element("title", {}, token));
    for (const name of ["mouseenter", "focus"]) group.addEventListener(name, () => show(side, at));
    for (const name of ["mouseleave", "blur"]) group.addEventListener(name, () => show(side, null));
    return group;
  }

  function drawExemplar() {
    const view = exemplarView(data.exemplar);
    const slider = document.getElementById("layer");
    const head = document.getElementById("head");
    const update = () => {
      const layer = Number(slider.value);
      document.getElementById("layer-shown").textContent = layer === 0 ? "0 (embedding output)" : String(layer);
      drawCosine(view, layer);
      drawGraph(view, layer, head.value);
    };
    slider.addEventListener("input", update);
    head.addEventListener("change", update);
    update();
  }

  drawSimilarity();
  drawLadder();
  drawNorms();
  drawMixing();
  if (data.exemplar !== null) drawExemplar();
  document.documentElement.dataset.ready = "yes";
})();
