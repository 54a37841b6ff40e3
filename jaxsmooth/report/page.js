"use strict";
(async () => {
  const charts = JSON.parse(document.getElementById("charts").textContent);
  // Vega reads the slider and the list by itself; only the number beside the slider is left to do.
  const slider = document.getElementById("layer");
  const show = () => {
    document.getElementById("layer-shown").textContent = slider.value === "0" ? "0 (embedding output)" : slider.value;
  };
  if (slider !== null) {
    slider.addEventListener("input", show);
    show();
  }
  for (const [name, chart] of Object.entries(charts)) {
    // With `ast`, expressions are interpreted: the page's policy lets no text become a program.
    const made = await vegaEmbed(`#${name}`, chart, { actions: false, ast: true, renderer: "svg" });
    document.getElementById(name).view = made.view;
  }
  document.documentElement.dataset.ready = "yes";
})();
